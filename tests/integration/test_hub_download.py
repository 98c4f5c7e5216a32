"""Models from a hub: whole or not at all, whatever the hub, its storage, the network or a kill does."""

from __future__ import annotations

import hashlib
import re
import ssl
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from roost.models import hub as hubs
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.fetch import PARALLEL_FILES, Places, ensure_models
from roost.models.hub import Hub, lock_download
from roost.models.lock_file import read_locks
from roost.models.schema import Download, Model
from roost.models.source_types import HubSource
from roost.ops import fetch, retry
from roost.ops.errors import RoostError
from roost.ops.fetch import BLOCK_BYTES, FRUITLESS_ATTEMPTS, Fetcher
from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.fetching import ensure_model
from tests.support.hub_server import COMMIT, FILE, REPOSITORY, TOKEN, HubState, hub
from tests.support.killed import kill_downloads, visible, write_catalogue
from tests.support.net import wait_until

CONTENT = hashlib.shake_256(b"one").digest(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SOURCE = HubSource(kind="hub", repository=REPOSITORY, file=FILE)
NEWER = bytes(reversed(CONTENT))
KILLS = 60


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubState]:
    """Run a hub that HF_ENDPOINT names; no token, no waits."""
    with hub(CONTENT) as state:
        monkeypatch.setenv("HF_ENDPOINT", state.hub_url)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(hubs, "get_token", lambda: None)
        monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
        yield state


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the seconds that fetchers and hubs would have waited; nobody waits."""
    slept: list[float] = []
    default = hubs.default_hub

    def sleepless(extra_ca: Path | None, notify: object) -> Hub:
        made = default(extra_ca)
        return Hub(made.endpoint, made.token, notify=print if notify is None else made.notify, sleep=slept.append)

    class Sleepless(Fetcher):
        def __init__(self, extra_ca: Path | None = None, token: str = "") -> None:
            super().__init__(extra_ca, token, sleep=slept.append)

    monkeypatch.setattr(hubs, "default_hub", sleepless)
    monkeypatch.setattr("roost.models.sources.Fetcher", Sleepless)
    return slept


def noted(server: HubState) -> None:
    """Wait until the server has noted what it sent: it does so after the last byte, which the client has by then."""
    wait_until(lambda: not server.active, 30, "the server to note what it sent")


def written(folder: Path, *, file: dict[str, object] | None = None) -> Path:
    """Write a catalogue with one model of the hub; return its path."""
    return write_catalogue(folder, file or {})


def catalogue(folder: Path) -> Catalogue:
    return load_catalogue(written(folder), folder / "models.lock.yaml")


def locked(folder: Path) -> Download:
    """Return the model, locked with what the hub has now."""
    return lock_download(
        "tiny:Q4_K_M", catalogue(folder).listed("tiny"), folder / "models.lock.yaml", hubs.default_hub()
    )


def known(folder: Path) -> Model:
    """Return the model as a catalogue with size and hash lists it."""
    return load_catalogue(written(folder, file={"bytes": len(CONTENT), "sha256": SHA256})).get("tiny")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "models", tmp_path / "cache")


def test_the_first_fetch_locks_what_the_hub_says(server: HubState, places: Places, tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="not known yet") as caught:
        catalogue(tmp_path).get("tiny")
    assert "roost models pull tiny" in caught.value.fix
    done = ensure_model("tiny", locked(tmp_path), places)
    assert done.path.read_bytes() == CONTENT
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o444
    entry = read_locks(tmp_path / "models.lock.yaml")["tiny:Q4_K_M"]
    assert (entry.commit, entry.bytes, entry.sha256) == (COMMIT, len(CONTENT), SHA256)
    model = catalogue(tmp_path).get("tiny")
    assert model.file.sha256 == SHA256
    server.asked.clear()
    assert not ensure_model("tiny", model, places).changed
    assert server.asked == []


def test_a_locked_model_stays_the_same_when_the_branch_moves(server: HubState, places: Places, tmp_path: Path) -> None:
    locked(tmp_path)
    server.old_commits[COMMIT] = CONTENT
    server.commit, server.content = "f" * 40, NEWER
    assert ensure_model("tiny", locked(tmp_path), places).path.read_bytes() == CONTENT


def test_other_content_under_the_locked_commit_is_refused(server: HubState, places: Places, tmp_path: Path) -> None:
    model = locked(tmp_path)
    server.content = NEWER
    with pytest.raises(RoostError, match="the hub has another file") as caught:
        ensure_model("tiny", model, places)
    assert "remove the model's entry from models.lock.yaml" in caught.value.message
    assert server.sent == []
    assert visible(places) == []


def test_a_locked_commit_that_is_gone_says_what_to_do(server: HubState, places: Places, tmp_path: Path) -> None:
    model = locked(tmp_path)
    server.commit = "f" * 40
    with pytest.raises(RoostError, match=r"has no revision 5c4e.*remove its entry from the lock file"):
        ensure_model("tiny", model, places)


def test_a_hub_without_hashes_cannot_be_locked(server: HubState, places: Places, tmp_path: Path) -> None:
    server.says_hash = False
    with pytest.raises(RoostError, match="gives no SHA-256") as caught:
        locked(tmp_path)
    assert "into the catalogue" in caught.value.fix
    assert not (tmp_path / "models.lock.yaml").exists()
    assert ensure_model("tiny", known(tmp_path), places).changed


def test_an_entry_for_another_file_of_the_hub_does_not_count(server: HubState, tmp_path: Path) -> None:
    locked(tmp_path)
    lock = tmp_path / "models.lock.yaml"
    lock.write_text(lock.read_text().replace("revision: main", "revision: v1"))
    assert catalogue(tmp_path).known_files() == {}
    assert server.asked == [f"HEAD /{REPOSITORY}/resolve/main/{FILE}"]


def test_redirects_within_the_hub_are_followed(server: HubState, places: Places, tmp_path: Path) -> None:
    server.relative_redirects = 2
    assert ensure_model("tiny", known(tmp_path), places).changed


def test_the_token_goes_to_the_hub_alone(
    server: HubState, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "get_token", lambda: TOKEN)
    server.gated = True
    server.relative_redirects = 1
    assert ensure_model("tiny", known(tmp_path), places).changed
    assert {token for host, token in server.tokens if host == "127.0.0.1"} == {f"Bearer {TOKEN}"}
    assert {token for host, token in server.tokens if host == "localhost"} == {""}


@pytest.mark.parametrize(("token", "said"), [(None, "no token was given"), ("other", "account of your token")])
def test_a_gated_model_says_what_to_do(
    server: HubState, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    monkeypatch.setattr(hubs, "get_token", lambda: token)
    server.gated = True
    with pytest.raises(RoostError, match="is gated") as caught:
        locked(tmp_path)
    assert said in caught.value.message
    assert f"Accept the licence on {server.hub_url}/{REPOSITORY}" in caught.value.fix
    assert "HF_TOKEN" in caught.value.fix


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"repository": "tiny/none"}, "has no repository tiny/none"),
        ({"revision": "v9"}, "has no revision v9"),
        ({"file": "none.gguf"}, "has no file none.gguf"),
    ],
)
def test_what_the_hub_does_not_have(server: HubState, change: dict[str, str], said: str) -> None:
    with pytest.raises(RoostError, match=said) as caught:
        hubs.ask(SOURCE.model_copy(update=change), hubs.default_hub())
    assert server.hub_url in caught.value.fix


@pytest.mark.parametrize("status", ["401", "403"])
def test_refusals_without_a_reason(server: HubState, status: str) -> None:
    server.hub_faults = [status]
    with pytest.raises(RoostError) as caught:
        hubs.ask(SOURCE, hubs.default_hub())
    assert "HF_TOKEN" in caught.value.fix


@pytest.mark.parametrize("faults", [["429"], ["500", "503"], ["502", "504", "429"], ["drop", "drop"]])
def test_the_hub_is_asked_again(server: HubState, waits: list[float], faults: list[str]) -> None:
    server.hub_faults = list(faults)
    assert hubs.ask(SOURCE, hubs.default_hub(None, print)).sha256 == SHA256
    assert len(waits) == len(faults)
    assert [wait >= 7 for wait in waits] == [fault == "429" for fault in faults]


def test_the_hub_is_not_asked_for_ever(server: HubState, waits: list[float]) -> None:
    server.hub_faults = ["503"] * 50
    with pytest.raises(RoostError, match="answered 503") as caught:
        hubs.ask(SOURCE, hubs.default_hub(None, print))
    assert len(waits) == retry.ATTEMPTS - 1
    assert caught.value.fix == "Try again later."


def test_a_hub_that_drops_every_connection(server: HubState, waits: list[float]) -> None:
    server.hub_faults = ["drop"] * 50
    with pytest.raises(RoostError, match="could not be reached"):
        hubs.ask(SOURCE, hubs.default_hub(None, print))
    assert len(waits) == FRUITLESS_ATTEMPTS - 1


def test_storage_that_stays_dead(server: HubState, places: Places, waits: list[float], tmp_path: Path) -> None:
    server.storage_faults = ["drop"] * 50
    with pytest.raises(RoostError, match="could not be reached"):
        ensure_model("tiny", known(tmp_path), places)
    assert len(waits) == FRUITLESS_ATTEMPTS - 1


def test_progress_says_rate_and_time_left(
    server: HubState, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "REPORT_EVERY_S", 0.02)
    server.seconds_per_piece = 0.01
    lines: list[str] = []
    ensure_model("tiny", known(tmp_path), replace(places, notify=lines.append))
    assert re.fullmatch(r"tiny: Downloaded 0 of 0 MiB, \d+\.\d MiB/s, \d+ s left", lines[0])


def test_a_hub_behind_a_ca_of_its_own(places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = tmp_path / "tls"
    tls.mkdir()
    ensure_pki(tls, [LeafSpec("node", ("127.0.0.1", "localhost"))])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls / "node.pem", tls / "node-key.pem")
    monkeypatch.setattr(hubs, "get_token", lambda: None)
    with hub(CONTENT, context) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.hub_url)
        with pytest.raises(RoostError, match="certificate verify failed"):
            ensure_model("tiny", known(tmp_path), places)
        trusting = replace(places, extra_ca_bundle=tls / "ca.pem")
        assert ensure_model("tiny", known(tmp_path), trusting).changed


def test_something_else_than_a_hub(server: HubState) -> None:
    server.commit = ""
    with pytest.raises(RoostError, match="does not answer as a model hub does") as caught:
        hubs.ask(SOURCE, hubs.default_hub())
    assert "HF_ENDPOINT" in caught.value.fix


def test_nobody_answers() -> None:
    with pytest.raises(RoostError, match="could not be reached"):
        hubs.ask(SOURCE, Hub("http://127.0.0.1:9", ""))


@pytest.mark.parametrize(
    "faults",
    [
        ["cut"],
        ["cut", "cut", "cut"],
        ["429"],
        ["503", "cut", "500"],
        ["stall"],
        ["stall", "429", "cut"],
        ["dead"],
        ["drop", "cut", "dead"],
    ],
)
def test_storage_that_fails_and_recovers(
    server: HubState,
    places: Places,
    waits: list[float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    faults: list[str],
) -> None:
    monkeypatch.setattr(fetch, "READ_TIMEOUT_S", 2.0)
    server.storage_faults = list(faults)
    assert ensure_model("tiny", known(tmp_path), places).path.read_bytes() == CONTENT
    assert len(waits) == sum(fault not in {"stall", "cut"} for fault in faults)  # it goes on at once after progress
    server.release.set()
    ends = {0} | {sent.start + sent.count for sent in server.sent}
    assert set(server.ranges()) <= ends  # no byte was asked for again


@pytest.mark.parametrize("status", ["401", "403"])
def test_storage_that_refuses(server: HubState, places: Places, tmp_path: Path, status: str) -> None:
    server.storage_faults = [status]
    with pytest.raises(RoostError, match=rf"refused .HTTP {status}.*HF_TOKEN"):
        ensure_model("tiny", known(tmp_path), places)
    assert visible(places) == []


def test_storage_that_never_recovers(server: HubState, places: Places, waits: list[float], tmp_path: Path) -> None:
    server.storage_faults = ["500"] * 50
    with pytest.raises(RoostError, match="answered 500"):
        ensure_model("tiny", known(tmp_path), places)
    assert len(waits) == retry.ATTEMPTS - 1


def test_wrong_bytes_are_never_visible(server: HubState, places: Places, tmp_path: Path) -> None:
    server.storage_faults = ["wrong"]
    with pytest.raises(RoostError, match="wrong checksum"):
        ensure_model("tiny", known(tmp_path), places)
    assert visible(places) == []
    assert not places.partial(known(tmp_path).file).exists()
    assert ensure_model("tiny", known(tmp_path), places).path.read_bytes() == CONTENT


def test_a_spoilt_beginning_is_fetched_again_at_once(server: HubState, places: Places, tmp_path: Path) -> None:
    model = known(tmp_path)
    places.partial(model.file).parent.mkdir(parents=True)
    places.partial(model.file).write_bytes(bytes(1000))
    assert ensure_model("tiny", model, places).path.read_bytes() == CONTENT
    noted(server)
    assert server.ranges() == [1000, 0]


def test_a_whole_download_is_not_asked_for_again(server: HubState, places: Places, tmp_path: Path) -> None:
    """A run may be killed between the last byte and the check."""
    model = known(tmp_path)
    places.partial(model.file).parent.mkdir(parents=True)
    places.partial(model.file).write_bytes(CONTENT)
    assert ensure_model("tiny", model, places).path.read_bytes() == CONTENT
    assert server.sent == []


def test_several_models_side_by_side_but_not_all(server: HubState, places: Places, tmp_path: Path) -> None:
    server.seconds_per_piece = 0.001
    server.together = PARALLEL_FILES  # none ends before so many are under way, however slow this machine is
    models = {}
    for number in range(PARALLEL_FILES + 2):
        content = hashlib.shake_256(bytes([number])).digest(100_000)
        server.others[f"{number}.gguf"] = content
        file = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        model = load_catalogue(written(tmp_path, file=file)).get("tiny")
        sources = [SOURCE.model_copy(update={"file": f"{number}.gguf"})]
        models[f"model{number}"] = model.model_copy(update={"sources": sources})
    models["again"] = models["model0"].model_copy(
        update={"file": models["model0"].file.model_copy(update={"name": "again.gguf"})}
    )
    done = ensure_models(models, places)
    assert {o.name for o in done if hashlib.sha256(o.path.read_bytes()).hexdigest() == models[o.name].file.sha256} == {
        *models
    }
    assert server.most_active == PARALLEL_FILES
    noted(server)
    assert len(server.sent) == len(models) - 1


def test_one_failure_does_not_keep_the_others(server: HubState, places: Places, tmp_path: Path) -> None:
    good = known(tmp_path)
    file = good.file.model_copy(update={"sha256": "0" * 64})
    bad = good.model_copy(update={"file": file, "sources": [SOURCE.model_copy(update={"file": "none.gguf"})]})
    with pytest.raises(RoostError, match="model bad could not be fetched"):
        ensure_models({"bad": bad, "tiny": good}, places)
    assert [p.read_bytes() == server.content for p in visible(places)] == [True]


def test_killed_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No corrupt file is ever visible, and no byte is fetched twice beyond one block a kill.

    `tests/support/killed.py 500` does it more often.
    """
    monkeypatch.setenv("HF_ENDPOINT", "")  # put back when the test is over
    done = kill_downloads(KILLS, tmp_path)
    assert (done.corrupt, done.whole) == (0, True)
    assert len(done.twice) > KILLS // 2  # most lives received something
    assert max(done.twice) <= BLOCK_BYTES
    # Short lives bring it forward too; how much is sent twice depends on how long clients wait for a core.
    assert sum(done.twice) < 0.9 * done.received
