"""Scripted escapes from the sandbox and the file tools. Each names the guard that holds it; each passes without it.

A row that did not pass without its guards would prove nothing, so every script runs twice.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from roost.agent.sandbox.guards import Guard, Limits
from roost.agent.sandbox.parent import Bubblewrap, Ran

TOKEN = "CANARY-7f3a"
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
USER = 8364 + WORKER if os.geteuid() == 0 else None  # limits of processes count all of a user
SHELL = "/bin/sh"
STAYS = f"sleep 31.{os.getpid():08d}"  # nobody else's
G = Guard
Check = Callable[["Scene", Ran], bool]

pytestmark = pytest.mark.skipif(bool(Bubblewrap().missing()), reason="bubblewrap is not on this machine")


@dataclass
class Scene:
    """A workspace, what lies outside it, servers of the machine, a process of the same user."""

    base: Path
    port: int
    udp: socket.socket
    victim: subprocess.Popen[bytes]
    shared: int

    @property
    def root(self) -> Path:
        return self.base / "ws"

    @property
    def outside(self) -> Path:
        return self.base / "outside"


def says(_scene: Scene, ran: Ran) -> bool:
    return TOKEN.encode() in ran.output


def wrote(scene: Scene, _ran: Ran) -> bool:
    return (scene.outside / "pwned").exists()


def inside_has(name: str) -> Check:
    return lambda scene, _ran: (scene.root / name).exists()


def holds(name: str, text: str) -> Check:
    return lambda scene, _ran: (scene.root / name).is_file() and text in (scene.root / name).read_text()


def reached(_scene: Scene, ran: Ran) -> bool:
    return b"REACHED" in ran.output


@dataclass(frozen=True)
class Escape:
    """A script (format: base, out, port, pid, shm), the guards that hold it, and how to see that it got out."""

    name: str
    guards: frozenset[Guard]
    script: str
    passed: Check = says
    limits: Limits = field(default_factory=lambda: Limits(seconds=15))
    python: bool = False


def row(name: str, guards: str, script: str, passed: Check = says, *, python: bool = False, **limits: float) -> Escape:
    chosen = replace(Limits(seconds=15), **limits)  # type: ignore[arg-type]  # numbers by name
    return Escape(name, frozenset(Guard(g) for g in guards.split()), script, passed, chosen, python)


def system_call(number: str, arguments: str) -> str:
    """A script that says REACHED unless a filter answered EPERM."""
    return (
        "import ctypes, platform\n"
        "c = ctypes.CDLL(None, use_errno=True)\n"
        f"x, a = {number}\n"
        f"r = c.syscall(x if platform.machine() == 'x86_64' else a, {arguments})\n"
        "print('REACHED' if r >= 0 or ctypes.get_errno() != 1 else 'EPERM')"
    )


ESCAPES = (
    row("read by absolute path", "files", "cat {out}/secret"),
    row("write by absolute path", "files", "echo x > {out}/pwned", wrote),
    row("symbolic link to a file", "files", "ln -s {out}/secret l; cat l"),
    row("symbolic link to a folder", "files", "ln -s {out} d; echo x > d/pwned", wrote),
    row("/proc/self/root", "files", "cat /proc/self/root{out}/secret"),
    row("/proc/1/root", "files", "cat /proc/1/root{out}/secret"),
    row("/proc/self/cwd", "files", "cat /proc/self/cwd/../outside/secret"),
    row("dot-dot", "files", "cat ../outside/secret"),
    row("hard link", "files", "ln {out}/secret h && cat h"),
    row("archive with absolute names", "files", "tar -xPf absolute.tar", wrote),
    row("archive with dot-dot", "files", "tar -xPf dots.tar", wrote),
    row("archive through a link", "files", "ln -s {out} pwn; mkdir x; tar -C x -xPf through.tar; "
        "tar --keep-directory-symlink -xPf through.tar", wrote),
    row("ld-linux on a file that is not executable", "files",
        "for l in /lib64/ld-linux-*.so.* /lib/ld-linux-*.so.*; do $l {out}/cat {out}/secret; done"),
    row("script outside run by an interpreter", "files", "sh {out}/script"),
    row("docker's socket", "files", "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('{out}/docker.sock')\nprint(s.recv(99).decode())", python=True),
    row("file with accounts", "files", "grep -q root: /etc/passwd && echo " + TOKEN),
    row("find", "files", "find {base} -name secret -exec cat {{}} +"),
    row("move out", "files", "echo x > f; mv f {out}/pwned", wrote),
    row("git writes elsewhere", "files", "echo a > a; echo b > b; git diff --no-index --output={out}/pwned a b", wrote),
    row("mode of a file outside", "files", "chmod 0600 {out}/secret",
        lambda s, _: (s.outside / "secret").stat().st_mode & 0o077 == 0),
    row("remove a file outside", "files", "rm -f {out}/victim", lambda s, _: not (s.outside / "victim").exists()),
    row("git hook", "protected", "mkdir -p .git/hooks; echo x > .git/hooks/post-commit",
        inside_has(".git/hooks/post-commit")),
    row("git settings", "protected", "printf '[core]\\n fsmonitor = pwned\\n' >> .git/config",
        holds(".git/config", "pwned")),
    row("another .git in its place", "protected", "mv .git x; mkdir .git; echo pwned > .git/config",
        holds(".git/config", "pwned")),
    row("git's commondir", "protected", "echo ../x > .git/commondir", inside_has(".git/commondir")),
    row("hook of a repository below", "protected", "echo x > sub/.git/hooks/pre-push",
        inside_has("sub/.git/hooks/pre-push")),
    row("read our own folder", "protected", "cat .roost/policy"),
    row("write our own folder", "protected", "echo pwned > .roost/policy", holds(".roost/policy", "pwned")),
    row("loopback", "network", "exec 3<>/dev/tcp/127.0.0.1/{port}; head -n1 <&3"),
    row("another loopback address", "network", "exec 3<>/dev/tcp/127.0.0.2/{port}; head -n1 <&3"),
    row("abstract socket", "network", "import socket\ns = socket.socket(socket.AF_UNIX)\n"
        "s.connect('\\0roost-escape-{port}')\nprint(s.recv(99).decode())", python=True),
    row("a question to a name server", "network", "echo " + TOKEN + ".example > /dev/udp/127.0.0.1/{port}",
        lambda s, _: datagram(s.udp)),
    row("kill the parent", "processes", "kill -9 {pid}", lambda s, _: died(s.victim)),
    row("environment of another process", "", "tr '\\0' '\\n' < /proc/{pid}/environ"),
    row("root of another process", "", "cat /proc/{pid}/root{out}/secret"),
    row("descriptor of another process", "", "cat /proc/{pid}/fd/0"),
    row("command lines of the machine", "processes", "tr '\\0' '\\n' < /proc/{pid}/cmdline"),
    row("shared memory", "processes", "import ctypes\nc = ctypes.CDLL(None)\nc.shmat.restype = ctypes.c_void_p\n"
        "p = c.shmat({shm}, None, 0o10000)\nprint(ctypes.string_at(p, 11).decode() if p != 2**64 - 1 else '')",
        python=True),
    row("a process that stays", "processes", f"setsid {STAYS} > /dev/null 2>&1 &", lambda _scene, _ran: stayed()),
    row("trace another process", "syscalls", system_call("101, 117", "0, 0, 0, 0"), reached, python=True),
    row("keyring", "syscalls", system_call("250, 219", "0, -4, 1, 0, 0"), reached, python=True),
    row("io_uring", "syscalls", system_call("425, 425", "1, 0"), reached, python=True),
    row("userfaultfd", "syscalls", system_call("323, 282", "-1"), reached, python=True),
    row("type into a terminal", "syscalls", system_call("16, 29", "1, 0x5412, b'x'"), reached, python=True),
    row("mount", "", "mount -t tmpfs x /tmp && echo " + TOKEN),
    row("uncover our own folder", "", "umount .roost; cat .roost/policy"),
    row("make .git writable again", "",
        "mount -o remount,bind,rw .git; echo x > .git/pwned", inside_has(".git/pwned")),
    row("nested user namespace", "nesting", "unshare --user --map-root-user echo " + TOKEN),
    row("key in the environment", "environment", "printenv ROOST_API_KEY"),
    row("environment of the first process", "environment", "cat /proc/1/environ"),
    row("LD_PRELOAD", "environment", "/bin/true"),
    row("BASH_ENV", "environment", "bash -c true"),
    row("inherited file", "descriptors", "cat <&{fd}"),
    row("inherited folder", "descriptors", "cat /proc/self/fd/{dirfd}/secret"),
    row("inherited socket", "descriptors", "head -c 11 <&{sockfd}"),
    row("standard input", "descriptors", "cat"),
    # They outlive the run: a shell tries a fork again for some seconds, and would go on as soon as one of them ends.
    row("fork bomb", "limits", "for i in $(seq 60); do sleep 60 >/dev/null 2>&1 & done; echo " + TOKEN, processes=20,
        seconds=12),
    row("one large file", "limits", "head -c 3000000 /dev/zero > big; test $(wc -c < big) -gt 2000000 && echo " + TOKEN,
        file_bytes=1 << 20),
    row("open files", "limits", "fs = [open('/dev/null') for _ in range(200)]\nprint('" + TOKEN + "')", python=True,
        open_files=64),
    row("address space", "limits", "import mmap\nmmap.mmap(-1, 2 << 30)\nprint('" + TOKEN + "')", python=True,
        address_bytes=1 << 30),
    row("time", "watch", "sleep 6; echo " + TOKEN, seconds=0.7),
    row("output", "watch", "yes | head -c 8000000; sleep 1; touch finished", inside_has("finished"),
        output_bytes=100_000),
    row("memory", "watch", "import time\nx = b'x' * (200 << 20)\ntime.sleep(6)\nprint('" + TOKEN + "')", python=True,
        memory_bytes=64 << 20),
)  # fmt: skip


def datagram(udp: socket.socket) -> bool:
    try:
        return TOKEN.encode() in udp.recv(99)
    except TimeoutError:
        return False


def died(victim: subprocess.Popen[bytes]) -> bool:
    with suppress(subprocess.TimeoutExpired):
        victim.wait(3)
    return victim.returncode is not None


def staying() -> list[int]:
    found = subprocess.run(["pgrep", "-f", STAYS], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def stayed() -> bool:
    end = time.monotonic() + 5
    while (pids := staying()) and time.monotonic() < end:  # what was killed may take a moment to be gone
        time.sleep(0.1)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    return bool(pids)


def serve(listener: socket.socket) -> None:
    """Answer each who connects with the token, until the socket is closed."""
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        with client, suppress(OSError):
            client.sendall(f"{TOKEN}\n".encode())


def archive(path: Path, name: str) -> None:
    import io
    import tarfile

    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 1
        tar.addfile(info, io.BytesIO(b"x"))


@pytest.fixture
def scene() -> Iterator[Scene]:
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="roost-escape-"))
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        outside, root = base / "outside", base / "ws"
        for folder in (outside, root, root / ".git/hooks", root / ".roost", root / "sub/.git/hooks"):
            folder.mkdir(parents=True)
        for name in ("secret", "victim"):
            (outside / name).write_text(f"{TOKEN}\n")
        (outside / "script").write_text(f"echo {TOKEN}\n")
        shutil.copyfile("/bin/cat", outside / "cat")
        (root / ".git/config").write_text("[core]\n")
        (root / ".roost/policy").write_text(TOKEN)
        (root / "evil.sh").write_text(f"echo {TOKEN}\n")
        archive(root / "absolute.tar", f"{outside}/pwned")
        archive(root / "dots.tar", "../outside/pwned")
        archive(root / "through.tar", "pwn/pwned")
        tcp, udp = one_port(stack)
        port = int(tcp.getsockname()[1])
        udp.settimeout(0.5)
        named, abstract = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        named.bind(str(outside / "docker.sock"))
        abstract.bind(f"\0roost-escape-{port}")
        for listener in (tcp, named, abstract):
            listener.listen()
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
        for path in (base, *base.rglob("*")):
            os.chown(path, USER or -1, -1)
        for path in (base, outside, root):
            path.chmod(0o755)
        with (outside / "secret").open() as secret:
            victim = subprocess.Popen(
                ["/bin/bash", "-c", f"exec -a {TOKEN} sleep 120"],
                stdin=secret,
                user=USER,
                env={"KEY": TOKEN, "PATH": os.environ["PATH"]},
            )
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        shared = shared_memory(stack)
        yield Scene(base, port, udp, victim, shared)


def one_port(stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Return a TCP socket and a UDP one at the same port, which is free for both."""
    while True:
        with ExitStack() as tried:
            tcp = tried.enter_context(socket.socket())
            udp = tried.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp.bind(("", 0))
            try:
                udp.bind(("127.0.0.1", tcp.getsockname()[1]))
            except OSError:  # somebody has that one
                continue
            stack.push(tried.pop_all())
            return tcp, udp


def shared_memory(stack: ExitStack) -> int:
    """Make a System V segment with the token that all may read; return its number."""
    libc = ctypes.CDLL(None)
    libc.shmat.restype = ctypes.c_void_p
    number = int(libc.shmget(0, 4096, 0o1666))
    stack.callback(libc.shmctl, number, 0, None)
    ctypes.memmove(libc.shmat(number, None, 0), TOKEN.encode(), len(TOKEN))
    return number


async def attempt(escape: Escape, scene: Scene, without: frozenset[Guard]) -> bool:
    """Run an escape; say whether it got out."""
    with ExitStack() as stack:
        secret = os.open(scene.outside / "secret", os.O_RDONLY)
        folder = os.open(scene.outside, os.O_RDONLY | os.O_DIRECTORY)
        ours, theirs = socket.socketpair()
        ours.sendall(TOKEN.encode())
        stack.enter_context(ours)
        stack.enter_context(theirs)
        for handle in (secret, folder):
            stack.callback(os.close, handle)
            os.set_inheritable(handle, True)
        theirs.set_inheritable(True)
        reading, writing = os.pipe()
        os.write(writing, TOKEN.encode())
        os.close(writing)
        stack.callback(os.close, reading)
        names = {
            "base": scene.base, "out": scene.outside, "port": scene.port, "pid": scene.victim.pid, "shm": scene.shared,
            "fd": secret, "dirfd": folder, "sockfd": theirs.fileno(),
        }  # fmt: skip
        script = escape.script.format(**names)
        program = ["python3", "-c", script] if escape.python else ["/bin/bash", "-c", script]
        environment = {"ROOST_API_KEY": TOKEN, "LD_PRELOAD": f"/{TOKEN}.so", "BASH_ENV": "evil.sh"}
        if escape.name == "BASH_ENV":
            program = [SHELL, "-c", script]
        box = Bubblewrap(
            without=without, user=USER, environment=environment, descriptors=(secret, folder, theirs.fileno()),
            standard_input=reading,
        )  # fmt: skip
        ran = await box.run(program, scene.root, escape.limits, kept=(".git", "sub/.git"), hidden=(".roost",))
        sys.stderr.write(f"{escape.name} without {sorted(without)}: {ran}\n")  # shown where a row fails
        return escape.passed(scene, ran)


@pytest.mark.parametrize("escape", ESCAPES, ids=lambda escape: escape.name)
async def test_it_is_held(escape: Escape, scene: Scene) -> None:
    assert not await attempt(escape, scene, frozenset())


SHOWN = [escape for escape in ESCAPES if escape.guards]
# The others are held by the user namespace itself, without which there is no sandbox to take guards from.


@pytest.mark.parametrize("escape", SHOWN, ids=lambda escape: escape.name)
async def test_without_its_guard_it_gets_out(escape: Escape, scene: Scene) -> None:
    assert await attempt(escape, scene, escape.guards)


def test_there_are_fifty() -> None:
    assert len({escape.name for escape in ESCAPES}) == len(ESCAPES)
    assert len(SHOWN) >= 50
    assert {guard for escape in ESCAPES for guard in escape.guards} >= set(Guard) - {Guard.SESSION, Guard.CAPABILITIES}
