"""The modules that look at a machine and place models, run by Ansible."""

from __future__ import annotations

import hashlib
import json
import socket
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from roost.fleet.job_programs import Programs
from roost.fleet.jobs import ModelServerJob
from roost.fleet.site_jobs import site_jobs
from roost.fleet.site_wish import SiteWish
from roost.hosts.bandwidth import Bandwidth
from roost.models.catalogue import load_catalogue
from roost.models.estimate.shape import header_of_shape
from roost.models.gguf_header import Header
from roost.ops.variables import load_variables
from tests.support.ansible_module import REPOSITORY, run_ansible, run_module
from tests.support.gguf_files import write_sparse

CONTENT = b"weights"


def test_facts_change_nothing(tmp_path: Path) -> None:
    found = run_module("roost_facts", {"paths": [str(tmp_path / "later")]})
    assert (found["failed"], found["changed"]) == (False, False)
    host = found["roost_host"]
    assert host["disks"][0]["path"] == str(tmp_path / "later")
    assert host["memory_total_mib"] > 0
    assert "127.0.0.1/8" in host["addresses"]["lo"]
    assert found["roost_tier"]["name"] in {"embedded", "potato", "sweet", "power", "beast"}
    assert found["roost_tier"]["reason"]
    assert not list(tmp_path.iterdir())


def test_a_node_says_what_it_is(tmp_path: Path) -> None:
    """Published once; Ansible's own module reads it; nothing to do the second time."""
    kept, script = tmp_path / "state/bandwidth.json", tmp_path / "facts.d/roost.fact"
    found = run_module("roost_facts", {"bandwidth_file": str(kept)})
    assert found["roost_bandwidth"]["bandwidth"]["gbs"] > 0
    assert not kept.exists()
    arguments = {
        "collector": str(tmp_path / "collect.pyz"), "script": str(script), "bandwidth_file": str(kept),
        "bandwidth": found["roost_bandwidth"], "paths": [str(tmp_path)], "manifest": str(tmp_path / "manifest"),
    }  # fmt: skip
    assert run_module("roost_collector", arguments)["changed"]
    assert not run_module("roost_collector", arguments)["changed"]
    again = run_module("roost_facts", {"bandwidth_file": str(kept)}, check=True)
    assert again["roost_bandwidth"] == found["roost_bandwidth"]
    subset = ["!all", "!min", "local"]
    facts = run_module("ansible.modules.setup", {"fact_path": str(script.parent), "gather_subset": subset})
    local = facts["ansible_facts"]["ansible_local"]["roost"]
    assert local["bandwidth"] == found["roost_bandwidth"]["bandwidth"]
    assert local["node_meta"] == again["roost_node_meta"]
    assert local["facts"]["disks"][0]["path"] == str(tmp_path)


def preflight_variables(folder: Path, **changed: object) -> dict[str, object]:
    """Return the variables that preflight reads, for a machine whose folders are below one."""
    known = load_variables(REPOSITORY, folder / "nothing.yaml")
    role = yaml.safe_load((REPOSITORY / "ansible/roles/preflight/vars/main.yml").read_text())
    places = {f"roost_{name}_dir": str(folder / name) for name in ("state", "cache")}
    return {**{name: known[name] for name in role["preflight_variables"]}, **places, **changed}


def test_preflight_names_everything_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        variables = preflight_variables(
            tmp_path, preflight_min_memory_mib=1 << 30, preflight_min_disk_mib=1 << 40, api_port=port,
            api_listen_address="192.0.2.254", roost_runtime="local", roost_offline_dir="/nowhere",
        )  # fmt: skip
        arguments = {"variables": variables, "site_file": str(tmp_path / "site.json")}
        found = run_module("roost_preflight", arguments, check=True)
    assert not found["failed"]
    assert not found["changed"]
    ids = {finding["id"] for finding in found["findings"]}
    assert {"memory", f"disk:{tmp_path}/state", f"port:{port}", "listen"} <= ids
    assert all(finding["fix"] and finding["why"] for finding in found["findings"])
    said = next(finding["what"] for finding in found["findings"] if finding["id"] == f"port:{port}")
    assert f"Port {port} on 127.0.0.1 is taken by " in said
    assert not list(tmp_path.iterdir())


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, object]:
    """Return the arguments of roost_model for a tiny model in a folder."""
    (tmp_path / "origin").mkdir()
    (tmp_path / "origin" / "tiny.gguf").write_bytes(CONTENT)
    model = {
        "title": "Tiny", "licence": "CC0-1.0", "architecture": "llama", "parameters": {"total": 1, "active": 1},
        "context_length": 128, "roles": {"main": 10}, "tier": "potato",
        "quantisations": {
            "Q8_0": {
                "file": {"name": "tiny.gguf", "bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()},
                "sources": [{"kind": "path", "path": str(tmp_path / "origin")}],
            }
        },
    }  # fmt: skip
    catalogue = tmp_path / "models.yaml"
    catalogue.write_text(json.dumps({"models": {"tiny": model}}))
    return {
        "names": ["tiny"],
        "catalogue": str(catalogue),
        "models_dir": str(tmp_path / "models"),
        "cache_dir": str(tmp_path / "cache"),
    }


def test_check_mode_says_what_the_run_then_does(arguments: dict[str, object], tmp_path: Path) -> None:
    would = run_module("roost_model", arguments, check=True)
    assert would["changed"]
    assert not (tmp_path / "models").exists()
    done = run_ansible("roost_model", arguments)
    assert done["changed"]
    assert done["models"][0]["path"] == would["models"][0]["path"]
    (model,) = done["models"]
    assert (model["name"], model["source"]) == ("tiny:Q8_0", str(tmp_path / "origin"))
    assert Path(model["path"]).read_bytes() == CONTENT
    for check in (False, True):
        assert not run_module("roost_model", arguments, check=check)["changed"]


def test_a_check_says_that_a_hub_model_would_be_locked_and_fetched(
    arguments: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROOST_SITE", str(tmp_path / "site.json"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing answers there, and a check asks nobody
    catalogue = Path(str(arguments["catalogue"]))
    listed = json.loads(catalogue.read_text())
    source = {"kind": "hub", "repository": "o/r", "file": "hubbed.gguf", "revision": "main"}
    one = {"file": {"name": "hubbed.gguf"}, "sources": [source]}
    listed["models"]["hubbed"] = listed["models"]["tiny"] | {"quantisations": {"Q4_K_M": one}}
    catalogue.write_text(json.dumps(listed))
    both = {**arguments, "names": ["tiny", "hubbed"]}
    would = run_module("roost_model", both, check=True)
    assert (would["failed"], would["changed"]) == (False, True), would
    assert {m["name"]: bool(m["path"]) for m in would["models"]} == {"tiny:Q8_0": True, "hubbed:Q4_K_M": False}
    assert "hubbed:Q4_K_M: would be locked and fetched\n" in would["diff"]["after"]
    assert not (tmp_path / "models").exists()
    assert not list(tmp_path.glob("models.lock*"))
    done = run_module("roost_model", both)
    assert done["failed"]
    assert "The file of hubbed:Q4_K_M is not known" in done["msg"]


def test_a_plan_leaves_other_programs_their_memory(tmp_path: Path) -> None:
    facts = run_module("roost_facts", {"paths": [str(tmp_path)]})
    arguments = {
        "slots": [{"slot": "main", "model": "smollm2-135m-instruct"}], "facts": facts["roost_host"],
        "catalogue": str(REPOSITORY / "group_vars/models.yaml"), "models_dir": str(tmp_path),
        "cache_dir": str(tmp_path), "file": str(tmp_path / "plan.json"),
    }  # fmt: skip
    arguments["facts"] |= {"memory_total_mib": 16384, "gpus": []}
    assert not run_module("roost_plan", {**arguments, "reserved_memory_mib": 8192})["failed"]
    failed = run_module("roost_plan", {**arguments, "reserved_memory_mib": 14300})
    assert failed["failed"]
    assert "Not every slot can be placed" in failed["msg"]


def test_an_unknown_model_is_a_sentence_with_a_fix(arguments: dict[str, object]) -> None:
    failed = run_module("roost_model", {**arguments, "names": ["gpt"]})
    assert failed["failed"]
    assert failed["msg"].startswith("The catalogue has no model 'gpt'. Fix: Use one of: tiny")


def test_a_plan_is_made_kept_and_made_again(tmp_path: Path) -> None:
    """The default slots on any machine without a hub: the embedded model; a second run decides the same."""
    facts = run_module("roost_facts", {"paths": [str(tmp_path)]})
    arguments = {
        "slots": [{"slot": "main", "parallel": 2, "cache_ram_mib": 256, "temperature": None}],
        "facts": facts["roost_host"], "catalogue": str(REPOSITORY / "group_vars/models.yaml"), "models_custom": {},
        "models_dir": str(tmp_path / "models"), "cache_dir": str(tmp_path / "cache"), "from_hub": "no",
        "file": str(tmp_path / "plan.json"),
    }  # fmt: skip
    found = run_module("roost_plan", arguments)
    assert (found["failed"], found["changed"]) == (False, False), found
    (slot,) = found["slots"]
    assert (slot["model"], slot["context_size"], slot["parallel"]) == ("smollm2-135m-instruct", 8192, 2)
    assert not list(tmp_path.iterdir())
    (tmp_path / "plan.json").write_text(json.dumps(found["plan"]))
    again = run_module("roost_plan", arguments, check=True)
    assert (again["slots"], again["plan"]) == (found["slots"], found["plan"])
    assert again["explanation"][0].startswith("main: ")
    assert "stays" in again["explanation"][0]
    assert again["better"] == found["better"]
    large = {**arguments, "facts": facts["roost_host"] | {"memory_total_mib": 32000}, "from_hub": "auto"}
    large["bandwidth"] = {"bandwidth": asdict(Bandwidth(60.0, 8, 64, 0.6, "copies"))}
    assert run_module("roost_plan", large)["better"].startswith("This machine could serve ")


def test_a_file_named_by_a_slot_is_planned_and_fetched(tmp_path: Path) -> None:
    facts = run_module("roost_facts", {"paths": [str(tmp_path)]})
    catalogue = REPOSITORY / "group_vars/models.yaml"
    listed = load_catalogue(catalogue, custom={}).listed("smollm2-135m-instruct")
    file = tmp_path / "mine.gguf"
    write_sparse(header_of_shape(listed.architecture, listed.shape, "Q4_1"), file)
    folders = {"models_dir": str(tmp_path / "models"), "cache_dir": str(tmp_path / "cache")}
    slots = [{"slot": "main", "path": str(file), "context_size": 4096}]
    found = run_module(
        "roost_plan",
        {"slots": slots, "facts": facts["roost_host"], "catalogue": str(catalogue), "models_custom": {}, **folders,
         "from_hub": "no", "file": str(tmp_path / "plan.json")},
    )  # fmt: skip
    assert not found["failed"], found
    assert [slot["model"] for slot in found["slots"]] == ["file-mine"]
    done = run_module(
        "roost_model",
        {"names": ["file-mine"], "catalogue": str(catalogue), "custom": found["models_custom"], **folders},
    )
    fetched = Path(done["models"][0]["path"])
    assert fetched.read_bytes() == file.read_bytes()
    assert fetched.stat().st_mode & 0o777 == 0o444  # the engine's user reads it, whoever owns the original
    wish = {"runtime": "local", "engine": "llama.cpp", "datacenter": "d", "bind": "127.0.0.1", "api_port": 1}
    wish |= {
        "agent_memory_mib": 256,
        "agent_log_level": "info",
        "agent_cost_mode": "smart",
        "models_dir": folders["models_dir"],
    }
    who = {"name": "roost", "group": "roost", "uid": 1, "gid": 1}
    wish |= {"slots": found["slots"], "agent_identity": who, "engine_identity": who}
    known = load_catalogue(catalogue, custom=found["models_custom"])
    server, _agent = site_jobs(SiteWish.model_validate(wish), known, Programs())
    assert isinstance(server, ModelServerJob)
    assert str(fetched) in " ".join(server.args)
    file.write_bytes(b"no model")
    arguments = {"slots": slots, "facts": facts["roost_host"], "catalogue": str(catalogue), **folders}
    failed = run_module("roost_plan", {**arguments, "models_custom": {}, "file": str(tmp_path / "plan.json")})
    assert failed["failed"]
    assert str(file) in failed["msg"]


def test_a_file_that_lies_there_fills_an_empty_slot_and_is_fetched(tmp_path: Path) -> None:
    facts = run_module("roost_facts", {"paths": [str(tmp_path)]})
    catalogue = REPOSITORY / "group_vars/models.yaml"
    listed = load_catalogue(catalogue, custom={}).listed("smollm2-135m-instruct")
    header = header_of_shape(listed.architecture, listed.shape, "Q4_1")
    file = tmp_path / "mine" / "better-instruct.gguf"
    file.parent.mkdir()
    write_sparse(Header({**header.metadata, "general.name": "Better Instruct"}, header.tensors), file)
    (tmp_path / "mine/bad.gguf").write_text("no model")
    folders = {"models_dir": str(tmp_path / "models"), "cache_dir": str(tmp_path / "cache")}
    Path(folders["models_dir"]).mkdir()
    arguments = {
        "slots": [{"slot": "main"}, {"slot": "router"}], "facts": facts["roost_host"], "catalogue": str(catalogue),
        "models_custom": {}, **folders, "present_dirs": [str(file.parent)], "from_hub": "no",
        "file": str(tmp_path / "plan.json"),
    }  # fmt: skip
    found = run_module("roost_plan", arguments)
    assert not found["failed"], found
    chosen = {slot["slot"]: slot["model"] for slot in found["slots"]}
    assert chosen["main"] != chosen["router"]
    assert "file-better-instruct" in chosen.values()
    assert list(found["models_custom"]) == ["file-better-instruct"]
    assert any("bad.gguf: passed over, This is not a usable GGUF file" in line for line in found["explanation"])
    (tmp_path / "plan.json").write_text(json.dumps(found["plan"]))
    again = run_module("roost_plan", arguments, check=True)
    assert (again["slots"], again["models_custom"]) == (found["slots"], found["models_custom"])
    wanted = {"names": ["file-better-instruct"], "catalogue": str(catalogue), "custom": found["models_custom"]}
    done = run_module("roost_model", {**wanted, **folders})
    assert Path(done["models"][0]["path"]).read_bytes() == file.read_bytes()
    assert not run_module("roost_model", {**wanted, **folders})["changed"]


def test_a_plan_that_cannot_be_made_fails_with_the_way_out(tmp_path: Path) -> None:
    facts = run_module("roost_facts", {"paths": [str(tmp_path)]})
    arguments = {
        "slots": [{"slot": "main", "model": "gpt-oss-120b", "context_size": 131072, "parallel": 8}],
        "facts": facts["roost_host"] | {"memory_total_mib": 16000, "gpus": []},
        "catalogue": str(REPOSITORY / "group_vars/models.yaml"), "models_custom": {},
        "models_dir": str(tmp_path), "cache_dir": str(tmp_path), "file": str(tmp_path / "plan.json"),
    }  # fmt: skip
    failed = run_module("roost_plan", arguments)
    assert failed["failed"]
    assert "main (gpt-oss-120b): " in failed["msg"]
    assert "more memory" in failed["msg"]
    wrong = run_module("roost_plan", {**arguments, "facts": {"hostname": "h"}})
    assert "not those of a machine" in wrong["msg"]
    assert "pydantic" not in wrong["msg"]


def test_texts_are_written_in_one_go_and_differences_are_told(tmp_path: Path) -> None:
    there, loose, new = tmp_path / "there", tmp_path / "loose", tmp_path / "new"
    there.write_text("old\n")
    loose.write_text("same\n")
    there.chmod(0o644)
    loose.chmod(0o666)
    files = [{"path": str(there), "text": "now\n"}, {"path": str(loose), "text": "same\n"}]
    files += [{"path": str(new), "text": "first\n", "mode": "0600"}]
    would = run_module("roost_texts", {"files": files}, check=True)
    assert would["changed"]
    assert (there.read_text(), new.exists()) == ("old\n", False)
    done = run_module("roost_texts", {"files": files})
    assert done["written"] == would["written"] == [str(there), str(loose), str(new)]
    assert [(d["before"], d["after"]) for d in done["diff"]][::2] == [("old\n", "now\n"), ("", "first\n")]
    assert "mode 0666" in done["diff"][1]["before"]
    assert [oct(p.stat().st_mode & 0o777) for p in (there, loose, new)] == ["0o644", "0o644", "0o600"]
    for check in (False, True):
        again = run_module("roost_texts", {"files": files}, check=check)
        assert (again["changed"], again["written"]) == (False, [])
    failed = run_module("roost_texts", {"files": [{"path": str(tmp_path / "none/x"), "text": ""}]})
    assert failed["failed"]
    assert "Traceback" not in failed["msg"]
