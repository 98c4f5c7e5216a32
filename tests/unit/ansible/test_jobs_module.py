"""The module that applies jobs: a check before the certificate of a new address exists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest

from roost.fleet import job_variables
from roost.fleet.agent_jobs import GATEWAY_JOB
from roost.fleet.deploy import JobChange
from roost.fleet.engine_start import EngineStart, read_start
from roost.fleet.job_memory import job_memory
from roost.fleet.nomad_api import NomadUnreachableError
from roost.fleet.site_wish import SiteWish, SlotWish
from roost.models.catalogue import load_catalogue
from roost.models.estimate.measured import MeasuredStore
from roost.models.estimate.on_host import HostEngine
from roost.models.footprint import LayerSplit
from roost.ops.errors import RoostError
from tests.support.ansible_module import REPOSITORY, load_module

WISH = SimpleNamespace(listen="192.0.2.1:8443")


@pytest.fixture
def jobs() -> ModuleType:
    """Return the module's code."""
    return load_module("roost_jobs")


def test_a_check_knows_that_the_pair_will_be_made(jobs: ModuleType, tmp_path: Path) -> None:
    params = {"tls_dir": str(tmp_path), "listen_cert": "", "listen_key": ""}
    assert jobs.tls_pair(params, WISH, dry_run=True) == jobs.TO_BE_MADE
    with pytest.raises(FileNotFoundError):
        jobs.tls_pair(params, WISH, dry_run=False)
    (tmp_path / "api.pem").write_text("certificate")
    (tmp_path / "api-key.pem").write_text("key")
    assert jobs.tls_pair(params, WISH, dry_run=True) == ("certificate", "key")


SMALL = "smollm2-135m-instruct"
START = """
load_tensors: loading model tensors, this can take a while... (load_mode = mmap)
load_tensors: offloaded 31/31 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    28.69 MiB
load_tensors:        CUDA0 model buffer size =    92.10 MiB
llama_context:  CUDA_Host  output buffer size =     0.38 MiB
llama_kv_cache:      CUDA0 KV buffer size =   180.00 MiB
sched_reserve:      CUDA0 compute buffer size =    98.25 MiB
sched_reserve:  CUDA_Host compute buffer size =     9.13 MiB
"""


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({}, True),
        ({"adapters": ["poet"]}, False),
        ({"embedding": True}, False),
        ({"rpc": [{"host": "b", "address": "192.0.2.2", "port": 5, "layers": 3, "memory_mib": 9}]}, False),
    ],
    ids=["plain", "adapters", "embedding", "rpc"],
)
def test_what_a_server_took_is_kept_for_the_next_plan(
    jobs: ModuleType, tmp_path: Path, more: Mapping[str, object], kept: bool
) -> None:
    catalogue = load_catalogue(REPOSITORY / "group_vars/models.yaml", lock=Path("/nonexistent"), custom={})
    slot = SlotWish.model_validate({
        "slot": "main", "model": SMALL, "context_size": 8192, "gpus": [1], "gpu_layers": [31], **more,
    })  # fmt: skip
    memory = job_memory(catalogue, tmp_path / "models", tmp_path, HostEngine("engine-1", "T4, RTX 4090"))
    start = read_start(START)
    assert start is not None
    starts: dict[str, EngineStart] = {"roost-model-main": start, "roost-model-gone": start}
    jobs.keep_starts(SimpleNamespace(slots=[slot], node=""), catalogue, memory, starts)
    found = MeasuredStore(tmp_path).find(catalogue.get(SMALL).file.sha256, slot.settings, LayerSplit((1,), (31,)))
    assert [estimate.origin for estimate in found] == (["measured"] if kept else [])
    if kept:
        assert [device.device for device in found[0].devices] == ["CPU", "GPU1"]
        assert found[0].on("GPU1").kv == 180 << 20
        assert found[0].on("GPU1").other > 0


HUBBED = "qwen3-8b"  # the catalogue leaves its size and hash to the lock file


class EndedError(Exception):
    """The module has said its result."""


class FakeModule(SimpleNamespace):
    """What `present` uses of an Ansible module."""

    result: dict[str, Any]

    def exit_json(self, **result: object) -> NoReturn:
        """Keep the result."""
        self.result = result
        raise EndedError

    def warn(self, line: str) -> NoReturn:
        """Fail: nothing here warns."""
        raise AssertionError(line)


class FakeNomad:
    """Has jobs of some names, or answers nothing."""

    def __init__(self, names: Sequence[str] | None) -> None:
        """None: nothing answers."""
        self.names = names

    def list_jobs(self) -> list[dict[str, Any]]:
        """Return the jobs, as the API does."""
        if self.names is None:
            raise NomadUnreachableError("Nothing answers.")
        return [{"ID": name} for name in self.names]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeModule:
    """Return a check of two slots, the model of one of which is not locked."""
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "site.json"))
    for name in ("engine-key", "api-key"):
        (tmp_path / name).write_text("key")
    who = {"name": "roost", "group": "roost", "uid": 1, "gid": 1}
    wish = {
        "runtime": "docker", "engine": "llama.cpp", "datacenter": "d", "bind": "127.0.0.1", "api_port": 1,
        "agent_memory_mib": 256, "agent_log_level": "info", "agent_cost_mode": "smart",
        "models_dir": str(tmp_path / "models"),
        "slots": [
            {"slot": "main", "model": HUBBED, "context_size": 8192},
            {"slot": "router", "model": SMALL, "context_size": 8192},
        ],
        "agent_identity": who, "engine_identity": who,
    }  # fmt: skip
    params = {
        "may_go_back": True,
        "wish": wish, "release_dir": str(REPOSITORY), "custom": {}, "python": "", "state_dir": "", "timeout": 1,
        "artifacts": {"images": {"agent": "a:1", "llama_server": "l:1"}}, "secrets_dir": str(tmp_path),
        "tls_dir": str(tmp_path), "listen_cert": "", "listen_key": "", "token": "", "engine_key": "", "api_key": "",
        "search_engines": "",
    }  # fmt: skip
    return FakeModule(params=params, check_mode=True)


@pytest.mark.parametrize(
    ("there", "what"),
    [
        (["roost-model-router", "roost-agent"], "new job"),
        (["roost-model-main", "roost-model-old"], "changed"),
    ],
    ids=["new", "there"],
)  # fmt: skip
def test_a_check_says_which_job_follows_the_fetch(
    jobs: ModuleType, module: FakeModule, monkeypatch: pytest.MonkeyPatch, there: Sequence[str], what: str
) -> None:
    applied: list[str] = []

    def apply_one(_module: object, _client: object, job: SimpleNamespace, *_more: object, **_flags: bool) -> JobChange:
        applied.append(job.name)
        return JobChange(job.name, False, [])

    monkeypatch.setattr(jobs, "apply_one", apply_one)
    monkeypatch.setattr(jobs, "store_variables", lambda *_more, **_flags: [])
    monkeypatch.setattr(job_variables, "narrow_variable", lambda *_more, **_flags: False)
    with pytest.raises(EndedError):
        jobs.present(module, FakeNomad(there))
    assert applied == ["roost-model-router", "roost-agent"]
    stale = ["roost-model-old"] if "roost-model-old" in there else []
    assert (module.result["changed"], module.result["applied"]) == (True, ["roost-model-main", *stale])
    line = module.result["diff"]["after"].splitlines()[0]
    assert line == f"roost-model-main: {what}, once qwen3-8b:Q4_K_M is locked and fetched"
    module.check_mode = False
    with pytest.raises(RoostError, match="Size and hash of qwen3-8b:Q4_K_M are not known yet"):
        jobs.present(module, FakeNomad(there))


def test_engines_of_the_search_come_apart_from_what_a_log_shows(jobs: ModuleType, module: FakeModule) -> None:
    engine = {"name": "brave", "engine": "braveapi", "api_key": "an-engines-key"}
    identity = {"name": "s", "group": "s", "uid": 1, "gid": 1}
    search = {"port": 8888, "memory_mib": 512, "command": [], "identity": identity}
    wish = {**module.params["wish"], "search": search}
    found = SiteWish.model_validate(jobs.with_engines(wish, json.dumps([engine, "wikipedia"])))
    assert found.search is not None
    assert found.search.engines == (engine, "wikipedia")
    assert jobs.with_engines(wish, "") == wish
    assert jobs.with_engines(module.params["wish"], json.dumps([engine])) == module.params["wish"]


def test_a_check_before_there_is_a_nomad_names_every_job(jobs: ModuleType, module: FakeModule) -> None:
    with pytest.raises(EndedError):
        jobs.present(module, FakeNomad(None))
    assert module.result["changed"]
    assert module.result["applied"] == ["roost-model-main", "roost-model-router", "roost-agent"]
    assert json.dumps(module.result["diff"]).count("locked and fetched") == 1


@pytest.mark.parametrize(
    ("volumes", "folder"),
    [
        (["roost-gateway-tls", "roost-gateway-tls"], "/srv/gateway-tls"),
        (["roost-gateway-tls", "roost-models"], ""),
    ],
    ids=["all have it", "one is of the release before"],
)
def test_gateways_share_a_certificate_until_each_machine_has_a_place_for_its_own(
    jobs: ModuleType, module: FakeModule, volumes: Sequence[str], folder: str
) -> None:
    class Fleet:
        def get(self, path: str) -> object:
            if path == "nodes":
                return [{"ID": str(number)} for number, _ in enumerate(volumes)]
            return {"Status": "ready", "HostVolumes": {volumes[int(path.removeprefix("node/"))]: {}}}

    several = {**module.params["wish"], "gateway_replicas": 1, "gateway_tls_dir": "/srv/gateway-tls"}
    wish = jobs.SiteWish.model_validate(several)
    assert jobs.placeable(Fleet(), wish).gateway_tls_dir == folder
    one = wish.model_copy(update={"gateway_replicas": 0})
    assert jobs.placeable(FakeNomad(None), one) == one, "nobody is asked where there is one gateway"
    other = wish.model_copy(update={"with_agent": False})
    assert jobs.placeable(FakeNomad(None), other) == other, "nor on the other machines, which run none of its jobs"


@pytest.mark.parametrize("in_turn", [True, False], ids=["a machine's turn", "all are through"])
def test_gateways_change_when_every_machine_has_what_they_run_from(
    jobs: ModuleType, module: FakeModule, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, in_turn: bool
) -> None:
    """In the turn of the first machine the others have neither the agent's new image nor its new program."""
    done: dict[str, bool] = {}
    kept: list[str] = []

    def apply_one(_m: object, _c: object, job: SimpleNamespace, _release: object, *, dry_run: bool) -> JobChange:
        done[job.name] = not dry_run
        return JobChange(job.name, True, ["image"])

    def narrowed(_c: object, _secrets: object, names: Sequence[str], **_flags: bool) -> tuple[list[str], bool]:
        kept.extend(names)
        return [], False

    for name in ("ca.pem", "api.pem", "api-key.pem"):
        (tmp_path / name).write_text("pem")
    slots = [slot for slot in module.params["wish"]["slots"] if slot["model"] == SMALL]
    module.params["wish"] |= {"slots": slots, "gateway_replicas": 2, "listen": "192.0.2.1:8443"}
    module.params["may_go_back"] = in_turn
    module.check_mode = False
    monkeypatch.setattr(jobs, "apply_one", apply_one)
    monkeypatch.setattr(jobs, "narrowed", narrowed)
    monkeypatch.setattr(jobs, "proven", lambda *_: {})
    for name in ("store_variables", "own_secrets", "brought_home"):
        monkeypatch.setattr(jobs, name, lambda *_more, **_flags: [])
    with pytest.raises(EndedError):
        jobs.present(module, FakeNomad([GATEWAY_JOB]))
    assert done == {"roost-model-router": True, "roost-agent": True, GATEWAY_JOB: not in_turn}
    assert module.result["postponed"] is in_turn
    assert (GATEWAY_JOB in module.result["applied"]) is not in_turn
    assert (GATEWAY_JOB in kept) is in_turn, "the gateways that go on read what they read before"


@pytest.mark.parametrize(
    ("kept", "goes"),
    [(["roost-agent"], False), ([], True), (["roost-model-main"], True)],
    ids=["its models do not answer yet", "nothing goes back", "it is at work since before"],
)
def test_what_the_job_before_read_stays_while_the_machine_may_go_back_to_it(
    monkeypatch: pytest.MonkeyPatch, kept: Sequence[str], goes: bool
) -> None:
    nomad: Any = None
    removed: list[str] = []

    def narrow(_client: object, path: str, _items: object, *, dry_run: bool) -> bool:
        if not dry_run:
            removed.append(path)
        return True

    monkeypatch.setattr(job_variables, "narrow_variable", narrow)
    secrets = {"nomad/jobs/roost-agent": {"engine_key": "k"}}
    gone = list(secrets) if goes else []
    assert job_variables.narrowed(nomad, secrets, kept, dry_run=False) == (gone, not goes)
    assert removed == gone
