"""What the end-to-end suites have in common: install, ask, break, look. Each function says what it asserts."""

from __future__ import annotations

import contextlib
import fcntl
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.load import asking
from tests.hosts.docker import Result
from tests.hosts.host import CLONE, Host, Kind, Lan, lan, running, wait_until
from tests.hosts.snapshot import Difference, Snapshot, compare

Measure = Callable[[str, float], None]

ANSWER_S = 60.0  # the limit after a fault
AGENT_MIB = 150.0
FAULTS = ("model-server", "agent", "nomad")
REST_S = 15.0
NOTHING = {"plain": 0, "streamed": 0}
# What Python leaves in a clone that was used, and what apt has to remember of packages that came and went.
AFTER_PURGE = (
    rf"^{CLONE}/.*__pycache__",
    r"^/etc/(ld\.so\.conf\.d|alternatives)(/|$)",
    r"^/usr/(local/)?lib/python3[^/]*/.*__pycache__",
)


@dataclass(frozen=True)
class Site:
    """A booted host with the clone on it, and how it was before anything ran."""

    host: Host
    before: Snapshot
    cache: Path


@contextlib.contextmanager
def clean_site(
    kind: Kind, name: str, *, cache: Path, repository: Path, tmpfs: Mapping[str, str] | None = None
) -> Iterator[Site]:
    """Boot a clean host on a network of its own and copy the clone to it."""
    with lan(name) as net, site_on(net, kind, name, cache=cache, repository=repository, tmpfs=tmpfs) as site:
        yield site


@contextlib.contextmanager
def site_on(
    net: Lan,
    kind: Kind,
    name: str,
    *,
    cache: Path,
    repository: Path,
    host_cache: Path | None = None,
    tmpfs: Mapping[str, str] | None = None,
) -> Iterator[Site]:
    """Boot a clean host on a given network and copy the clone to it."""
    with running(Host.start(kind, name, lan=net, cache=cache, host_cache=host_cache, tmpfs=tmpfs)) as host:
        host.copy_clone(repository)
        yield Site(host, host.snapshot(), host_cache or cache / "host")


def ask(host: Host, limit_s: float = ANSWER_S) -> float:
    """Ask until the model answers that it is Paris; return the seconds until it did.

    Raises:
        AssertionError: no such answer came within `limit_s` seconds.
    """
    return float(answered(host, limit_s)["seconds"])


def answered(host: Host, limit_s: float = ANSWER_S) -> dict[str, Any]:
    """The same; return what tests/hosts/ask.py said.

    Raises:
        AssertionError: no such answer came within `limit_s` seconds.
    """
    done = host.exec(f"python3 {CLONE}/tests/hosts/ask.py {limit_s}", check=False, timeout_s=limit_s + 60)
    assert done.code == 0, f"no answer within {limit_s:.0f} s: {done.text}"
    reply = json.loads(done.out)
    assert "Paris" in reply["answer"], reply
    return dict(reply)


@contextlib.contextmanager
def nobody_is_refused(host: Host) -> Iterator[None]:
    """Meanwhile clients that know the one address ask all the time and try nothing again: each has a whole answer."""
    with asking(host, [str(status(host)["api"])]) as load:
        wait_until("requests of each kind", lambda: all(load.since(NOTHING).values()), ANSWER_S)
        yield
        before = load.look()
        wait_until("more of each kind", lambda: all(load.since(before).values()), ANSWER_S)


def the_port_is_kept(host: Host) -> None:
    """What keeps the agent's socket is the agent's user; after a kill it is back and is handed the socket again."""
    assert host.exec("stat -c '%U %a' /var/lib/roost/agent/listen").out.split() == ["roost-agent", "700"]
    before = handed_over(host)
    assert before > 0
    host.exec("kill -9 $(pgrep -u roost-agent -f bin/roost-listen)")
    wait_until("the socket to be handed over again", lambda: handed_over(host) > before, ANSWER_S)


def handed_over(host: Host) -> int:
    """How many sockets were handed to the keeper so far, as its log says."""
    logs = "journalctl -u roost-listen -o cat; cat /var/log/roost/roost-listen.log"
    return host.exec(f"({logs}) 2>/dev/null", check=False).out.count(": kept\n")


def status(host: Host) -> dict[str, Any]:
    """`roost status --json`."""
    return dict(json.loads(host.exec("roost status --json").out))


def changes(output: str) -> int:
    """The sum of the changes that the steps of a bootstrap report."""
    return sum(int(n) for n in re.findall(r"\b(\d+) changes?\b", output))


def check_changes_nothing(site: Site, *args: str) -> Result:
    """`--check` on the clean host ends well, says what it would do, and leaves the host exactly as it was."""
    done = site.host.bootstrap("--check", "--yes", *args)
    difference = compare(site.before, site.host.snapshot())
    assert not difference, str(difference)
    return done


@contextlib.contextmanager
def nomad_built_once(cache: Path) -> Iterator[None]:
    """Let other hosts wait while the first one fills an empty cache: two builds at once take twice as long."""
    with (cache / ".first-run.lock").open("a") as lock:
        if not any((cache / "nomad").glob("*/nomad")):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def first_run(site: Site, *args: str, limit_s: float = 900) -> Result:
    """The first run ends with the answer and says where everything is; all processes are there."""
    with nomad_built_once(site.cache):
        done = site.host.bootstrap("--yes", *args, timeout_s=limit_s)
    assert "Paris" in done.out, done.text[-3000:]
    assert re.search(r"tokens/s", done.out)
    for address in ("http://127.0.0.1:8360", "https://127.0.0.1:4646", "/etc/roost/secrets/api-key"):
        assert address in done.out, f"{address} is not in what bootstrap.sh said"
    assert changes(done.out) > 0
    expected = {"nomad", "model-server", "agent"} | (set() if "--run-local" in args else {"dockerd"})
    assert set(site.host.pids()) >= expected
    ask(site.host)
    return done


def second_run_changes_nothing(host: Host, measure: Measure, *args: str) -> None:
    """Another run reports no change and restarts nothing. How long it takes is measured in bench/."""
    pids = host.pids()
    done = host.bootstrap("--yes", *args)
    assert changes(done.out) == 0, done.out
    assert host.pids() == pids
    measure(f"{host.name}: second run", done.seconds)


def setup_ends_with_an_answer(host: Host, measure: Measure) -> None:
    """`roost setup --yes` with no model hub: a model answers; again nothing changes; undone all is as before."""
    before = host.exec("cat /etc/roost/host.yaml 2>/dev/null || true").out
    pids = host.pids()
    command = "HF_ENDPOINT=http://127.0.0.1:9 roost setup --yes --json"
    done = host.exec(command)
    measure(f"{host.name}: roost setup --yes", done.seconds)
    told = json.loads(done.out)
    assert (told["written"], told["applied"]) == (True, True)
    assert "Paris" in told["answer"]["answer"]
    assert [offer["download"] for offer in told["offers"]] == [0]
    assert all("no model hub answers" in why for why in told["left_out"].values())
    again = json.loads(host.exec(command).out)
    assert (again["diff"], again["written"], again["applied"]) == ("", False, True)
    assert host.pids() == pids
    host.exec("roost setup --undo --yes")
    assert host.exec("cat /etc/roost/host.yaml 2>/dev/null || true").out == before


def says_what_it_is(host: Host) -> None:
    """The command, Ansible's local facts and Nomad's metadata agree, with the memory's speed measured once."""
    told = json.loads(host.exec("env -i /etc/ansible/facts.d/roost.fact").out)
    assert told["bandwidth"]["gbs"] > 0
    assert told["facts"]["disks"][0]["path"] == "/var/lib/roost"
    seen = json.loads(host.exec("roost hosts --json").out)
    assert (seen["node_meta"], seen["bandwidth"]) == (told["node_meta"], told["bandwidth"])
    tls = "/etc/roost/tls"
    found = json.loads(
        host.exec(
            f"NOMAD_ADDR=https://127.0.0.1:4646 NOMAD_CACERT={tls}/ca.pem NOMAD_CLIENT_CERT={tls}/cli.pem "
            f"NOMAD_CLIENT_KEY={tls}/cli-key.pem NOMAD_TOKEN=$(cat /etc/roost/secrets/nomad-operator-token) "
            "/opt/roost/bin/nomad node status -self -json"
        ).out
    )
    assert {name: text for name, text in found["Meta"].items() if name.startswith("roost_")} == told["node_meta"]


def survives_kill(host: Host, process: str, measure: Measure) -> None:
    """`kill -9` of one process: the next answer comes, the process comes back, the others keep running.

    After Nomad, the jobs may be begun anew: Nomad 1.11's client asks its own server before that can check identities
    and then fails what runs. So there the answer counts that comes once everything has come to rest.
    """
    before = host.pids()
    begin = time.monotonic()
    host.exec(f"kill -9 {before[process]}")
    reply = answered(host)
    measure(f"{host.name}: answer after kill -9 of {process}", float(reply["seconds"]))
    # Who comes meanwhile waits; whose connection it had is told.
    assert process != "agent" or not [why for why in reply["failures"] if "refused" in why.lower()], reply
    wait_until(f"{process} is back", lambda: is_new(host, process, before), ANSWER_S)
    if process == "nomad":
        at_rest(host, before)
        measure(f"{host.name}: answer after kill -9 of nomad, jobs at rest", ask(host))
        assert time.monotonic() - begin <= ANSWER_S + REST_S
        return
    others = {k: v for k, v in before.items() if k != process}
    assert {k: v for k, v in host.pids().items() if k != process} == others
    ask(host)


def at_rest(host: Host, complete: Mapping[str, int]) -> None:
    """Wait until all processes of `complete` are there and none of them has changed for `REST_S` seconds."""
    seen: dict[str, int] = {}
    since = time.monotonic()

    def resting() -> bool:
        nonlocal seen, since
        now = host.pids()
        if now != seen or set(now) != set(complete):
            seen, since = now, time.monotonic()
        return time.monotonic() - since >= REST_S

    wait_until("the processes come to rest", resting, ANSWER_S + REST_S, pause_s=1)


def is_new(host: Host, process: str, before: Mapping[str, int]) -> bool:
    """Whether the process runs with a PID that it did not have."""
    now = host.pids()
    return process in now and now[process] != before[process]


def survives(host: Host, what: str, fault: Callable[[], object], measure: Measure) -> None:
    """Do `fault`, then the next answer comes within a minute of its begin; wait until all is there again."""
    before = host.pids()
    begin = time.monotonic()
    fault()
    ask(host, ANSWER_S)
    seconds = time.monotonic() - begin
    measure(f"{host.name}: answer after {what}", seconds)
    assert seconds <= ANSWER_S
    at_rest(host, before)


def survives_reboot(host: Host, measure: Measure) -> None:
    """Boot a host with systemd anew: it answers again within a minute, and its containers ended in order before.

    Those that the last step of a shutdown signals get the signal twice, and a model server may hang then.
    """
    containers = host.exec("docker ps --quiet").out.split()
    survives(host, "reboot", host.reboot, measure)
    journal = "journalctl --no-pager --output cat --unit roost-nomad --unit roost-shutdown --unit docker"
    lines = host.exec(journal).out.splitlines()
    said = f"{len(containers)} containers ended before Docker."
    assert said in lines, lines[-60:]
    before, after = lines[: lines.index(said)], lines[lines.index(said) :]
    assert [line for line in before if "ed roost-nomad.service" in line][-1].startswith("Stopped"), lines[-60:]
    assert next(line for line in after if " docker.service" in line).startswith("Stopping"), lines[-60:]


def state_is_private(host: Host) -> None:
    """Secrets are readable by root only, `roost` is on the PATH, status is complete, the agent is small."""
    loose = host.exec(
        "find /etc/roost/secrets /etc/roost/tls -type f \\( -name '*key*' -o -path '*/secrets/*' \\) -perm /077"
    ).out
    assert loose == ""
    assert host.exec("stat -c %a /etc/roost/secrets").out.strip() == "700"
    said = status(host)
    assert {"api", "web", "nomad", "api_key_file", "models", "healthy"} <= set(said)
    assert said["healthy"] is True
    resident = host.exec(f"awk '/^VmRSS/ {{print $2 / 1024}}' /proc/{host.pids()['agent']}/status").out
    assert float(resident) <= AGENT_MIB


def only_agent_moves(host: Host, before: Mapping[str, int]) -> None:
    """Since `before` the agent was replaced and nothing else was restarted."""
    now = host.pids()
    assert now["agent"] != before["agent"]
    assert {k: v for k, v in now.items() if k != "agent"} == {k: v for k, v in before.items() if k != "agent"}
    ask(host)


def purge_leaves_no_trace(site: Site, *, ignore_sections: tuple[str, ...] = ()) -> Difference:
    """`--purge` gives back the host as it was before the first run."""
    site.host.bootstrap("--purge", "--yes")
    difference = compare(site.before, site.host.snapshot(), ignore_paths=AFTER_PURGE, ignore_sections=ignore_sections)
    assert not difference, str(difference)
    return difference


def failed_clearly(done: Result, reason: str) -> None:
    """It exited non-zero, says the reason and a fix, and shows no program's insides."""
    assert done.code not in {0, 2}, done.text
    assert re.search(reason, done.text, re.IGNORECASE), done.text
    assert re.search(r"\bfix\b", done.text, re.IGNORECASE), done.text
    assert "Traceback" not in done.text
