"""The parts of a staged host, and putting them into a root folder."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from roost.fleet.stage.hosts_parts import Made, freebsd_parts, linux_parts
from roost.fleet.stage.parts import AbsentPart, CopyPart, FilePart, FolderPart, LinkPart, Part, under
from roost.fleet.stage.root_of import look_at_freebsd, look_at_linux
from roost.fleet.stage.wish import Account, Wish, WorkerWish, services
from roost.fleet.stage.write import changes, put
from roost.ops.errors import RoostError

ME = os.getuid()
WISH = Wish(
    system="linux",
    model_name="smollm2",
    model_path="/var/lib/roost/models/abc/model.gguf",
    engine=("/opt/roost/engine/ld.so", "/opt/roost/engine/usr/bin/llama-server"),
    engine_folder="/opt/roost/engine/backends",
    engine_account=Account("roost-engine", ME, "Model servers"),
    agent_account=Account("roost-agent", ME, "Agent"),
    group="roost",
    context_size=2048,
    parallel=2,
    cache_ram_mib=64,
    loopback="127.0.0.1",
    engine_port=8372,
    api_port=8360,
)
FREEBSD_WISH = replace(
    WISH, system="freebsd", engine=("/usr/local/bin/llama-server",), model_path="/var/db/roost/models/model.gguf"
)


def quiet(_line: str) -> None:
    return


@pytest.fixture
def made(tmp_path: Path) -> Made:
    model = tmp_path / "from" / "model.gguf"
    model.parent.mkdir()
    model.write_bytes(b"GGUF")
    trees = []
    for name in ("engine", "agent"):
        tree = tmp_path / "from" / name
        (tree / "bin").mkdir(parents=True)
        (tree / "roost.json").write_text(json.dumps({"tag": "1"}))
        (tree / "bin" / "program").write_text("x")
        (tree / "lib").symlink_to("bin")
        trees.append(tree)
    return Made(b"PK", model, *trees)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def mine(parts: list[Part]) -> list[Part]:
    """Return the parts as those of whoever runs the tests: root alone may give away."""
    return [replace(part, uid=ME) if isinstance(part, FolderPart | FilePart) else part for part in parts]


def text(parts: list[Part], path: str) -> str:
    found = next(part for part in parts if isinstance(part, FilePart) and part.path == path)
    return str(found.content)


def test_a_staged_root_has_every_part_and_a_second_time_changes_nothing(root: Path, made: Made) -> None:
    parts = mine(linux_parts(WISH, made))
    assert len(changes(root, parts)) == len(parts)
    assert put(root, parts, quiet) == changes(Path("/nowhere-of-that-name"), parts)
    assert changes(root, parts) == []
    assert put(root, parts, quiet) == []
    wants = root / "etc/systemd/system/multi-user.target.wants"
    assert sorted(path.name for path in wants.iterdir()) == [
        "roost-agent.service",
        "roost-firstboot.service",
        "roost-model-main.service",
    ]
    assert (root / "opt/roost/engine/lib").is_symlink()
    assert (root / "var/lib/roost/models/abc/model.gguf").read_bytes() == b"GGUF"


def test_an_image_holds_no_secret(root: Path, made: Made) -> None:
    for parts in (linux_parts(WISH, made), freebsd_parts(FREEBSD_WISH, made)):
        put(root, mine(parts), quiet)
    for folder in ("etc/roost/secrets", "usr/local/etc/roost/secrets"):
        assert list((root / folder).iterdir()) == []


def test_staged_again_without_a_worker_it_goes_and_the_operators_files_stay(root: Path, made: Made) -> None:
    worker = WorkerWish(Account("roost-worker", ME, "Worker"), "https://192.0.2.1")
    with_worker = freebsd_parts(replace(FREEBSD_WISH, worker=worker), replace(made, worker_tree=made.agent_tree))
    without = mine(freebsd_parts(FREEBSD_WISH, made))
    put(root, without, quiet)
    before = {path for path in root.rglob("*") if path.is_file()}
    put(root, mine(with_worker), quiet)
    (root / "usr/local/etc/roost/worker.env").write_text("ROOST_API_KEY=key\n")
    assert "remove /usr/local/etc/rc.d/roost_worker" in put(root, without, quiet)
    now = {path for path in root.rglob("*") if path.is_file()}
    assert now == before | {root / "usr/local/etc/roost/worker.env"}
    assert changes(root, without) == []


def test_what_was_changed_by_hand_is_renewed_but_not_the_configuration(root: Path, made: Made) -> None:
    parts = mine(linux_parts(WISH, made))
    put(root, parts, quiet)
    (root / "etc/roost/agent.env").chmod(0o600)
    (root / "etc/roost/agent.env").write_text("ROOST_PORT=1\n")
    (root / "etc/systemd/system/roost-agent.service").write_text("broken")
    (root / "var/lib/roost/agent").chmod(0o777)
    assert put(root, parts, quiet) == [
        "folder /var/lib/roost/agent 700",
        "file /etc/systemd/system/roost-agent.service 644",
    ]
    assert (root / "etc/roost/agent.env").read_text() == "ROOST_PORT=1\n"


@pytest.mark.parametrize("what", ["engine", "agent", "model.gguf"])
def test_a_missing_part_stops_it_before_anything_is_written(root: Path, made: Made, what: str) -> None:
    gone = made.model.parent / what
    gone.rename(gone.with_name("elsewhere"))
    with pytest.raises(RoostError, match=f"Missing: .*{what}"):
        put(root, mine(linux_parts(WISH, made)), quiet)
    assert list(root.iterdir()) == []


def test_nothing_is_written_outside_of_the_root(root: Path, made: Made, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "etc").symlink_to(outside)
    with pytest.raises(RoostError, match="outside"):
        put(root, mine(linux_parts(WISH, made)), quiet)
    assert list(outside.iterdir()) == []


def test_what_lies_in_the_way_is_named(root: Path, made: Made) -> None:
    (root / "opt/roost/engine").parent.mkdir(parents=True)
    (root / "opt/roost/engine").write_text("a file")
    with pytest.raises(RoostError, match="something else"):
        put(root, mine(linux_parts(WISH, made)), quiet)


def test_a_copy_that_was_interrupted_is_made_anew(root: Path, made: Made) -> None:
    target = under(root, "/opt/roost/.engine.partial")
    target.mkdir(parents=True)
    (target / "left").touch()
    put(root, mine(linux_parts(WISH, made)), quiet)
    assert not target.exists()
    assert not (root / "opt/roost/engine/left").exists()


def test_services_find_what_they_require_among_the_parts_or_the_secrets(made: Made) -> None:
    for wish, build in ((WISH, linux_parts), (FREEBSD_WISH, freebsd_parts)):
        parts = build(wish, made)
        staged = json.loads(text(parts, f"{wish.config_dir}/staged.json"))
        there = {part.path for part in parts if not isinstance(part, LinkPart)}
        for secret in staged["secrets"]:
            there |= {place["path"] for place in [*secret["files"], *secret.get("hashes", [])]}
        for service in services(wish):
            assert set(service.requires) <= there, service.name


def test_freebsd_has_sound_scripts_that_are_enabled_and_rotated(made: Made, tmp_path: Path) -> None:
    parts = freebsd_parts(FREEBSD_WISH, made)
    scripts = [part for part in parts if isinstance(part, FilePart) and part.path.startswith("/usr/local/etc/rc.d/")]
    assert {Path(part.path).name for part in scripts} == {"roost_model_main", "roost_firstboot"}
    for part in scripts:
        script = tmp_path / Path(part.path).name
        script.write_text(str(part.content))
        found = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout
        assert part.mode == "555"
        assert text(parts, f"/etc/rc.conf.d/{script.name}") == f'{script.name}_enable="YES"\n'
    model = text(parts, "/usr/local/etc/rc.d/roost_model_main")
    assert "\nhealth_cmd=health\n" in model
    assert "show_status && /usr/bin/env -i HOME=/ LANG=C.UTF-8 PATH=" in model
    assert " /usr/bin/fetch -q -T 5 -o /dev/null http://127.0.0.1:8372/health\n" in model
    line = text(parts, "/usr/local/etc/newsyslog.conf.d/roost_model_main.conf").splitlines()[1].split()
    assert line[0] == "/var/log/roost/roost_model_main.log"
    assert line[-2:] == ["/var/run/roost/roost_model_main.supervisor.pid", "1"]


def test_owners_and_modes_are_those_of_who_must_read(root: Path, made: Made) -> None:
    put(root, mine(linux_parts(WISH, made)), quiet)
    assert stat.S_IMODE((root / "etc/roost/agent.env").stat().st_mode) == 0o400
    assert stat.S_IMODE((root / "etc/roost/secrets").stat().st_mode) == 0o711
    assert stat.S_IMODE((root / "opt/roost/host.pyz").stat().st_mode) == 0o755


def debian(root: Path, *, systemd: bool = True, python: str = "3.11.2-1+b1") -> Path:
    status = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nVersion: 2.36-9+deb12u10\n"
    if python:
        status += f"\nPackage: libpython3-stdlib\nStatus: install ok installed\nVersion: {python}\n"
    (root / "var/lib/dpkg").mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text(status)
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    if systemd:
        (root / "usr/lib/systemd").mkdir()
        (root / "usr/lib/systemd/systemd").touch()
    return root


def test_a_debian_root_says_for_which_python_wheels_are_chosen(root: Path) -> None:
    found = look_at_linux(debian(root))
    assert (found.target.python, found.target.arch, found.target.glibc) == ("3.11", "amd64", 36)
    assert found.release == "Debian GNU/Linux 12 (bookworm)"


def test_a_root_that_will_not_do_is_refused_with_what_it_lacks(root: Path, tmp_path: Path) -> None:
    with pytest.raises(RoostError, match="no Debian root"):
        look_at_linux(root)
    with pytest.raises(RoostError, match="no FreeBSD root"):
        look_at_freebsd(root)
    debian(root, systemd=False)
    with pytest.raises(RoostError, match="no systemd"):
        look_at_linux(root)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(RoostError, match="no Python"):
        look_at_linux(debian(other, python=""))


def test_parts_are_plain_paths_inside(made: Made) -> None:
    for part in [*linux_parts(WISH, made), *freebsd_parts(FREEBSD_WISH, made)]:
        assert part.path.startswith("/")
        assert ".." not in part.path
        assert isinstance(part, FolderPart | FilePart | CopyPart | LinkPart | AbsentPart)
