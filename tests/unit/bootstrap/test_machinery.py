"""What bootstrap.sh stands on: lock, steps, interruption, manifest, releases."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from roost.ops.ownership import Manifest
from tests.unit.bootstrap.shell import ROOT, Done, call, functions, stub
from tests.unit.bootstrap.waiting import until

INTERRUPTED = 130
LOGGED = 'log=$tmp/log; : >"$log"; '


def holding_lock(folder: Path, number: int) -> subprocess.Popen[str]:
    """Start a script that takes the lock, says so, and holds it until its standard input ends."""
    body = f"settings\ntmp={folder}/$1\nmkdir $tmp\ntrap finish EXIT\ntake_lock\necho got\nread -r _\n"
    text = f"{functions(folder)}\n{body}"
    (folder / f"script-{number}").write_text(text)
    return subprocess.Popen(
        ["dash", str(folder / f"script-{number}"), str(number)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_a_second_run_is_told_who_holds_the_lock_and_the_lock_goes_with_its_holder(tmp_path: Path) -> None:
    with holding_lock(tmp_path, 1) as holder:
        assert first_line(holder) == "got\n"
        done = call(tmp_path, "take_lock")
        assert done.code == 1
        assert f"process {holder.pid}" in done.err
        assert "Fix: " in done.err
        holder.communicate(timeout=20)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_lock_whose_owner_was_killed_is_taken_over(tmp_path: Path) -> None:
    with holding_lock(tmp_path, 1) as holder:
        assert first_line(holder) == "got\n"
        holder.kill()
    assert (tmp_path / "run/roost-bootstrap.lock").exists()
    assert call(tmp_path, 'take_lock; echo "$locked"').out == "yes\n"


@pytest.mark.parametrize("round_number", range(5))
def test_of_many_at_once_one_gets_the_lock(tmp_path: Path, round_number: int) -> None:
    tries = [holding_lock(tmp_path, number) for number in range(round_number, round_number + 8)]
    results = [first_line(one) for one in tries]
    for one in tries:
        one.communicate(timeout=20)
    assert results.count("got\n") == 1, results
    assert list((tmp_path / "run").iterdir()) == []


def without_seconds(line: str) -> list[str]:
    """The words of a step's line; how long it took is the machine's affair."""
    return [word for word in line.split() if not word.isdigit()]


def test_a_step_that_did_something_is_one_line(tmp_path: Path) -> None:
    done = call(tmp_path, LOGGED + "work() { echo inside; did 'a note'; }; step python installing work")
    assert without_seconds(done.out) == ["✓", "python", "s", "a", "note"]
    assert "inside" in (tmp_path / "work/log").read_text()


def test_a_step_with_nothing_to_do_is_silent(tmp_path: Path) -> None:
    assert call(tmp_path, LOGGED + "step python installing true").out == ""


@pytest.mark.parametrize(
    ("work", "reason", "fix"),
    [
        ("because 'No network.' 'Plug it in.'", "No network.", "Fix: Plug it in."),
        ("echo 'tar: x: No space left on device'; false", "The disk is full.", "Fix: Free space"),
        ("echo strange words; false", "strange words", "Fix: See the log"),
    ],
)
def test_a_failed_step_says_reason_fix_and_log(tmp_path: Path, work: str, reason: str, fix: str) -> None:
    body = f"work() {{ {work}; }}; log={tmp_path}/kept.log; : >$log; step program unpacking work; echo not reached"
    done = call(tmp_path, body)
    assert done.code == 1
    assert without_seconds(done.out) == ["✗", "program", "s"]
    assert reason in done.err
    assert fix in done.err
    assert f"Log: {tmp_path}/kept.log" in done.err


def runs(pid: str) -> bool:
    """Whether there is such a process, and it is more than an entry that nobody has fetched yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_interrupt_ends_the_children_and_leaves_nothing(tmp_path: Path) -> None:
    body = f"""{functions(tmp_path)}
        source_dir={ROOT}
        settings
        trap finish EXIT
        trap 'interrupted 130' INT
        tmp={tmp_path}/work
        mkdir $tmp
        take_lock
        log={tmp_path}/log
        : >$log
        cd {tmp_path}
        sleep() {{ [ "$1" != 0.2 ] || set -- 0.02; command sleep "$@"; }}  # how long it looks for their end
        work() {{ sh -c 'trap "" TERM; echo $$ >stubborn; echo ready >ready; sleep 600' & sleep 600; }}
        step docker installing work"""
    (tmp_path / "script").write_text(body)
    os.mkfifo(tmp_path / "ready")
    with subprocess.Popen(["dash", str(tmp_path / "script")], stdout=subprocess.PIPE, text=True) as running:
        assert (tmp_path / "ready").read_text() == "ready\n"
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED
    assert "Run ./bootstrap.sh again" in said
    stubborn = (tmp_path / "stubborn").read_text().strip()
    until(lambda: not runs(stubborn), "the end of what minds no TERM")
    assert not (tmp_path / "work").exists()
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("others", [[], ["theirs.fact"]])
def test_folders_that_others_use_too_go_only_when_empty(tmp_path: Path, others: list[str]) -> None:
    folder = tmp_path / "etc/ansible/facts.d"
    folder.mkdir(parents=True)
    for name in ("roost.fact", *others):
        (folder / name).touch()
    made = f"cache_dir={tmp_path}; make_folders; own path {folder}/roost.fact {folder} {folder.parent}; tmp={tmp_path};"
    assert call(tmp_path, f"{made} action=purge; sweep_paths").code == 0
    assert folder.parent.exists() is bool(others)
    assert not folder.exists() or [path.name for path in folder.iterdir()] == others


def test_the_shell_writes_the_manifest_that_python_reads(tmp_path: Path) -> None:
    manifest = tmp_path / "var/lib/roost/manifest"
    done = call(tmp_path, f"cache_dir={tmp_path}/cache; make_folders; own path {tmp_path}/cache; own unit a b")
    assert done.code == 0, done.err
    folders = [tmp_path / name for name in ("var/lib/roost", "opt/roost", "var/log/roost", "cache")]
    assert Manifest(manifest).owned("path") == [str(folder) for folder in folders]
    assert Manifest(manifest).owned("unit") == ["a", "b"]
    Manifest(manifest).forget("unit", "a")
    assert call(tmp_path, "owned unit").out == "b\n"


def test_a_folder_that_was_there_is_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "opt/roost").mkdir(parents=True)
    call(tmp_path, f"cache_dir={tmp_path}; make_folders")
    owned = Manifest(tmp_path / "var/lib/roost/manifest").owned("path")
    assert str(tmp_path / "opt/roost") not in owned
    assert str(tmp_path) not in owned


def test_ten_logs_are_kept(tmp_path: Path) -> None:
    logs = tmp_path / "var/log/roost"
    logs.mkdir(parents=True)
    for number in range(10, 25):
        (logs / f"bootstrap-202001{number}T000000Z.log").touch()
    done = call(tmp_path, 'open_log; ls -l "$log"')
    assert done.out.startswith("-rw-------")
    names = sorted(path.name for path in logs.iterdir())
    assert len(names) == 10
    assert names[0] == "bootstrap-20200116T000000Z.log"


def test_a_release_is_named_by_its_content_and_appears_whole(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("app/roost/__pycache__", "requirements", ".git"):
        (source / name).mkdir(parents=True)
    for name in ("playbook.yaml", "app/roost/x.py", "requirements/roost.txt", "app/roost/__pycache__/x.pyc", ".git/y"):
        (source / name).write_text(name)
    put = f"source_dir={source}; venv=/v; release=$install_dir/releases/$(release_id); "
    done = call(
        tmp_path, put + 'copy_release; find "$release" -type f | sort; cat "$release/bin/roost"; venv_of "$release"'
    )
    assert done.code == 0, done.err
    release = next((tmp_path / "opt/roost/releases").iterdir())
    files = [line.removeprefix(f"{release}/") for line in done.out.splitlines() if line.startswith(str(release))]
    assert files == ["app/roost/x.py", "bin/roost", "playbook.yaml", "requirements/roost.txt"]
    assert f"PYTHONPATH={release}/app exec /v/bin/python -X utf8 -P -m roost" in done.out
    assert done.out.endswith("/v\n")
    before = call(tmp_path, put + "release_id").out
    (source / "app/roost/__pycache__/z.pyc").touch()
    assert call(tmp_path, put + "release_id").out == before
    (source / "playbook.yaml").chmod(0o755)
    assert call(tmp_path, put + "release_id").out != before


def test_the_command_reads_and_writes_utf8_in_whatever_locale(tmp_path: Path) -> None:
    """In one of ISO 8859-1 an arrow on the screen ended it with a UnicodeEncodeError."""
    package = tmp_path / "source/app/roost"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("import sys; print(sys.flags.utf8_mode)")
    for name in ("playbook.yaml", "requirements"):
        (tmp_path / "source" / name).touch()
    put = f"source_dir={tmp_path}/source; venv={sys.prefix}; release=$install_dir/releases/1; copy_release; "
    done = call(tmp_path, put + "LC_ALL=C.UTF-8 PYTHONUTF8=0 $release/bin/roost")
    assert (done.out, done.err) == ("1\n", "")


def test_the_previous_release_stays_and_older_ones_go(tmp_path: Path) -> None:
    install = tmp_path / "opt/roost"
    for number in "123":
        (install / f"releases/{number}/bin").mkdir(parents=True)
        (install / f"venvs/v{number}").mkdir(parents=True)
        (install / f"releases/{number}/bin/roost").write_text(
            f"PYTHONPATH=x exec {install}/venvs/v{number}/bin/python -P\n"
        )
    body = "mkdir -p $state_dir; for n in 1 2 3 3; do switch_to $install_dir/releases/$n; done; prune"
    done = call(tmp_path, body)
    assert (done.code, done.err) == (0, "")
    assert sorted(p.name for p in (install / "releases").iterdir()) == ["2", "3"]
    assert sorted(p.name for p in (install / "venvs").iterdir()) == ["v2", "v3"]
    assert (install / "previous").readlink() == Path("releases/2")
    assert (tmp_path / "usr/local/bin/roost").resolve() == install / "releases/3/bin/roost"


def test_a_foreign_command_of_that_name_stays(tmp_path: Path) -> None:
    (tmp_path / "opt/roost/releases/1").mkdir(parents=True)
    stub(tmp_path / "usr/local/bin", "roost", "echo theirs")
    done = call(tmp_path, "mkdir -p $state_dir; switch_to $install_dir/releases/1")
    assert "stays" in done.out
    assert "theirs" in (tmp_path / "usr/local/bin/roost").read_text()


def test_paths_are_removed_as_the_action_says_and_only_ours(tmp_path: Path) -> None:
    places = ["opt/roost", "var/cache/roost", "var/lib/roost/models", "etc/roost", "theirs"]
    made = "for p in " + " ".join(places) + f"; do mkdir -p {tmp_path}/$p; done; mkdir -p $state_dir; "
    made += (
        "".join(f"own path {tmp_path}/{p}; " for p in places[:-1])
        + "own path /; own path ../x; own path $state_dir/../../x; "
    )
    call(tmp_path, made + "action=uninstall; sweep_paths")
    assert [p for p in places if (tmp_path / p).exists()] == ["var/lib/roost/models", "etc/roost", "theirs"]
    call(tmp_path, "action=purge; sweep_paths")
    assert [p for p in places if (tmp_path / p).exists()] == ["theirs"]


def test_packages_of_ours_that_others_need_now_stay(tmp_path: Path) -> None:
    bin_dir = tmp_path / "bin"
    stub(bin_dir, "dpkg-query", "printf installed")
    stub(bin_dir, "apt-get", f'case "$*" in *-s*) cat {tmp_path}/plan ;; *) echo "$*" >>{tmp_path}/done ;; esac')
    env = {"PATH": f"{bin_dir}:{os.environ['PATH']}"}
    body = "ca=; offline=; mkdir -p $state_dir; own package a b; sweep_packages package"
    (tmp_path / "plan").write_text("Purg a [1]\nRemv b [1]\nRemv theirs [1]\n")
    assert call(tmp_path, body, env=env).code == 0
    assert not (tmp_path / "done").exists()
    assert (tmp_path / "work/kept").read_text() == "a\nb\n"
    (tmp_path / "plan").write_text("Purg a [1]\nPurg b [1]\n")
    assert call(tmp_path, body, env=env).code == 0
    assert "purge a b" in (tmp_path / "done").read_text()


def test_a_purge_ends_what_still_runs_from_our_folders(tmp_path: Path) -> None:
    program = tmp_path / "opt/roost/bin/sleep"
    program.parent.mkdir(parents=True)
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([str(program), "600"]) as ours, subprocess.Popen(["sleep", "600"]) as theirs:
        try:
            done = call(tmp_path, "sweep_processes", timeout_s=200)
            assert ours.wait(timeout=10) == -signal.SIGTERM, done
            assert theirs.poll() is None
        finally:
            theirs.kill()


def test_a_purge_ends_what_a_python_of_ours_runs(tmp_path: Path) -> None:
    """Its program is the system's; what gives files to others, or receives joining machines, would outlast it."""
    python = tmp_path / "opt/roost/venvs/one/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    words = ["-c", "import time; time.sleep(600)"]
    with subprocess.Popen([str(python), *words]) as ours, subprocess.Popen([sys.executable, *words]) as theirs:
        try:
            done = call(tmp_path, "sweep_processes", timeout_s=200)
            assert ours.wait(timeout=10) == -signal.SIGTERM, done
            assert theirs.poll() is None
        finally:
            ours.kill()
            theirs.kill()


def test_a_purge_does_not_end_what_it_was_started_by(tmp_path: Path) -> None:
    python = tmp_path / "opt/roost/venvs/one/bin/python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    script = tmp_path / "script"
    script.write_text(f"{functions(tmp_path)}\nsettings\nsweep_processes\necho gone on\n")
    starts = (
        "import subprocess, sys; print(subprocess.run(['dash', sys.argv[1]], capture_output=True, text=True).stdout)"
    )
    done = subprocess.run([python, "-c", starts, script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "gone on" in done.stdout


def test_the_fleets_key_goes_and_others_stay(tmp_path: Path) -> None:
    keys = tmp_path / "root/.ssh/authorized_keys"
    keys.parent.mkdir(parents=True)
    keys.write_text('ssh-ed25519 AAAA mine\nrestrict,from="192.0.2.1" ssh-ed25519 BBBB roost-fleet\n')
    assert call(tmp_path, "sweep_access").code == 0
    assert keys.read_text() == "ssh-ed25519 AAAA mine\n"
    keys.write_text("ssh-ed25519 BBBB roost-fleet\n")
    assert call(tmp_path, "sweep_access").code == 0
    assert not keys.parent.exists()
    assert call(tmp_path, "sweep_access").code == 0


def test_sealed_secrets_need_a_passphrase(tmp_path: Path) -> None:
    secret = tmp_path / "etc/roost/tls/ca-key.pem"
    secret.parent.mkdir(parents=True)
    secret.write_text("-----BEGIN PRIVATE KEY-----\n")
    assert call(tmp_path, 'ask_passphrase; echo "<$vault_file>"').out.strip() == "<>"
    secret.write_text("$ANSIBLE_VAULT;1.1;AES256\n00\n")
    done = call(tmp_path, "ask_passphrase")
    assert done.code == 1
    assert "ROOST_VAULT_PASSPHRASE_FILE" in done.err
    body = 'ask_passphrase; "$vault_file"; stat -c %a "$vault_file"'
    given = call(tmp_path, body, env={"ROOST_VAULT_PASSPHRASE": "it's $HOME"})
    assert given.out.split("\n")[:2] == ["it's $HOME", "700"]
    named = call(tmp_path, "ask_passphrase", env={"ROOST_VAULT_PASSPHRASE_FILE": f"{tmp_path}/none"})
    assert named.code == 1
    assert "cannot be read" in named.err


def removing(
    folder: Path,
    apt: str,
    *,
    action: str = "purge",
    status: str = "installed",
    plan: str = "echo 'Purg containerd [1]'",
) -> Done:
    """Remove a Roost that brought the package containerd; `apt` is what apt-get does, `plan` what it simulates."""
    bin_dir = folder / "bin"
    (folder / "status").write_text(status)
    stub(bin_dir, "dpkg-query", f"cat {folder}/status")
    stub(bin_dir, "apt-get", f'case "$*" in *" -s "*) {plan} ;; *) {apt} ;; esac')
    body = (
        f"parse --{action} --yes; ca=; offline=; cache_dir={folder}/cache; mkdir -p $state_dir\n"
        "undo_playbook() { :; }; sweep_processes() { :; }; sweep_containers() { :; }; sweep_units() { :; }\n"
        "own package containerd; own path $state_dir; remove_roost"
    )
    env = {"PATH": f"{bin_dir}:{os.environ['PATH']}", "TMPDIR": str(folder / "kept-logs")}
    (folder / "kept-logs").mkdir(exist_ok=True)
    return call(folder, body, env=env)


@pytest.mark.parametrize("action", ["purge", "uninstall"])
@pytest.mark.parametrize("status", ["installed", "half-configured"])
def test_a_package_that_apt_cannot_purge_is_named_and_the_removal_fails(
    tmp_path: Path, action: str, status: str
) -> None:
    done = removing(tmp_path, "echo 'E: Held packages were changed' >&2; exit 100", action=action, status=status)
    assert done.code == 1, done
    assert "Roost is removed." not in done.out
    assert "package containerd" in done.err
    assert "E: Held packages were changed" in done.err
    assert "Fix: Correct what stands there (held: apt-mark showhold" in done.err
    assert f"./bootstrap.sh --{action} again" in done.err
    assert "package\tcontainerd\n" in (tmp_path / "var/lib/roost/manifest").read_text(), "the next run knows it is ours"
    again = removing(tmp_path, f"echo config-files >{tmp_path}/status", action=action, status=status)
    assert (again.code, again.err) == (0, "")
    assert "Roost is removed." in again.out
    assert (tmp_path / "var/lib/roost/manifest").exists() == (action == "uninstall")


def test_a_package_is_not_said_to_be_needed_by_others_where_apt_cannot_say_so(tmp_path: Path) -> None:
    done = removing(tmp_path, "exit 100", plan="echo 'E: dpkg was interrupted' >&2; exit 100")
    assert done.code == 1
    assert "something that is not ours needs them" not in done.out
    assert "package containerd\nE: dpkg was interrupted" in done.err
