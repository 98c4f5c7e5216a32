"""What a machine had before its update comes back: files, links, jobs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roost.fleet.nomad_api import NomadClient
from roost.fleet.rolling import restore_point
from roost.ops.errors import RoostError

STATES = st.one_of(
    st.none(), st.tuples(st.just("file"), st.binary(max_size=8)), st.tuples(st.just("link"), st.sampled_from("xyz"))
)


def make(path: Path, state: tuple[str, Any] | None) -> None:
    path.unlink(missing_ok=True)
    if state is not None and state[0] == "file":
        path.write_bytes(state[1])
    elif state is not None:
        path.symlink_to(state[1])


def look(path: Path) -> tuple[str, Any] | None:
    if path.is_symlink():
        return "link", str(path.readlink())
    return ("file", path.read_bytes()) if path.exists() else None


@given(st.lists(st.tuples(STATES, STATES), max_size=4))
def test_files_and_links_come_back_whatever_became_of_them(
    tmp_path_factory: pytest.TempPathFactory, states: list[tuple[Any, Any]]
) -> None:
    home = tmp_path_factory.mktemp("restore")
    paths = [home / f"file{number}" for number in range(len(states))]
    for path, (before, _) in zip(paths, states, strict=True):
        make(path, before)
    restore_point.keep(home / "update", paths, [])
    for path, (_, after) in zip(paths, states, strict=True):
        make(path, after)
    changed = restore_point.put_back_files(home / "update")
    assert [look(path) for path in paths] == [before for before, _ in states]
    assert changed == [str(p) for p, (before, after) in zip(paths, states, strict=True) if before != after]
    assert restore_point.put_back_files(home / "update") == []


def test_what_is_to_stay_stays(tmp_path: Path) -> None:
    rules, config = tmp_path / "firewall.nft", tmp_path / "nomad.hcl"
    for file in (rules, config):
        file.write_text("before")
    restore_point.keep(tmp_path / "update", [rules, config], [])
    for file in (rules, config):
        file.write_text("of the update")
    assert restore_point.put_back_files(tmp_path / "update", [str(rules)]) == [str(config)]
    assert (rules.read_text(), config.read_text()) == ("of the update", "before")


def test_mode_and_content_come_back_and_the_copy_is_for_root_only(tmp_path: Path) -> None:
    file, folder = tmp_path / "nomad.hcl", tmp_path / "update"
    file.write_text("encrypt = 1")
    file.chmod(0o600)
    restore_point.keep(folder, [file], None)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / restore_point.FOLDER).stat().st_mode & 0o777 == 0o700
    file.unlink()
    file.write_text("other")
    assert restore_point.put_back_files(folder) == [str(file)]
    assert file.stat().st_mode & 0o777 == 0o600
    assert restore_point.exists(folder)
    restore_point.forget(folder)
    assert not restore_point.exists(folder)
    with pytest.raises(RoostError, match="cannot be put back"):
        restore_point.put_back_files(folder)


def test_what_was_kept_stays_until_the_next_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, folder = tmp_path / "a", tmp_path / "update"
    file.write_text("first")
    restore_point.keep(folder, [file], [])

    def full(*_words: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("shutil.copyfile", full)
    file.write_text("second")
    with pytest.raises(RoostError, match="No space left"):
        restore_point.keep(folder, [file], [])
    assert restore_point.put_back_files(folder) == [str(file)]
    assert file.read_text() == "first"
    assert sorted(path.name for path in folder.iterdir()) == [restore_point.FOLDER]


class FakeNomad:
    """Jobs that can be planned, run and stopped; every run is healthy at once."""

    def __init__(self, jobs: dict[str, dict[str, Any]]) -> None:
        self.jobs = jobs
        self.ran: list[str] = []

    def list_jobs(self) -> list[dict[str, Any]]:
        return list(self.jobs.values())

    def job(self, name: str) -> dict[str, Any] | None:
        return self.jobs.get(name)

    def allocations(self, _name: str) -> list[dict[str, Any]]:
        return []

    def get(self, path: str) -> list[dict[str, Any]]:
        assert path == "nodes" or path.endswith("/deployments")
        return []

    def wait_for(self, path: str, _index: int, _wait_s: float) -> tuple[list[dict[str, Any]], int]:
        name = path.split("/")[1]
        if path.endswith("/allocations"):
            return [], 1
        version = self.jobs[name]["Version"]
        return [{"JobVersion": version, "CreateIndex": 1, "Status": "successful", "ID": "d"}], 1

    def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        job = body["Job"]
        if path.endswith("/plan"):
            same = self.jobs.get(job["ID"], {}).get("Image") == job["Image"]
            return {"Diff": {"Type": "None" if same else "Edited"}}
        assert path == "jobs"
        self.jobs[job["ID"]] = {**job, "Version": job["Version"] + 2}
        self.ran.append(job["ID"])
        return {}

    def request(self, method: str, path: str, *, params: dict[str, str]) -> None:
        assert method == "DELETE"
        name = path.split("/")[1]
        self.jobs[name]["Stop"] = True
        if params["purge"] == "true":
            del self.jobs[name]


def job(name: str, node: str = "", image: str = "old") -> dict[str, Any]:
    return {
        "ID": name, "Meta": {"roost_node": node} if node else None, "Version": 1, "Image": image, "Status": "running",
        "TaskGroups": [{"Name": "engine", "Count": 1}],
    }  # fmt: skip


def test_a_machines_own_jobs_come_back_and_no_others(tmp_path: Path) -> None:
    jobs = [job("roost-model-main-two", "two"), job("roost-model-main-one", "one"), job("roost-agent"), job("theirs")]
    nomad = FakeNomad({j["ID"]: j for j in jobs})
    client = cast("NomadClient", nomad)
    mine = restore_point.machine_jobs(client, "two", first=False)
    assert [j["ID"] for j in mine] == ["roost-model-main-two"]
    restore_point.keep(tmp_path, [], mine)
    for name in nomad.jobs:
        nomad.jobs[name] = {**nomad.jobs[name], "Image": "new", "Version": 2}
    nomad.jobs["roost-model-router-two"] = job("roost-model-router-two", "two", "new")
    back = restore_point.put_back_jobs(client, tmp_path, "two", first=False, timeout_s=5)
    assert back == ["roost-model-router-two", "roost-model-main-two"]
    assert nomad.jobs["roost-model-main-two"]["Image"] == "old"
    assert nomad.jobs["roost-agent"]["Image"] == "new"
    assert "roost-model-router-two" not in nomad.jobs
    assert restore_point.put_back_jobs(client, tmp_path, "two", first=False, timeout_s=5) == []


def test_the_first_machine_brings_back_the_fleets_jobs_too() -> None:
    nomad = FakeNomad({j["ID"]: j for j in (job("roost-model-main-one", "one"), job("roost-agent"), job("theirs"))})
    mine = restore_point.machine_jobs(cast("NomadClient", nomad), "one", first=True)
    assert [j["ID"] for j in mine] == ["roost-model-main-one", "roost-agent"]


def test_jobs_of_a_machine_that_was_alone_stay_on_it_when_others_have_joined(tmp_path: Path) -> None:
    """They name no machine: Nomad would give them to those that are not set up for them."""
    nomad = FakeNomad({})
    here = {"LTarget": "${node.unique.name}", "RTarget": "one", "Operand": "="}
    apart = {"LTarget": "", "RTarget": "", "Operand": "distinct_hosts"}
    kept = [job("roost-agent"), job("roost-model-main") | {"Constraints": [apart]}]
    restore_point.keep(tmp_path, [], kept)
    client = cast("NomadClient", nomad)
    restore_point.put_back_jobs(client, tmp_path, "one", first=True, timeout_s=5, alone=True)
    assert nomad.jobs["roost-agent"]["Constraints"] == [here]
    assert nomad.jobs["roost-model-main"]["Constraints"] == [apart, here]
    named = {"Constraints": [here | {"Operand": "!="}]}
    assert restore_point.pinned(named, "one") == named, "it could be placed nowhere"
    nomad.jobs.clear()
    restore_point.put_back_jobs(client, tmp_path, "one", first=True, timeout_s=5)
    assert "Constraints" not in nomad.jobs["roost-agent"]


def test_who_joined_since_is_known_from_nomad_or_else_from_the_inventory(tmp_path: Path) -> None:
    assert restore_point.joined(["one"], ["one", "two"], ["one", "two", "three"]) == ["two"]
    assert restore_point.joined(["one"], None, ["one", "two", "three"]) == ["three", "two"]
    assert restore_point.joined(["one", "two"], ["one"], ["one", "three"]) == []
    assert restore_point.joined(None, ["one", "two"], ["one"]) == [], "an earlier release kept none"
    restore_point.keep(tmp_path, [], [], ["one"])
    assert restore_point.machines(tmp_path) == ["one"]
    restore_point.keep(tmp_path, [], [])
    assert restore_point.machines(tmp_path) is None
    kept = tmp_path / restore_point.FOLDER / restore_point.MACHINES
    kept.write_text("{")
    with pytest.raises(RoostError, match="cannot be read"):
        restore_point.machines(tmp_path)
    kept.unlink()
    assert restore_point.machines(tmp_path) is None


@pytest.mark.parametrize("damage", ["{", None])
def test_jobs_that_were_kept_and_cannot_be_read_are_an_error(tmp_path: Path, damage: str | None) -> None:
    nomad = FakeNomad({"roost-agent": job("roost-agent")})
    restore_point.keep(tmp_path, [], [])
    kept = tmp_path / restore_point.FOLDER / restore_point.JOBS
    kept.unlink() if damage is None else kept.write_text(damage)
    with pytest.raises(RoostError, match="cannot be put back"):
        restore_point.put_back_jobs(cast("NomadClient", nomad), tmp_path, "one", first=True, timeout_s=5)
    assert "roost-agent" in nomad.jobs


def test_jobs_that_nobody_knew_are_left_alone(tmp_path: Path) -> None:
    nomad = FakeNomad({"roost-agent": job("roost-agent")})
    restore_point.keep(tmp_path, [], None)
    assert restore_point.put_back_jobs(cast("NomadClient", nomad), tmp_path, "one", first=True, timeout_s=5) == []
    assert "roost-agent" in nomad.jobs
