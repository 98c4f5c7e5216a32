"""bootstrap.sh where carelessness would show: what root is handed, what a failed copy does, what others can see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from roost.fleet.bundle import fill, text_of
from tests.unit.bootstrap.shell import call, stub

PROXY = "http://user:it's $HOME `secret`@proxy:3128"


def unprivileged(folder: Path) -> dict[str, str]:
    """Make an environment in which `id` says 1000 and TMPDIR is ours."""
    stub(folder / "bin", "id", "echo 1000")
    (folder / "tmpdir").mkdir()
    return {"PATH": f"{folder}/bin:{os.environ['PATH']}", "TMPDIR": str(folder / "tmpdir"), "HTTPS_PROXY": PROXY}


def test_root_gets_the_environment_and_nobody_sees_it_in_the_arguments(tmp_path: Path) -> None:
    env = unprivileged(tmp_path)
    stub(
        tmp_path / "bin",
        "sudo",
        f'printf "%s\\n" "$@" >{tmp_path}/arguments; stat -c %a "$TMPDIR"/*; exec env -i PATH="$PATH" "$@"',
    )
    stub(tmp_path, "bootstrap.sh", 'printf "%s\\n" "$HTTPS_PROXY" "${http_proxy-none}" "$@"; exit 7')
    done = call(tmp_path, f'source_dir={tmp_path}; become_root --yes "a b"', env=env)
    assert done.out.splitlines()[1:] == ["600", PROXY, "none", "--yes", "a b"]
    assert done.code == 7
    assert "secret" not in (tmp_path / "arguments").read_text()
    assert list((tmp_path / "tmpdir").iterdir()) == []


def test_a_refused_sudo_leaves_no_file(tmp_path: Path) -> None:
    env = unprivileged(tmp_path)
    stub(tmp_path / "bin", "sudo", "exit 1")
    assert call(tmp_path, f"source_dir={tmp_path}; become_root", env=env).code == 1
    assert list((tmp_path / "tmpdir").iterdir()) == []


@pytest.mark.parametrize("program", ["cp", "mv"])
def test_a_manifest_that_cannot_be_copied_stays_as_it_is(tmp_path: Path, program: str) -> None:
    stub(tmp_path / "bin", program, "echo 'No space left on device' >&2; exit 1")
    manifest = tmp_path / "var/lib/roost/manifest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("path\t/opt/roost\n")
    done = call(tmp_path, "own path /x; echo on", env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"})
    assert (done.code, done.out) == (1, "")
    assert "could not be written; it is as it was" in done.err
    assert [path.name for path in manifest.parent.iterdir()] == ["manifest"]
    assert manifest.read_text() == "path\t/opt/roost\n"


def test_what_is_gone_is_forgotten_and_a_full_disk_forgets_nothing(tmp_path: Path) -> None:
    manifest = tmp_path / "var/lib/roost/manifest"
    manifest.parent.mkdir(parents=True)
    text = f"path\t{tmp_path}\npath\t{tmp_path}/gone\npath\t{manifest.parent}\n"
    manifest.write_text(text)
    # A dash function stands before the builtin: the second line cannot be written.
    fails = f'printf() {{ case $* in *{manifest.parent}*) return 1 ;; esac; command printf "$@"; }}'
    done = call(tmp_path, f"{fails}; forget_absent")
    assert done.code == 1
    assert manifest.read_text() == text
    assert call(tmp_path, "forget_absent").code == 0
    assert manifest.read_text() == f"path\t{tmp_path}\npath\t{manifest.parent}\n"


def test_a_kept_log_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tmpdir").mkdir()
    body = 'log=$tmp/log; for n in 1 2; do log=$tmp/log; echo words >$log; keep_log; stat -c "%a %n" "$log"; done'
    done = call(tmp_path, body, env={"TMPDIR": str(tmp_path / "tmpdir")})
    modes, names = zip(*(line.split() for line in done.out.splitlines()), strict=True)
    assert set(modes) == {"600"}
    assert len(set(names)) == 2
    assert all(Path(name).parent == tmp_path / "tmpdir" for name in names)


def test_what_a_step_starts_does_not_hold_the_lock(tmp_path: Path) -> None:
    body = "take_lock; log=$tmp/log; : >$log; tty=yes; work() { ls -l /proc/self/fd; }; step docker installing work"
    done = call(tmp_path, body)
    assert done.code == 0, done.err
    said = (tmp_path / "work/log").read_text()
    assert " 0 -> " in said
    assert "roost-bootstrap.lock" not in said


NAMES = ["libstdc++6_12.2.0-14+deb12u1_amd64.deb", "python3_1%3a3.11.2-1~x_amd64.deb"]


def spare(_: Path) -> None:
    """Change nothing."""


def change(debs: Path) -> None:
    """Change a package."""
    (debs / NAMES[0]).write_text("another")


def lose(debs: Path) -> None:
    """Remove a package."""
    (debs / NAMES[1]).unlink()


def smuggle(debs: Path) -> None:
    """Add a package nobody wrote down."""
    (debs / "libstdcXX6_12.2.0-14+deb12u1_amd64.deb").write_text("a package")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (spare, ""),
        (change, f"{NAMES[0]} has the wrong checksum."),
        (lose, f"{NAMES[1]} is listed in bundle.json but missing."),
        (smuggle, "libstdcXX6_12.2.0-14+deb12u1_amd64.deb is not listed in bundle.json."),
    ],
)
def test_apt_gets_packages_of_a_bundle_only_as_they_were_written_down(
    tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    bundle = tmp_path / "bundle"
    items = [text_of(f"content of {name}", f"debs/host/{name}") for name in NAMES]
    items.append(text_of("wheel", "wheels/x.whl"))
    fill(bundle, items, arch="x86_64", runtime="docker", python=["3.11"], notify=lambda _: None)
    harm(bundle / "debs/host")
    stub(tmp_path / "bin", "dpkg-deb", "echo Package: x")
    stub(tmp_path / "bin", "apt-get", f"echo asked >>{tmp_path}/apt")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = call(tmp_path, f"log=$tmp/log; : >$log; ca=; offline={bundle}; step python apt offline_packages", env=env)
    assert (done.code == 0) == (not reason), done
    assert (tmp_path / "apt").exists() == (not reason)
    assert reason in done.err
    if reason:
        assert "Fix: Copy the offline folder again" in done.err
    else:
        assert (tmp_path / "work/debs/files/Packages").read_text().count("SHA256: ") == len(NAMES)
