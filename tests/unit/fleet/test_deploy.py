"""Applying jobs, against a scripted Nomad: only what a real one cannot be made to show at will."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from roost.fleet import deploy
from roost.fleet.jobs import KEEP_WARM_TAG
from roost.fleet.nomad_api import NomadAccess, NomadClient, NomadRefusedError
from roost.fleet.nomad_setup import ensure_acl, ensure_variable, narrow_variable, widen_variable
from roost.ops.errors import RoostError


class ScriptedNomad(NomadClient):
    """Answers from a table `(method, path)`; a list is consumed one answer a call. Records what was written."""

    def __init__(self, answers: dict[tuple[str, str], Any]) -> None:
        super().__init__(
            NomadAccess("https://127.0.0.1:1", Path("/nonexistent"), Path("/nonexistent"), Path("/nonexistent"))
        )
        self.answers = answers
        self.written: list[tuple[str, str, Any]] = []
        self.asked_with: list[tuple[str, str, Any]] = []

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        timeout_s: float | None = None,
        params: Mapping[str, object] | None = None,
    ) -> tuple[Any, int]:
        del timeout_s
        if method != "GET":
            self.written.append((method, path, body))
            self.asked_with.append((method, path, params))
        answer = self.answers.get((method, path))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, Exception):
            raise answer
        return answer, 7


def nomad(more: dict[str, Any] | None = None) -> ScriptedNomad:
    answers: dict[tuple[str, str], Any] = {
        ("PUT", "jobs/parse"): {"ID": "j"},
        ("PUT", "validate/job"): {"ValidationErrors": None, "Error": ""},
        ("GET", "job/j"): {"ID": "j", "Version": 3, "Status": "running", "Stop": False},
        ("PUT", "job/j/plan"): {"Diff": {"Type": "None"}, "Warnings": ""},
        ("PUT", "jobs"): {"JobModifyIndex": 40},
    }
    answers.update({(k.split(" ", 1)[0], k.split(" ", 1)[1]): v for k, v in (more or {}).items()})
    return ScriptedNomad(answers)


def test_nothing_to_do_writes_nothing() -> None:
    client = nomad()
    change = deploy.apply(client, "job", dry_run=False, timeout_s=1)
    assert not change.changed
    assert ("PUT", "jobs") not in [(m, p) for m, p, _ in client.written]


def test_a_dead_job_is_started_again_although_its_text_is_the_same() -> None:
    client = nomad(more={"GET job/j": {"ID": "j", "Version": 3, "Status": "dead", "Stop": False}})
    assert deploy.apply(client, "job", dry_run=True, timeout_s=1).changed


def test_a_job_that_was_never_healthy_begins_anew_although_its_text_is_the_same() -> None:
    failed = {"JobVersion": 3, "JobModifyIndex": 30, "CreateIndex": 31, "Status": "failed", "StatusDescription": ""}
    good = {**failed, "JobModifyIndex": 40, "CreateIndex": 41, "Status": "successful"}
    client = nomad()
    client.answers["GET", "job/j/deployments"] = [[failed], [failed], [good]]
    assert deploy.apply(client, "job", dry_run=False, timeout_s=5).changed
    written = [(method, path) for method, path, _ in client.written]
    assert written.index(("DELETE", "job/j")) < written.index(("PUT", "jobs"))


def test_check_mode_plans_and_does_not_run() -> None:
    diff = {"Type": "Edited", "Fields": [{"Type": "Edited", "Name": "Priority", "Old": "50", "New": "60"}]}
    client = nomad(more={"PUT job/j/plan": {"Diff": diff}})
    change = deploy.apply(client, "job", dry_run=True, timeout_s=1)
    assert change.lines == ["Priority: '50' -> '60'"]
    assert ("PUT", "jobs") not in [(m, p) for m, p, _ in client.written]


def test_failed_deployment_says_why() -> None:
    deployment = {"JobVersion": 3, "JobModifyIndex": 40, "CreateIndex": 41, "Status": "failed",
                  "StatusDescription": "Failed due to progress deadline"}  # fmt: skip
    event = {"DisplayMessage": "OOM Killed"}
    alloc = {"CreateIndex": 41, "TaskStates": {"engine": {"Events": [event]}}}
    client = nomad(
        more={
            "PUT job/j/plan": {"Diff": {"Type": "Added"}},
            "GET job/j/deployments": [deployment],
            "GET job/j/allocations": [alloc],
        }
    )
    client.answers["GET", "job/j/deployments"] = [[deployment]]
    client.answers["GET", "job/j/allocations"] = [[alloc]]
    with pytest.raises(RoostError, match="OOM Killed"):
        deploy.apply(client, "job", dry_run=False, timeout_s=5)


def test_an_older_deployment_does_not_count() -> None:
    old = {"JobVersion": 2, "JobModifyIndex": 30, "CreateIndex": 31, "Status": "successful", "StatusDescription": ""}
    new = {**old, "JobVersion": 3, "JobModifyIndex": 40, "CreateIndex": 42}
    client = nomad(more={"PUT job/j/plan": {"Diff": {"Type": "Edited"}}})
    client.answers["GET", "job/j/deployments"] = [[old], [old, {**new, "Status": "running"}], [old, new]]
    deploy.apply(client, "job", dry_run=False, timeout_s=5)
    assert client.answers["GET", "job/j/deployments"] == [[old, new]]


def test_going_back_successfully_is_still_a_failure() -> None:
    ours = {"JobVersion": 3, "JobModifyIndex": 40, "CreateIndex": 41, "Status": "failed", "StatusDescription": "bad"}
    back = {"JobVersion": 4, "JobModifyIndex": 50, "CreateIndex": 51, "Status": "successful", "StatusDescription": ""}
    client = nomad(more={"PUT job/j/plan": {"Diff": {"Type": "Edited"}}})
    client.answers["GET", "job/j/deployments"] = [[{**ours, "Status": "running"}], [ours, back]]
    client.answers["GET", "job/j/allocations"] = [[]]
    with pytest.raises(RoostError, match="did not become healthy"):
        deploy.apply(client, "job", dry_run=False, timeout_s=5)


def test_invalid_text_is_the_users_error() -> None:
    client = nomad(more={"PUT jobs/parse": NomadRefusedError(400, "line 3: bad", "PUT jobs/parse")})
    with pytest.raises(RoostError, match="line 3: bad"):
        deploy.apply(client, "job", dry_run=True, timeout_s=1)


def test_acl_is_bootstrapped_once_with_our_own_token() -> None:
    denied = NomadRefusedError(403, "ACL token not found", "GET acl/token/self")
    client, anonymous = nomad(more={"GET acl/token/self": denied}), nomad()
    assert ensure_acl(client, anonymous, "tok")
    assert anonymous.written == [("PUT", "acl/bootstrap", {"BootstrapSecret": "tok"})]
    assert not ensure_acl(nomad(more={"GET acl/token/self": {"ID": "x"}}), anonymous, "tok")


def test_no_token_is_made_that_nobody_knows() -> None:
    client = nomad({"GET acl/token/self": NomadRefusedError(403, "Permission denied", "GET acl/token/self")})
    with pytest.raises(RoostError, match="no operator token"):
        ensure_acl(client, client, "")
    assert client.written == []


def test_acl_of_somebody_else_is_a_clear_error() -> None:
    denied = NomadRefusedError(403, "not found", "GET acl/token/self")
    done = NomadRefusedError(400, "ACL bootstrap already done", "PUT acl/bootstrap")
    with pytest.raises(RoostError, match="nomad-operator-token"):
        ensure_acl(nomad(more={"GET acl/token/self": denied}), nomad(more={"PUT acl/bootstrap": done}), "tok")


def test_variable_is_written_only_when_it_differs() -> None:
    client = nomad(more={"GET var/nomad/jobs/j": {"Items": {"a": "1"}}})
    assert not ensure_variable(client, "nomad/jobs/j", {"a": "1"})
    assert ensure_variable(client, "nomad/jobs/j", {"a": "2"})
    assert client.written[0][2]["Items"] == {"a": "2"}


def test_what_jobs_still_read_stays_in_a_variable_until_they_are_changed() -> None:
    client = nomad(more={"GET var/nomad/jobs/j": {"Items": {"a": "1", "shared": "s"}}})
    assert not widen_variable(client, "nomad/jobs/j", {"a": "1"})
    assert widen_variable(client, "nomad/jobs/j", {"a": "2", "b": "3"}, dry_run=True)
    assert not narrow_variable(client, "nomad/jobs/j", ["a", "shared", "other"])
    assert narrow_variable(client, "nomad/jobs/j", ["a"], dry_run=True)
    assert client.written == []
    assert widen_variable(client, "nomad/jobs/j", {"a": "2", "b": "3"})
    assert narrow_variable(client, "nomad/jobs/j", ["a", "b"])
    assert [body["Items"] for _, _, body in client.written] == [{"a": "2", "shared": "s", "b": "3"}, {"a": "1"}]


def test_a_variable_that_is_not_there_is_made_and_not_narrowed() -> None:
    client = nomad(more={"GET var/nomad/jobs/j": NomadRefusedError(404, "not found", "GET var")})
    assert not narrow_variable(client, "nomad/jobs/j", [])
    assert widen_variable(client, "nomad/jobs/j", {"a": "1"})
    assert client.written[0][2]["Items"] == {"a": "1"}


def test_diff_lines_name_the_path_of_each_change() -> None:
    diff = {
        "Type": "Edited",
        "TaskGroups": [
            {"Type": "Edited", "Name": "g", "Fields": [{"Type": "None", "Name": "Count", "Old": "1", "New": "1"}],
             "Tasks": [{"Type": "Edited", "Name": "t", "Objects": [
                 {"Type": "Edited", "Name": "Config",
                  "Fields": [{"Type": "Edited", "Name": "image", "Old": "a:1", "New": "a:2"}]}]}]}
        ],
    }  # fmt: skip
    assert deploy.diff_lines(diff) == ["g.t.Config.image: 'a:1' -> 'a:2'"]


def model_job(count: int, *tags: str) -> dict[str, Any]:
    group = {"Name": "engine", "Count": count, "Services": [{"Tags": list(tags)}]}
    return {"ID": "roost-model-big", "Version": 3, "Status": "dead", "Stop": False, "TaskGroups": [group]}


def cold_nomad(parsed: dict[str, Any], registered: dict[str, Any]) -> ScriptedNomad:
    name = "roost-model-big"
    return nomad({
        "PUT jobs/parse": parsed, f"GET job/{name}": registered, f"PUT job/{name}/plan": {"Diff": {"Type": "None"}},
    })  # fmt: skip


def test_a_model_that_was_stopped_for_being_idle_stays_so_and_is_no_change() -> None:
    client = cold_nomad(model_job(1), model_job(0))
    assert not deploy.apply(client, "job", dry_run=False, timeout_s=1).changed
    planned = [body for method, path, body in client.written if path.endswith("/plan")]
    assert planned[0]["Job"]["TaskGroups"][0]["Count"] == 0


def test_a_cold_model_stays_cold_when_its_job_changes_and_nobody_waits_for_it() -> None:
    client = cold_nomad(model_job(1), model_job(0))
    client.answers["PUT", "job/roost-model-big/plan"] = {"Diff": {"Type": "Edited", "Fields": []}, "Warnings": ""}
    assert deploy.apply(client, "job", dry_run=False, timeout_s=1).changed
    (written,) = [body for method, path, body in client.written if path == "jobs"]
    assert written["Job"]["TaskGroups"][0]["Count"] == 0


def placed(*machines: str) -> dict[str, Any]:
    by_name = {"LTarget": deploy.BY_NAME, "Operand": "set_contains_any", "RTarget": ",".join(machines)}
    return model_job(1) | {"Constraints": [by_name]}


def fleet_with(*out: str) -> list[dict[str, Any]]:
    return [
        {"Name": name, "Drain": False, "SchedulingEligibility": "ineligible" if name in out else "eligible"}
        for name in ("one", "two", "three")
    ]


def test_nobody_waits_for_a_model_on_machines_that_get_no_work() -> None:
    client = nomad({"GET nodes": [fleet_with("two", "three")]})
    deploy.run_and_wait(client, placed("two", "three"), timeout_s=0)
    assert [path for _, path, _ in client.written] == ["jobs"]


@pytest.mark.parametrize(("out", "job"), [
    (["two"], placed("two", "three")),  # its spare has it
    (["two"], placed("one")),
    (["two"], placed("gone")),  # nobody is told that it would run
    (["one", "two", "three"], model_job(1)),
    (["two"], placed("two") | {"ID": "roost-agent"}),  # without it there is no API
])  # fmt: skip
def test_else_it_is_waited_for(out: list[str], job: dict[str, Any]) -> None:
    client = nomad({"GET nodes": [fleet_with(*out)], f"GET job/{job['ID']}": job})
    with pytest.raises(RoostError, match="was not healthy"):
        deploy.run_and_wait(client, job, timeout_s=0)


def test_a_model_that_shall_stay_warm_is_started() -> None:
    client = cold_nomad(model_job(1, KEEP_WARM_TAG), model_job(0))
    deploy.apply(client, "job", dry_run=True, timeout_s=1)
    planned = [body for method, path, body in client.written if path.endswith("/plan")]
    assert planned[0]["Job"]["TaskGroups"][0]["Count"] == 1


def test_a_model_that_an_operator_stopped_is_started_again() -> None:
    client = cold_nomad(model_job(1), {**model_job(0), "Stop": True})
    assert deploy.apply(client, "job", dry_run=True, timeout_s=1).changed


def test_the_reason_is_that_of_the_version_that_failed() -> None:
    def allocation(index: int, version: int, said: str) -> dict[str, Any]:
        events = {"agent": {"Events": [{"DisplayMessage": said}]}}
        return {"CreateIndex": index, "JobVersion": version, "TaskStates": events}

    client = nomad({"GET job/j/allocations": [[allocation(2, 3, "Exit Code: 1"), allocation(9, 4, "Started")]]})
    assert deploy.failure_reason(client, "j", 3) == "task agent: Exit Code: 1"
    assert deploy.failure_reason(client, "j", 4) == "task agent: Started"
    assert deploy.failure_reason(client, "j", 5) == "Nomad gives no reason"


@pytest.mark.parametrize(
    ("status", "task", "ended"),
    [("complete", "dead", True), ("failed", "dead", True), ("failed", "running", False), ("running", "running", False),
     ("lost", "running", True), ("failed", None, True)],
)  # fmt: skip
def test_a_job_has_stopped_when_nothing_of_it_runs(status: str, task: str | None, ended: bool) -> None:
    running = {"ClientStatus": "running", "TaskStates": {"engine": {"State": "running"}}}
    seen = {"ClientStatus": status, "TaskStates": {"engine": {"State": task}} if task else None}
    over = {"ClientStatus": "complete", "TaskStates": {"engine": {"State": "dead"}}}
    client = nomad({"GET job/j/allocations": [[running], [seen], [over], []], "DELETE job/j": {}})
    assert deploy.stop(client, "j", purge=True, timeout_s=5)
    # Nomad lists no allocation of a job that is purged.
    assert [params["purge"] for _, _, params in client.asked_with] == ["false", "true"]
    left = client.answers["GET", "job/j/allocations"]
    assert left == ([[over], []] if ended else [[]])


CRASHED = {
    "JobVersion": 3, "CreateIndex": 41, "TaskStates": {"engine": {"Restarts": deploy.CRASHES, "Events": [
        {"DisplayMessage": "Exit Code: 1"}]}},
}  # fmt: skip


def test_what_ends_again_and_again_is_given_up_at_once() -> None:
    waiting = {"ID": "d", "JobVersion": 3, "CreateIndex": 41, "Status": "running", "StatusDescription": ""}
    client = nomad(more={"GET job/j/deployments": [[waiting]], "GET job/j/allocations": [[CRASHED]]})
    with pytest.raises(RoostError, match=r"does not stay up.*Exit Code: 1"):
        deploy.run_and_wait(client, {"ID": "j"}, timeout_s=60)
    assert ("PUT", "deployment/fail/d") in [(method, path) for method, path, _ in client.written]


@pytest.mark.parametrize("refused", [None, NomadRefusedError(400, "terminal", "PUT deployment/fail/d")])
def test_what_never_answers_is_given_up_when_its_time_is_over(refused: Exception | None) -> None:
    waiting = {"ID": "d", "JobVersion": 3, "CreateIndex": 41, "Status": "running", "StatusDescription": ""}
    begun = waiting | {"TaskGroups": {"g": {"DesiredTotal": 1, "PlacedAllocs": 1, "UnhealthyAllocs": 0}}}
    again = waiting | {"TaskGroups": {"g": {"DesiredTotal": 1, "PlacedAllocs": 2, "UnhealthyAllocs": 1}}}
    alloc = {"JobVersion": 3, "CreateIndex": 41, "TaskStates": {"engine": {"Events": [{"DisplayMessage": "deadline"}]}}}
    client = nomad(more={"GET job/j/deployments": [[begun], [again]], "GET job/j/allocations": [[alloc]]})
    client.answers["PUT", "deployment/fail/d"] = refused
    with pytest.raises(RoostError, match=r"did not become healthy.*deadline"):
        deploy.run_and_wait(client, {"ID": "j"}, timeout_s=60)
    assert ("PUT", "deployment/fail/d") in [(method, path) for method, path, _ in client.written]


@pytest.mark.parametrize("seen", [{"JobVersion": 2}, {"TaskStates": {"engine": {"Restarts": deploy.CRASHES - 1}}}])
def test_a_few_restarts_or_those_of_another_version_are_no_crash(seen: dict[str, Any]) -> None:
    client = nomad(more={"GET job/j/allocations": [[CRASHED | seen]]})
    assert not deploy.crashes(client, "j", 3)


def test_a_job_comes_back_from_its_definition_only_where_it_is_another() -> None:
    before = {"ID": "j", "Version": 2}
    assert not deploy.restore(nomad(), before, timeout_s=1)
    good = {"ID": "d", "JobVersion": 3, "CreateIndex": 41, "Status": "successful", "StatusDescription": ""}
    edited = {"Diff": {"Type": "Edited"}, "Warnings": ""}
    client = nomad(more={"PUT job/j/plan": edited, "GET job/j/deployments": [[good]]})
    assert deploy.restore(client, before, timeout_s=5)
    assert ("PUT", "jobs", {"Job": before}) in client.written
