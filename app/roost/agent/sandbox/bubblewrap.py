"""The command line of bubblewrap for a program in a workspace: plain data in, words out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from roost.agent.sandbox.guards import Guard, Limits

WORKSPACE = "/workspace"
TEMPORARY = "/tmp"  # noqa: S108 — the sandbox's own, empty and bounded
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
ENVIRONMENT = {"PATH": PATH, "HOME": TEMPORARY, "LANG": "C.UTF-8", "TERM": "dumb", "GIT_TERMINAL_PROMPT": "0"}
SYSTEM = ("/usr", "/opt/roost/tools")
LINKED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/ssl/certs", "/etc/ca-certificates")
NAMES = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf")
"""What a program needs to find machines by their names, where it may reach a network at all."""
NOTHING: frozenset[Guard] = frozenset()


@dataclass(frozen=True)
class Inside:
    """What is put into a sandbox. `kept` and `hidden`: paths in the workspace that are read-only, or empty.

    `read` are more paths of the machine, read-only; with `closed` the workspace is that, too. With `network` the
    machine's network is there.
    """

    root: Path
    kept: Sequence[str] = ()
    hidden: Sequence[str] = ()
    links: dict[str, str] = field(default_factory=dict)  # /bin -> usr/bin, as on the machine
    folders: Sequence[str] = ()  # of LINKED, those that are folders of their own
    read: Sequence[str] = ()
    closed: bool = False
    network: bool = False


def system_of(root: Path, kept: Sequence[str], hidden: Sequence[str]) -> Inside:
    """Return what this machine's sandbox has: its /bin and /lib are links to /usr, or folders."""
    links, folders = {}, []
    for name in LINKED:
        path = Path(name)
        if path.is_symlink():
            links[name] = str(path.readlink())
        elif path.is_dir():
            folders.append(name)
    return Inside(root, kept, hidden, links, folders)


def command_line(
    program: Sequence[str],
    inside: Inside,
    limits: Limits,
    *,
    seccomp_fd: int | None,
    without: Collection[Guard] = NOTHING,
) -> list[str]:
    """Return the words that start `program` in the sandbox.

    `without`: guards that are left out. For tests; and the environment's, where a parent gives a closed one itself.
    """
    words: list[str] = []
    if Guard.LIMITS not in without:
        words += [
            "prlimit", f"--nproc={limits.processes}", f"--fsize={limits.file_bytes}", f"--nofile={limits.open_files}",
            f"--as={limits.address_bytes}", "--core=0", "--",
        ]  # fmt: skip
    words += ["bwrap", "--die-with-parent", "--unshare-user"]
    if Guard.PROCESSES not in without:
        words += ["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "sandbox"]
    if Guard.NETWORK not in without and not inside.network:
        words += ["--unshare-net"]
    if Guard.SESSION not in without:
        words += ["--new-session"]
    if Guard.NESTING not in without and Guard.PROCESSES not in without:
        words += ["--disable-userns"]
    if Guard.CAPABILITIES not in without:
        words += ["--cap-drop", "ALL"]
    else:
        words += ["--cap-add", "ALL"]
    words += _files(inside, limits, without)
    if Guard.ENVIRONMENT not in without:
        words += ["--clearenv"]
        for name, value in ENVIRONMENT.items():
            words += ["--setenv", name, value]
    if seccomp_fd is not None and Guard.SYSCALLS not in without:
        words += ["--seccomp", str(seccomp_fd)]
    return [*words, "--chdir", WORKSPACE if Guard.FILES not in without else str(inside.root), "--", *program]


def _files(inside: Inside, limits: Limits, without: Collection[Guard]) -> list[str]:
    if Guard.FILES in without:
        words = ["--bind", "/", "/", *_proc(without), "--dev", "/dev"]
        return [*words, *_protected(inside, str(inside.root), without)]
    words = []
    for path in SYSTEM:
        words += ["--ro-bind-try", path, path]
    for name, target in inside.links.items():
        words += ["--symlink", target, name]
    for name in inside.folders:
        words += ["--ro-bind", name, name]
    for path in SETTINGS:
        words += ["--ro-bind-try", path, path]
    words += _proc(without)
    words += ["--dev", "/dev", "--size", str(limits.temporary_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]  # noqa: S108
    words += ["--size", str(limits.temporary_bytes), "--tmpfs", TEMPORARY]
    for path in (*(NAMES if inside.network else ()), *inside.read):
        words += ["--ro-bind-try", path, path]
    words += ["--ro-bind" if inside.closed else "--bind", str(inside.root), WORKSPACE]
    return [*words, *_protected(inside, WORKSPACE, without), "--remount-ro", "/"]


def _proc(without: Collection[Guard]) -> list[str]:
    return ["--proc", "/proc"] if Guard.PROCESSES not in without else ["--ro-bind", "/proc", "/proc"]


def _protected(inside: Inside, top: str, without: Collection[Guard]) -> list[str]:
    if Guard.PROTECTED in without:
        return []
    words: list[str] = []
    for path in inside.kept:
        words += ["--ro-bind", f"{inside.root}/{path}", f"{top}/{path}"]
    for path in inside.hidden:
        words += ["--tmpfs", f"{top}/{path}", "--remount-ro", f"{top}/{path}"]
    return words
