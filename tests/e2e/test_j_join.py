"""Two machines: looked at before anything is changed; one is set up alone, the other joins it with a token."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e import story
from tests.e2e.fleet import CLONE, INVENTORY, NOMAD, Fleet, booted
from tests.hosts.host import Host, lan, wait_until
from tests.hosts.snapshot import compare

pytestmark = pytest.mark.long  # two machines set up one after the other: only with --long

Measure = Callable[[str, float], None]
NAMES = ["fleet-1", "fleet-2"]
FOREIGN = "192.0.2.7"
# Faults of the second machine, beside two taken ports: a tier of them by variables, as tests have no such machine.
FAULTS = {
    "preflight_min_memory_mib": 1 << 30,
    "preflight_min_disk_mib": 1 << 30,
    "api_listen_address": FOREIGN,
    "gateway_replicas": 1,  # so that it is looked at there, and not on the first machine alone
    "engine": "llama-cpp-python",
}
PORTS = (4646, 8360)


@pytest.fixture(scope="module")
def bare(cache: Path, repository: Path) -> Iterator[Fleet]:
    with lan("join") as net, booted(net, NAMES, cache=cache, repository=repository) as found:
        yield Fleet(net, found, NAMES[:1])


def test_six_faults_are_said_at_once_and_no_machine_is_changed(bare: Fleet) -> None:
    second = bare.hosts["fleet-2"]
    bare.trust()
    second.exec("true")
    before = second.snapshot()
    for port in PORTS:
        second.occupy(port)
    done = bare.deploy(check=False, host_variables={"fleet-2": FAULTS})
    second.exec("pkill -x perl", check=False)
    assert done.code != 0
    for said in ("4646", "8360", "MiB of memory", "MiB are free", FOREIGN, "llama-cpp-python", "7 things"):
        assert said in done.text, f"{said} is not in:\n{done.text}"
    difference = compare(before, second.snapshot())
    assert not difference, str(difference)
    first = bare.controller.exec("ls -d /etc/roost /opt/roost/current /var/lib/roost/nomad 2>/dev/null", check=False)
    assert first.out == ""


def test_preflight_alone_is_harmless(bare: Fleet) -> None:
    bare.trust()
    bare.controller.write(INVENTORY, yaml.safe_dump(bare.inventory(), sort_keys=False))
    release = bare.controller.exec("ls -d /opt/roost/releases/*").out.split()[0]
    python = bare.controller.exec(
        f"sed -n 's/.* exec \\(.*\\/bin\\)\\/python .*/\\1/p' {release}/bin/roost"
    ).out.strip()
    before = {name: host.snapshot() for name, host in bare.hosts.items()}
    done = bare.controller.exec(
        f"cd {release} && PATH={python}:$PATH PYTHONPATH=app PYTHONDONTWRITEBYTECODE=1 ANSIBLE_HOME=/run/ansible "
        "ANSIBLE_SSH_ARGS='-o ControlMaster=no' "
        f"LC_ALL=C.UTF-8 ansible-playbook -i {INVENTORY} playbook.yaml --tags preflight",
    )
    assert "failed=0" in done.out
    for name, host in bare.hosts.items():
        difference = compare(before[name], host.snapshot())
        assert not difference, f"{name}: {difference}"


@pytest.fixture(scope="module")
def alone(bare: Fleet) -> Host:
    """The first machine, set up for itself and open to its network; nobody's key opens the second one."""
    bare.controller.exec(f"rm -f {INVENTORY} /root/.ssh/known_hosts /root/.ssh/id_ed25519*")
    bare.hosts["fleet-2"].exec("rm -rf /root/.ssh")
    bare.controller.bootstrap("--listen", bare.controller.address, "--yes", timeout_s=900)
    return bare.controller


def token(host: Host, *words: str) -> str:
    return str(json.loads(host.exec(f"roost fleet token --json {' '.join(words)}").out)["token"])


def test_a_machine_joins_with_a_token(bare: Fleet, alone: Host, repository: Path, measure: Measure) -> None:
    second = bare.hosts["fleet-2"]
    second.copy_clone(repository)
    done = second.bootstrap("--join", alone.address, "--token", token(alone), "--yes", timeout_s=900)
    measure("j: a machine joins with a token", done.seconds)
    assert "is a machine of the fleet that is set up from fleet-1" in done.out
    state = json.loads(alone.exec("roost fleet status --json").out)
    assert {(m["name"], m["state"], m["server"]) for m in state["machines"]} == {
        ("fleet-1", "ready", True), ("fleet-2", "ready", False),
    }  # fmt: skip
    assert "Paris" in bare.ask(second)
    assert second.exec("ls /etc/roost/secrets").out == "", "a machine that is no server holds no secret"
    keys = [host.exec("cat /etc/roost/tls/node-key.pem").out for host in (alone, second)]
    assert keys[0] != keys[1]
    assert alone.exec(f"grep -rlF '{keys[1].splitlines()[1]}' /etc/roost /var/lib/roost", check=False).out == ""
    later = alone.bootstrap("--yes", timeout_s=600)
    assert story.changes(later.out) == 0, later.out


def test_used_altered_and_old_tokens_are_refused(bare: Fleet, alone: Host) -> None:
    second = bare.hosts["fleet-2"]
    before = second.exec("cat /etc/roost/tls/node.pem").out
    good = token(alone)  # as long as it is open, somebody answers

    def refused(text: str, why: str) -> None:
        done = second.exec(f"roost fleet join {alone.address} --name fleet-9 --token {text}", check=False)
        assert done.code != 0
        assert why in done.text
        assert "fix: " in done.text
        assert "Traceback" not in done.text

    old = json.loads(alone.exec("roost fleet token --json --ttl 1").out)
    wait_until("it ends", lambda: int(second.exec("date +%s").out) > old["expires"], 30)
    refused(old["token"], "ended")
    refused(good[:-8] + "AAAAAAAA", "not the whole")
    refused("roost-join-nonsense", "no join token")
    tokens = "/etc/roost/secrets/join-tokens.json"
    described = alone.exec(f"cat {tokens}; stat -c %a {tokens}").out
    assert good not in described
    assert described.strip().endswith("600")
    assert second.exec("cat /etc/roost/tls/node.pem").out == before
    done = second.exec(f"roost fleet join {alone.address} --token {good}", check=False)
    story.failed_clearly(done, "fleet-2 is in the inventory already")


def test_roles_get_tokens_of_their_own(alone: Host) -> None:
    made = json.loads(alone.exec("roost fleet access add dashboard --role read-only --json").out)
    ask = f"NOMAD_TOKEN={made['secret']} /opt/roost/bin/nomad"
    environment = NOMAD.partition("NOMAD_TOKEN=")[0]
    assert "roost-agent" in alone.exec(f"{environment} {ask} job status").out
    assert alone.exec(f"{environment} {ask} job stop roost-agent", check=False).code != 0
    alone.exec("roost fleet access revoke dashboard")
    assert alone.exec(f"{environment} {ask} job status", check=False).code != 0


def test_sealed_secrets_need_the_passphrase_and_nothing_that_runs_does(bare: Fleet, alone: Host) -> None:
    pids = bare.pids()
    alone.write("/root/passphrase", "a long passphrase\n")
    phrase = "ROOST_VAULT_PASSPHRASE_FILE=/root/passphrase"
    alone.exec(f"{phrase} roost security seal")
    assert alone.exec("head -c 14 /etc/roost/tls/ca-key.pem").out == "$ANSIBLE_VAULT"
    story.failed_clearly(alone.bootstrap("--yes", check=False), "sealed")
    done = alone.exec(f"cd {CLONE} && {phrase} ./bootstrap.sh --yes", timeout_s=600)
    assert story.changes(done.out) == 0, done.out
    assert bare.pids() == pids
    assert "Paris" in bare.ask(bare.hosts["fleet-2"])
    alone.exec("roost fleet snapshot save")  # as its service does, which nobody tells the passphrase
    found = json.loads(alone.exec(f"{phrase} roost security audit --json", check=False).out)["findings"]
    assert [f for f in found if f["severity"] == "error"] == []
    assert not [f for f in found if f["id"].startswith("unsealed")]
    alone.exec("chmod 644 /etc/roost/secrets/api-key; echo 'a ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/test")
    worse = alone.exec(f"{phrase} roost security audit --json", check=False)
    ids = {f["id"] for f in json.loads(worse.out)["findings"]}
    assert {"readable:/etc/roost/secrets/api-key", "sudo:/etc/sudoers.d/test:1"} <= ids
    assert worse.code == 2
    alone.exec(f"rm /etc/sudoers.d/test; chmod 600 /etc/roost/secrets/api-key; {phrase} roost security unseal")


def test_it_leaves_without_a_trace(bare: Fleet, alone: Host) -> None:
    second = bare.hosts["fleet-2"]
    alone.exec("roost fleet remove fleet-2 --purge", timeout_s=900)
    left = second.exec("ls -d /etc/roost /opt/roost /var/lib/roost /root/.ssh 2>/dev/null", check=False)
    assert left.out == ""
    machines = json.loads(alone.exec("roost fleet status --json").out)["machines"]
    assert [m["name"] for m in machines] == ["fleet-1"]
