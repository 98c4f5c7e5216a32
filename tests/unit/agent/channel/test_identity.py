"""Whose hub it is: an identity that no other hub, key or process can say, and what a user gave is for it only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter, Request

from roost.agent.channel.wire import HUB_PATH
from roost.agent.identity import FILE, HubIdentity
from roost.agent.tools.hubs import KnownHubs, folder_name, is_local, moved
from roost.agent.tools.workspaces import Together, Workspaces
from roost.cli import principal
from roost.gateway.errors import ApiError
from roost.ops.errors import OTHER_HUB, RoostError
from tests.support.agent_hub import client_of, served
from tests.support.routes import RoutesServer, owner_of


def test_a_hub_keeps_its_identity_and_says_each_key_another(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    hub, other = HubIdentity(tmp_path / "a"), HubIdentity(tmp_path / "b")
    mine = hub.of("admin")
    assert len(mine) == 32
    assert HubIdentity(tmp_path / "a").of("admin") == mine
    assert len({mine, hub.of("anna"), other.of("admin"), other.of("anna")}) == 4
    assert (tmp_path / "a" / FILE).stat().st_mode & 0o077 == 0
    assert [one.name for one in (tmp_path / "a").iterdir()] == [FILE]  # nothing of how it was made is left


@pytest.mark.parametrize("damage", ["", "00", "z" * 64])
def test_a_damaged_identity_is_told_and_not_replaced(tmp_path: Path, damage: str) -> None:
    (tmp_path / FILE).write_text(damage)
    with pytest.raises(ValueError, match="secret"):
        HubIdentity(tmp_path).of("anna")
    assert (tmp_path / FILE).read_text() == damage


async def test_who_has_no_key_is_told_nothing(tmp_path: Path) -> None:
    async with served(tmp_path) as hub:
        said = {}
        for who, status in {"": 401, "rita": 403, "anna": 200, "bert": 200}.items():
            async with client_of(who) as client, client.get(f"{hub.url}/roost/v1/hub") as answer:
                assert answer.status == status
                said[who] = (await answer.json()).get("id")
        assert len(said["anna"]) == 32
        assert said["anna"] != said["bert"]
        assert not said[""]


class Hubs:
    """Hubs that each know a key `anna`; the user's commands ask the one that is chosen."""

    def __init__(self, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base, self._patch = base, monkeypatch
        self.running: dict[str, RoutesServer] = {}
        self.is_hub: dict[str, bool] = {}

    def start(self, name: str, *, hub: bool = True, says: str = "") -> None:
        """Start one; what it has for `hub` may change, and what it `says` that it is."""
        folder = self.base / name
        folder.mkdir(exist_ok=True)
        router = APIRouter()
        self.is_hub[name] = hub

        @router.get(HUB_PATH)
        async def which(request: Request) -> dict[str, str]:
            if not self.is_hub[name]:
                raise ApiError(404, "There is nothing here.")
            return {"id": says or HubIdentity(folder).of(owner_of(request))}

        @router.get("/v1/key")
        async def who(request: Request) -> dict[str, str]:
            return {"name": owner_of(request), "role": "user"}

        self.running[name] = RoutesServer(router, lambda: None).__enter__()

    def use(self, name: str) -> None:
        self._patch.setenv("ROOST_API", self.running[name].url)

    def stop(self) -> None:
        for server in self.running.values():
            server.__exit__(None, None, None)


@pytest.fixture
def hubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hubs]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ROOST_API_KEY", "anna")
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in ("site", "old"):
        (tmp_path / name).mkdir()
    made = Hubs(tmp_path, monkeypatch)
    yield made
    made.stop()


def names(whose: principal.Principal) -> list[str]:
    return [one.name for one in whose.workspaces.of(whose.owner)]


def test_another_hub_with_a_key_of_the_same_name_gets_nothing(hubs: Hubs, tmp_path: Path) -> None:
    hubs.start("mine")
    hubs.start("other")
    hubs.start("gateway", hub=False)
    hubs.use("mine")
    mine = principal.identify()
    mine.workspaces.add(tmp_path / "site", "anna")
    for name in ("other", "gateway"):
        hubs.use(name)
        found = principal.identify()
        assert (found.owner, names(found)) == ("anna", [])
        assert found.called != mine.called
        found.workspaces.add(tmp_path / "site", "anna")  # the same folder may be given to both
    hubs.use("mine")
    assert names(principal.identify()) == ["site"]


def test_another_hub_at_the_same_address_is_refused_until_it_is_trusted(hubs: Hubs, tmp_path: Path) -> None:
    hubs.start("mine")
    hubs.use("mine")
    before = principal.identify()
    before.workspaces.add(tmp_path / "site", "anna")
    kept = principal.state_folder() / before.called / "undo"
    kept.mkdir(parents=True)
    (tmp_path / "mine" / FILE).unlink()  # set up anew: the state is lost
    with pytest.raises(RoostError, match="not the hub") as refused:
        principal.identify()
    assert refused.value.exit_code == OTHER_HUB
    assert "workspace trust" in refused.value.fix
    now, got = principal.trust()
    assert (got, names(now)) == (["site"], ["site"])
    assert not kept.exists()
    assert (principal.state_folder() / now.called / "undo").is_dir()
    assert names(principal.identify()) == ["site"]
    assert principal.trust()[1] == []


def test_what_was_named_where_there_is_no_hub_is_for_none_elsewhere_whatever_it_says(
    hubs: Hubs, tmp_path: Path
) -> None:
    hubs.start("gateway", hub=False)
    hubs.use("gateway")
    gateway = principal.identify()
    gateway.workspaces.add(tmp_path / "site", "anna")
    assert is_local(gateway.hub)
    assert principal.identify().hub == gateway.hub  # the same each time
    address = gateway.access.base_url
    guesses = [hashlib.sha256(address.encode()).hexdigest()[:32], gateway.hub.removeprefix("local-"), gateway.hub]
    for number, said in enumerate(guesses):
        hubs.start(f"other{number}", says=said)
        hubs.use(f"other{number}")
        if is_local(said):
            with pytest.raises(RoostError, match="no hub of this version"):
                principal.identify()
        else:
            assert names(principal.identify()) == []
    hubs.use("gateway")
    assert names(principal.identify()) == ["site"]


def test_a_hub_that_comes_to_an_address_gets_what_was_named_there_and_its_silence_changes_nothing(
    hubs: Hubs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hubs.start("mine", hub=False)
    hubs.use("mine")
    principal.workspaces().add(tmp_path / "old", "anna")
    before = principal.identify()
    assert names(before) == []  # what waits for a hub goes to no gateway
    before.workspaces.add(tmp_path / "site", "anna")
    (principal.technician_folder() / before.called).mkdir(parents=True)
    hubs.is_hub["mine"] = True
    now = principal.identify()
    assert names(now) == ["old", "site"]
    assert "old, site is for the key anna" in capsys.readouterr().err
    assert (principal.technician_folder() / now.called).is_dir()
    kept = principal.known_hubs_file().read_bytes()
    hubs.is_hub["mine"] = False
    with pytest.raises(RoostError, match="No hub answers") as refused:
        principal.identify()
    assert refused.value.exit_code != OTHER_HUB  # it may be an update: the service comes back by itself
    assert "trust" in refused.value.fix
    assert principal.known_hubs_file().read_bytes() == kept
    hubs.is_hub["mine"] = True
    assert principal.identify().hub == now.hub
    hubs.is_hub["mine"] = False
    trusted, got = principal.trust()
    assert (is_local(trusted.hub), got) == (True, ["old", "site"])
    assert principal.trust() == (trusted, [])


def test_what_was_named_before_hubs_were_told_apart_goes_to_the_first_and_says_so(
    hubs: Hubs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    principal.workspaces().add(tmp_path / "site", "anna")
    principal.workspaces().add(tmp_path / "site", "bert")
    for folder in (principal.state_folder() / "anna", principal.technician_folder() / "anna"):
        folder.mkdir(parents=True)
        (folder / "kept").write_text("x")
    hubs.start("first")
    hubs.start("second")
    hubs.use("first")
    first = principal.identify()
    assert names(first) == ["site"]
    assert "site is for the key anna" in capsys.readouterr().err
    for folder in (principal.state_folder(), principal.technician_folder()):
        assert [one.name for one in folder.iterdir()] == [first.called]
        assert (folder / first.called / "kept").exists()
    hubs.use("second")
    assert names(principal.identify()) == []
    assert not capsys.readouterr().err
    assert [one.owner for one in principal.workspaces().all() if not one.hub] == ["bert"]


def test_known_hubs_by_rule(tmp_path: Path) -> None:
    known = KnownHubs(tmp_path / "sub" / "hubs.json")
    known.pin("https://a", "anna", "1" * 32)
    known.pin("https://b", "anna", "1" * 32)  # the same hub by another name
    known.pin("https://a", "bert", "2" * 32)
    with pytest.raises(RoostError, match="anna"):
        known.pin("https://a", "anna", "3" * 32)
    assert known.seen("https://a", "anna") == "1" * 32
    (tmp_path / "sub" / "hubs.json").write_text("[")
    with pytest.raises(RoostError, match="cannot be read"):
        known.pin("https://a", "anna", "1" * 32)


def test_folders_are_moved_once_and_never_over_another(tmp_path: Path) -> None:
    old = tmp_path / folder_name("a/b", "")
    old.mkdir()
    new = moved(tmp_path, "a/b", "", "f" * 32)
    assert (new.name, new.is_dir(), old.exists()) == (f"a%2Fb@{'f' * 16}", True, False)
    old.mkdir()
    assert moved(tmp_path, "a/b", "", "f" * 32) == new
    assert old.is_dir()


def test_of_two_lists_the_first_counts(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    first, second = Workspaces(tmp_path / "a.json"), Workspaces(tmp_path / "b.json")
    first.add(tmp_path / "one", "anna", "site")
    second.add(tmp_path / "two", "anna", "site")
    second.add(tmp_path / "three", "anna")
    found = Together(first, second).of("anna")
    assert [(one.name, one.path.name) for one in found] == [("site", "one"), ("three", "three")]
