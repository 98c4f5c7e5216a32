"""What the user types: accepted, refused, and what follows from it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.bootstrap.shell import PARTS, SCRIPT, call, only, script, sh, stub

USAGE, UNSUPPORTED = 2, 3
NOBODY = "65534"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--bogus"], "no option --bogus"),
        (["-x"], "no option -x"),
        (["stray"], "'stray' is not an option"),
        (["--set"], "--set needs a value"),
        (["--set", "nonsense"], "NAME=VALUE"),
        (["--set=", "--yes"], "--set needs a value"),
        (["--set", "=5"], "'' is no name of a variable"),
        (["--set", "api port=5"], "'api port' is no name of a variable"),
        (["--set", "api_prot=5"], "There is no variable 'api_prot'. Some that begin like that: api_port."),
        (["--set", "zzz=5"], "There is no variable 'zzz'. Every one stands in group_vars/all.yaml."),
        (["--offline"], "--offline needs a value"),
        (["--offline", "--yes"], "--offline needs a value"),
        (["--check=yes"], "--check takes no value"),
        (["--check", "--purge"], "--purge goes with"),
        (["--uninstall", "--purge"], "contradict"),
        (["--purge", "--set", "api_port=1"], "--purge goes with"),
        (["--run-local", "--set", "roost_runtime=docker"], "contradict"),
        (["--listen", "lan"], "IP address"),
        (["--listen", "192.0.2.1:"], "port"),
        (["--listen", "192.0.2.1:99999"], "65535"),
        (["--listen", "192.0.2.1:x"], "not a number"),
        (["--listen-cert", "/x"], "need --listen"),
        (["--listen", "192.0.2.1", "--listen-key", "/x"], "belong together"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_two(args: list[str], said: str) -> None:
    done = script(*args)
    assert done.code == USAGE
    first, hint = done.err.splitlines()
    assert said in first
    assert "--help" in hint
    assert done.out == ""


def test_help_names_every_option_the_script_reads() -> None:
    done = script("--help")
    assert done.code == 0
    body = (PARTS / "arguments.sh").read_text()
    options = {word for line in body.splitlines() if line.strip().startswith("--") and ")" in line
               for word in line.split(")")[0].split(" | ") if word.strip().startswith("--")}  # fmt: skip
    assert len(options) > 10
    for option in options:
        assert option.strip() in done.out


@pytest.mark.parametrize(
    ("listen", "address", "port"),
    [
        ("192.0.2.1", "192.0.2.1", ""),
        ("192.0.2.1:9443", "192.0.2.1", "9443"),
        ("[2001:db8::1]:9443", "2001:db8::1", "9443"),
        ("[2001:db8::1]", "2001:db8::1", ""),
        ("2001:db8::1", "2001:db8::1", ""),
    ],
)
@pytest.mark.parametrize("form", ["--listen {}", "--listen={}"])
def test_listen_takes_an_address_and_a_port(tmp_path: Path, listen: str, address: str, port: str, form: str) -> None:
    done = call(tmp_path, f'parse {form.format(listen)}; printf "%s" "$chosen"')
    assert done.code == 0, done.err
    lines = [f"api_listen_address='{address}'", *([f"api_listen_port={port}"] if port else [])]
    assert done.out.splitlines() == lines


def test_choices_become_variables_that_are_kept(tmp_path: Path) -> None:
    env = {"ROOST_CACHE_DIR": "/c a'che", "ROOST_EXTRA_CA_BUNDLE": str(SCRIPT)}
    body = 'parse --run-local --offline /media/x --set api_port=1 --set "model_slots=[a: 1]"; printf "%s" "$chosen"'
    assert call(tmp_path, body, env=env).out.splitlines() == [
        "api_port=1",
        "model_slots=[a: 1]",
        "roost_runtime=local",
        "roost_offline_dir='/media/x'",
        "roost_cache_dir='/c a''che'",
        f"extra_ca_bundle='{SCRIPT}'",
    ]


def test_a_name_of_before_is_left_to_who_knows_the_new_one(tmp_path: Path) -> None:
    done = call(tmp_path, 'parse --set "api_names=[a]"; printf "%s" "$chosen"')
    assert (done.code, done.out) == (0, "api_names=[a]\n")


def test_what_an_earlier_run_kept_counts_until_another_is_chosen(tmp_path: Path) -> None:
    (tmp_path / "etc/roost").mkdir(parents=True)
    (tmp_path / "etc/roost/host.yaml").write_text("---\nroost_cache_dir: '/kept it''s'\napi_port: 7\n")
    body = 'parse{}; read_choices; printf "%s\\n" "$cache_dir"'
    assert call(tmp_path, body.format("")).out == "/kept it's\n"
    assert call(tmp_path, body.format(""), env={"ROOST_CACHE_DIR": "/new"}).out == "/new\n"


def test_an_offline_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    done = call(tmp_path, f"parse --offline {tmp_path}; read_choices")
    assert done.code == 1
    assert "not there" in done.err
    assert "Fix: " in done.err


@pytest.mark.parametrize(("manager", "system"), [("dnf", "Fedora"), ("apk", "Alpine"), ("pkg", "FreeBSD")])
def test_other_systems_are_told_what_is_missing(tmp_path: Path, manager: str, system: str) -> None:
    path = only(tmp_path / "bin", "dash", "sed", "dirname", "id")
    stub(tmp_path / "bin", manager)
    done = sh(["dash", str(SCRIPT)], env={"PATH": path})
    assert done.code == UNSUPPORTED
    assert system in done.err
    assert "Debian 12" in done.err


@pytest.fixture
def for_everyone() -> Iterator[Path]:
    """A copy of the script where any user may read it."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        shutil.copy(SCRIPT, folder / "bootstrap.sh")
        shutil.copytree(PARTS, folder / "bootstrap")
        (folder / "playbook.yaml").touch()
        yield folder
    finally:
        shutil.rmtree(folder)


def as_a_user(folder: Path, *args: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Run the copy without root's rights, on a PATH that has no sudo but what the test put there."""
    path = only(folder / "bin", "dash", "sh", "sed", "dirname", "id", "env", "printf", "mktemp", "rm", "cat")
    stub(folder / "bin", "apt-get")
    stub(folder / "bin", "dpkg")
    drop = ["setpriv", "--reuid", NOBODY, "--clear-groups"] if os.geteuid() == 0 else []
    words = [shutil.which(drop[0]) or "", *drop[1:]] if drop else []
    done = sh([*words, "/bin/sh", str(folder / "bootstrap.sh"), *args], env={"PATH": path, **(env or {})})
    return done.code, done.out + done.err


def test_without_root_it_asks_sudo_with_its_arguments_and_hands_settings_over_in_a_file(for_everyone: Path) -> None:
    # sudo sh -c TEXT sh FILE SCRIPT ARGUMENT...
    stub(for_everyone / "bin", "sudo", 'printf "[%s]" "$@"; echo; cat "$5"; exit 7')
    env = {"ROOST_CACHE_DIR": "/it's", "HTTPS_PROXY": "http://u:pass@192.0.2.1", "SECRET": "no"}
    code, said = as_a_user(for_everyone, "--set", "a=b c", env=env)
    assert code == 7, said
    arguments, *handed = said.splitlines()[1:]
    assert arguments.endswith(f"[{for_everyone}/bootstrap.sh][--set][a=b c]")
    assert "pass" not in arguments
    assert sorted(line.partition("=")[0] for line in handed) == ["HTTPS_PROXY", "ROOST_CACHE_DIR"]
    read_back = sh(["sh", "-c", "\n".join([*handed, 'printf "%s" "$ROOST_CACHE_DIR"'])])
    assert read_back.out == "/it's"


def test_without_root_and_sudo_it_says_so(for_everyone: Path) -> None:
    code, said = as_a_user(for_everyone)
    assert code == 1
    assert "neither sudo nor doas" in said
    assert "Fix: " in said


def test_removing_without_a_terminal_needs_yes(tmp_path: Path) -> None:
    for action in ("uninstall", "purge"):
        done = call(tmp_path, f"parse --{action}; mkdir -p $state_dir; : >$manifest; remove_roost")
        assert done.code == USAGE
        assert "--yes" in done.err


def test_removing_what_is_not_there_is_done_at_once(tmp_path: Path) -> None:
    done = call(tmp_path, "parse --purge; remove_roost")
    assert (done.code, done.out) == (0, "There is no Roost on this machine.\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--join", "one"], "--join needs --token"),
        (["--token", "x"], "--token goes with --join"),
        (["--join"], "--join needs a value"),
        (["--join", "one", "--token", "x", "--check"], "--join goes with"),
        (["--join", "one", "--token", "x", "--uninstall"], "contradict"),
    ],
)
def test_joining(args: list[str], said: str) -> None:
    done = script(*args)
    assert done.code == 2
    assert said in done.err
