"""The sandbox's guards by name, and its limits. A test takes a guard away to see what it held; nothing else can."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Guard(StrEnum):
    """What keeps a program in."""

    FILES = "files"
    """Only the workspace and the system's programs are there; the latter read-only."""
    PROTECTED = "protected"
    """`.git` is read-only, `.roost` is empty, at any depth; a new `.git` is renamed after the call."""
    NETWORK = "network"
    """A network namespace with nothing but its own loopback."""
    PROCESSES = "processes"
    """Process, IPC and host name namespaces with a /proc of their own; all ends with the call."""
    SESSION = "session"
    """A terminal session of its own, and no terminal."""
    CAPABILITIES = "capabilities"
    """No capability, and none to be had from a program's mode bits."""
    NESTING = "nesting"
    """No user namespace below this one."""
    SYSCALLS = "syscalls"
    """No keyring, no tracing, no BPF, no mounts, no typing into a terminal."""
    ENVIRONMENT = "environment"
    """Only a few variables with fixed values."""
    DESCRIPTORS = "descriptors"
    """No open file but standard output and error; input is closed."""
    LIMITS = "limits"
    """Processes, file size, open files, address space."""
    WATCH = "watch"
    """The parent ends it for time, memory, disk, output."""


@dataclass(frozen=True)
class Limits:
    """What a call may use. `memory_bytes` and `disk_bytes` of all its processes together; `temporary_bytes` of /tmp."""

    processes: int = 128
    open_files: int = 1024
    file_bytes: int = 256 << 20
    address_bytes: int = 8 << 30
    memory_bytes: int = 2 << 30
    disk_bytes: int = 2 << 30
    temporary_bytes: int = 256 << 20
    output_bytes: int = 4 << 20
    seconds: float = 60.0
