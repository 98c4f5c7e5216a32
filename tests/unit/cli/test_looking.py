"""`roost status`, `jobs`, `logs`, `models`, `doctor`: what they show of an installation."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from roost.cli import doctor as doctor_verb
from roost.cli.api import Readiness
from roost.cli.doctor import still_in_the_way
from roost.cli.jobs import job_row
from roost.cli.status import AgentSeen, GatewayRow, NomadSeen, compose, show
from roost.fleet.artifacts.from_site import release_dir
from roost.fleet.nomad_api import NomadUnreachableError
from roost.hosts.collect import collect
from roost.hosts.findings import Finding, NotChecked
from roost.ops.errors import RoostError
from roost.ops.site import load_site
from roost.ops.variables import load_variables
from tests.support.replaced import keeper_process
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import MODEL, Broken, Installation, nomad_job


def test_status_when_all_is_well(site: Installation, roost: Run) -> None:
    done = roost("status", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert found["healthy"] is True
    assert found["api"].startswith("http://127.0.0.1:")
    assert found["web"] == found["api"] + "/"
    assert found["nomad"].startswith("https://127.0.0.1:")
    assert found["api_key_file"] == str(site.folder / "secrets" / "api-key")
    assert found["models"] == [
        {"name": MODEL, "slot": "main", "state": "ready", "context": 8192, "reason": "", "tier": None, "source": ""},
    ]
    assert (found["nomad_version"], found["nomad_leader"]) == ("1.11.3", "192.0.2.2:4647")
    assert [job["id"] for job in found["jobs"]] == ["roost-agent", "roost-model-main"]
    assert found["unread"] == []
    shown = roost("status")
    assert shown.exit_code == 0
    assert "key file" in shown.stdout
    assert max(len(line) for line in shown.stdout.splitlines()) < 120


def test_status_tells_of_a_better_plan_in_one_line(site: Installation, roost: Run) -> None:
    words = "This machine could serve gemma-3n-e4b-it: sudo roost setup"
    assert "could serve" not in roost("status").stdout
    assert json.loads(roost("status", "--json").stdout)["better_plan"] == ""
    here = json.loads(site.site_file.read_text())
    site.site_file.write_text(json.dumps({**here, "better_plan": words}))
    done = roost("status")
    assert (done.exit_code, done.stdout.splitlines().count(words)) == (0, 1)
    assert json.loads(roost("status", "--json").stdout)["better_plan"] == words


def test_status_when_the_model_loads(site: Installation, roost: Run) -> None:
    site.api.not_ready = 100
    site.api.models = [
        {"id": MODEL, "roost": {"slot": "main", "state": "loading", "reason": "loading", "context": None}}
    ]
    done = roost("status")
    assert done.exit_code == 1
    assert "not healthy" in done.stdout
    assert "! main: loading the model" in done.stdout
    assert "roost doctor" in done.stdout


def test_status_when_a_job_is_down(site: Installation, roost: Run) -> None:
    site.nomad.answers["job/roost-agent/allocations"] = []
    done = roost("status", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["healthy"] is False


def test_status_when_nobody_answers(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROOST_API", "http://127.0.0.1:9")
    site.nomad.answers.clear()
    done = roost("status", "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["agent"], found["models"][0]["state"]) == (1, "unreachable", "unreachable")
    assert "Nomad refused" in found["nomad_problem"]


def test_status_without_the_keys_says_what_it_could_not_read(site: Installation) -> None:
    here = load_site(site.site_file)
    seen = Readiness(reachable=True, ready=True, reasons=(), slots={"main": {"ready": 1, "loading": 0, "down": 0}})
    unread = ("The key file can only be read by root. Fix: sudo",)
    found = compose(here, seen, AgentSeen(), NomadSeen(), unread)
    assert found.healthy
    assert (found.models[0].state, found.models[0].context, found.unread) == ("ready", None, unread)


def test_status_shows_models_elsewhere_and_does_not_depend_on_them(site: Installation) -> None:
    here = load_site(site.site_file)
    seen = Readiness(reachable=True, ready=True, reasons=(), slots={"main": {"ready": 1, "loading": 0, "down": 0}})
    own = {"slot": "main", "state": "ready", "context": 8192, "tier": "sweet", "source": ["nomad"]}
    there = {"slot": "box", "state": "down", "context": None, "reason": "nothing answers there", "source": ["by hand"]}
    entries: list[dict[str, Any]] = [{"id": MODEL, "roost": own}, {"id": "qwen3:8b", "roost": there}]
    found = compose(here, seen, AgentSeen(entries), NomadSeen(), ())
    assert found.healthy
    assert (found.models[0].tier, found.models[0].source) == ("sweet", "nomad")
    assert [(row.name, row.state, row.source) for row in found.elsewhere] == [("qwen3:8b", "down", "by hand")]


def test_status_lists_several_gateways_and_what_cannot_be_kept(
    site: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = Readiness(reachable=True, ready=True, reasons=(), slots={"main": {"ready": 1, "loading": 0, "down": 0}})
    gateways = (GatewayRow("a" * 32, "this"), GatewayRow("b" * 32, "lost", "https://192.0.2.8:8443"))
    show(compose(load_site(site.site_file), seen, AgentSeen([], gateways, ("ledger",)), NomadSeen(), ()))
    said = capsys.readouterr().out
    assert "https://192.0.2.8:8443" in said
    assert "cannot write down: ledger" in said


def test_status_not_installed(site: Installation, roost: Run) -> None:
    site.site_file.unlink()
    error = roost("status").exception
    assert isinstance(error, RoostError)
    assert error.exit_code == 3


def test_jobs(site: Installation, roost: Run) -> None:
    rows = json.loads(roost("jobs", "--json").stdout)
    assert rows[0] == {
        "id": "roost-agent", "status": "running", "running": 1, "wanted": 1, "restarts": 2, "node": "box",
        "since": "2026-01-02T03:04:05Z", "events": ["Task started", "Exit Code: 1"],
    }  # fmt: skip
    nomad_job(site.nomad.answers, "roost-model-coding", status="failed")
    shown = roost("jobs").stdout
    assert "0/1" in shown
    assert "roost-model-coding: Exit Code: 1" in shown


@pytest.mark.parametrize("allocations", [[], [{"ID": "x", "ClientStatus": "pending", "TaskStates": None}]])
def test_a_job_that_never_started(allocations: list[dict[str, Any]]) -> None:
    row = job_row({"ID": "j", "Status": "pending"}, {"TaskGroups": [{"Count": 2}]}, allocations)
    assert (row.running, row.wanted, row.since, row.events, row.healthy) == (0, 2, "", (), False)


def test_logs_of_jobs(site: Installation, roost: Run) -> None:
    site.nomad.answers["client/fs/logs/alloc-roost-agent"] = b"one\ntwo\nthree\n"
    assert roost("logs", "agent", "-n", "2").stdout.splitlines()[-2:] == ["two", "three"]
    assert roost("logs", "main").stdout.splitlines()[-2:] == ["loading", "loaded"]
    assert roost("logs", "main", "--follow").stdout.count("loaded") == 2  # of both streams, until they end
    assert json.loads(roost("logs", "main", "--json").stdout.splitlines()[-1]) == {"line": "loaded"}


def test_logs_of_files(site: Installation, roost: Run) -> None:
    log = site.folder / "log"
    (log / "roost-nomad.log").write_text("a\nb\nc\n")
    assert roost("logs", "nomad", "-n", "2").stdout == "b\nc\n"
    for number, name in enumerate(("bootstrap-1.log", "bootstrap-2.log")):
        (log / name).write_text(f"{name}\n")
        os.utime(log / name, (number, number))
    assert roost("logs", "bootstrap").stdout == "bootstrap-2.log\n"


def test_logs_that_do_not_exist(site: Installation, roost: Run) -> None:
    error = roost("logs", "coding").exception
    assert isinstance(error, RoostError)
    assert (error.exit_code, error.fix) == (6, "Use one of: agent, main, nomad, bootstrap.")
    site.nomad.answers["job/roost-agent/allocations"] = []
    error = roost("logs").exception
    assert isinstance(error, RoostError)
    assert "has not started yet" in error.message
    error = roost("logs", "bootstrap").exception
    assert isinstance(error, RoostError)
    assert "There is no log of bootstrap.sh" in error.message


def test_models(site: Installation, roost: Run) -> None:
    row, *others = json.loads(roost("models", "--json").stdout)
    assert json.loads(roost("models", "list", "--json").stdout) == [row, *others]
    assert {other["file"] for other in others} == {"not locked"}
    assert (row["name"], row["licence"], row["file"], row["slots"]) == (MODEL, "Apache-2.0", "missing", ["main"])
    assert row["states"] == {"main": "ready"}
    shown = roost("models").stdout
    assert "main (ready)" in " ".join(shown.split())
    assert "94 MiB" in shown
    assert MODEL in shown
    assert not list((site.folder / "models").iterdir())


def test_models_verify(site: Installation, roost: Run) -> None:
    done = roost("models", "verify", "--json")
    assert json.loads(done.stdout) == [{"name": f"{MODEL}:Q4_1", "state": "missing"}]
    assert isinstance(done.exception, RoostError)
    assert done.exception.exit_code == 1
    assert "bootstrap.sh" in done.exception.fix
    assert isinstance(roost("models", "verify", "gpt").exception, RoostError)
    assert site.api.probes == 0


def test_doctor_finds_what_is_wrong(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_verb, "_succeeds", lambda _command: True)
    (site.folder / "secrets" / "gossip-key").chmod(0o644)
    (site.folder / "tls" / "cli.pem").write_text("rubbish")
    site.api.version = "0.0.9"
    done = roost("doctor", "--json")
    assert done.exit_code == 2
    found = {finding["id"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}
    folder = site.folder
    assert found[f"certificate:{folder / 'tls' / 'cli.pem'}"] == "error"
    assert found[f"model:{MODEL}:Q4_1"] == "error"
    assert found["version:The agent"] == "warning"
    if os.geteuid() == 0:
        assert found[f"secret:{folder / 'secrets' / 'gossip-key'}"] == "error"
    assert "service:roost-nomad" not in found


@pytest.mark.parametrize(
    ("runs", "expected", "missed"), [(True, True, False), (False, True, True), (False, False, False)]
)
def test_doctor_misses_the_keeper_of_sockets_only_where_one_should_be(
    site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch, *, runs: bool, expected: bool, missed: bool
) -> None:
    monkeypatch.setattr(doctor_verb, "_succeeds", lambda command: runs or "roost-listen" not in " ".join(command))
    folder = site.folder / "listen"
    folder.mkdir()
    if expected:
        site.site_file.write_text(json.dumps({**json.loads(site.site_file.read_text()), "listen_dir": str(folder)}))
    with keeper_process(folder):
        found = {f["id"]: f for f in json.loads(roost("doctor", "--json").stdout)["findings"]}
    assert ("service:roost-listen" in found) is missed
    if missed:
        assert found["service:roost-listen"]["severity"] == "warning"
        assert " start" in found["service:roost-listen"]["fix"]


def test_doctor_says_that_the_keeper_of_sockets_does_not_answer(
    site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_verb, "_succeeds", lambda _command: True)
    site.site_file.write_text(json.dumps({**json.loads(site.site_file.read_text()), "listen_dir": str(site.folder)}))
    said = json.loads(roost("doctor", "--json").stdout)
    if os.geteuid() == 0:
        (found,) = [f for f in said["findings"] if f["id"] == "service:roost-listen"]
        assert "does not answer" in found["what"]
        assert "restart" in found["fix"]
    else:
        assert "whether the service roost-listen answers" in {item["what"] for item in said["not_checked"]}


def test_doctor_when_all_is_well(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    report = doctor_verb.Report(
        [Finding("restarts:roost-agent", "info", "The job roost-agent was restarted 2 times.", "why", "fix")], []
    )
    monkeypatch.setattr(doctor_verb, "examine", lambda _site: report)
    done = roost("doctor")
    assert done.exit_code == 0, done.stdout
    assert "Nothing is wrong." in done.stdout
    assert "The job roost-agent was restarted 2 times." in done.stdout
    assert site.api.probes == 0


def test_doctor_asks_the_agent_once(site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_verb, "_succeeds", lambda _command: True)
    done = roost("doctor", "--json")
    found = {finding["id"]: finding["severity"] for finding in json.loads(done.stdout)["findings"]}
    assert found["restarts:roost-agent"] == "info"
    assert not {f for f in found if f.startswith(("job:", "api", "nomad", "server:", "plan:", "context:"))}
    assert site.api.probes == 1


def test_doctor_names_a_server_that_is_not_as_planned(
    site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_verb, "_succeeds", lambda _command: True)
    site.api.models[0]["roost"] |= {"context": 4096}
    site.nomad.answers["job/roost-model-main"] = {
        "ID": "roost-model-main",
        "TaskGroups": [{"Name": "g", "Count": 1, "Services": [{"Tags": ["slot=main", "model=another"]}]}],
    }
    found = {f["id"]: f for f in json.loads(roost("doctor", "--json").stdout)["findings"]}
    assert "another" in found["plan:main"]["what"]
    assert ("context:main" in found) is (doctor_verb._contexts(doctor_verb._variables(load_site())) == {"main": 8192})


def test_doctor_does_not_vouch_for_what_it_could_not_see(
    site: Installation, roost: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = doctor_verb.Report([], [NotChecked("the operator's token", "run sudo roost doctor")])
    monkeypatch.setattr(doctor_verb, "examine", lambda _site: report)
    done = roost("doctor")
    assert done.exit_code == 0
    assert "Nothing is wrong." not in done.stdout
    assert "not checked: the operator's token: run sudo roost doctor" in done.stdout
    assert json.loads(roost("doctor", "--json").stdout)["not_checked"][0]["what"] == "the operator's token"
    assert site.api.probes == 0


def test_following_a_log_ends_when_nomad_goes_away(site: Installation, roost: Run) -> None:
    site.nomad.answers["client/fs/logs/alloc-roost-agent"] = Broken(b"one\n")
    broken = roost("logs", "agent", "--follow")
    assert isinstance(broken.exception, NomadUnreachableError)


def test_a_cold_job_is_healthy_and_a_stopped_one_is_not() -> None:
    asleep = {"TaskGroups": [{"Count": 0}], "Stop": False}
    row = job_row({"ID": "j", "Status": "dead"}, asleep, [])
    assert (row.status, row.wanted, row.healthy) == ("cold", 0, True)
    assert not job_row({"ID": "j", "Status": "dead"}, {**asleep, "Stop": True}, []).healthy


def test_doctor_says_what_preflight_would_refuse_today() -> None:
    variables = load_variables(release_dir(), Path("/nonexistent/host.yaml"))
    facts = replace(collect(["/"]), kernel="3.2.0-4-amd64", is_root=False)
    found = list(still_in_the_way(facts, variables, []))
    assert "kernel" in {finding.id for finding in found}
    assert "root" not in {finding.id for finding in found}
    assert list(still_in_the_way(facts, variables, found)) == []
    assert list(still_in_the_way(facts, {}, [])) == []


def test_doctor_says_once_what_this_user_may_not_look_at(
    roost: Run, site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> str:
        raise RoostError(f"The key file {path} can only be read by root.", fix="Run it with sudo.", exit_code=4)

    monkeypatch.setattr("roost.cli.access.read_key", refused)
    out = roost("doctor").output
    key_file = json.loads(site.site_file.read_text())["api_key_file"]
    line = (
        f"not checked: The key file {key_file} can only be read by root: this user may not ask; run sudo roost doctor"
    )
    assert line in out.splitlines()
    assert "Fix: " not in out
