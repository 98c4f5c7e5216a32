"""The seccomp filter of the sandbox: a classic BPF program that answers EPERM to what no build or test needs.

Layout of an instruction and of what it sees: linux/filter.h (`struct sock_filter`: u16 code, u8 jt, u8 jf, u32 k) and
linux/seccomp.h (`struct seccomp_data`: nr at 0, arch at 4, arguments from 16). Numbers: the kernel's syscall tables.
"""

from __future__ import annotations

import platform
import struct
from dataclasses import dataclass

LOAD, JUMP_EQUAL, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050000 | 1, 0x80000000  # errno 1: EPERM
NUMBER_AT, ARCH_AT, SECOND_ARGUMENT_AT = 0, 4, 24
X32_BIT = 0x40000000
TIOCSTI, TIOCLINUX = 0x5412, 0x541C


@dataclass(frozen=True)
class Machine:
    """Of one architecture: AUDIT_ARCH, the number of ioctl, and of what is denied."""

    audit_arch: int
    ioctl: int
    denied: tuple[int, ...]


# ptrace, process_vm_readv, process_vm_writev, add_key, request_key, keyctl, bpf, perf_event_open, userfaultfd,
# io_uring_setup, mount, umount2, pivot_root, setns, open_by_handle_at, kexec_load, init_module, finit_module,
# delete_module, kcmp
MACHINES = {
    "x86_64": Machine(
        0xC000003E, 16,
        (101, 310, 311, 248, 249, 250, 321, 298, 323, 425, 165, 166, 155, 308, 304, 246, 175, 313, 176, 312),
    ),
    "aarch64": Machine(
        0xC00000B7, 29,
        (117, 270, 271, 217, 218, 219, 280, 241, 282, 425, 40, 39, 41, 268, 265, 104, 105, 273, 106, 272),
    ),
}  # fmt: skip


def seccomp_filter(machine: str | None = None) -> bytes | None:
    """Return the program for an architecture (this one by default); None where its numbers are not known here."""
    known = MACHINES.get(machine or platform.machine())
    if known is None:
        return None
    program = [
        (LOAD, 0, 0, ARCH_AT),
        (JUMP_EQUAL, 1, 0, known.audit_arch),
        (RETURN, 0, 0, KILL),  # another architecture's calls have other numbers
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, DENY),
    ]
    for number in known.denied:
        program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, DENY)]
    program += [
        (JUMP_EQUAL, 0, 4, known.ioctl),
        (LOAD, 0, 0, SECOND_ARGUMENT_AT),
        (JUMP_EQUAL, 1, 0, TIOCSTI),
        (JUMP_EQUAL, 0, 1, TIOCLINUX),
        (RETURN, 0, 0, DENY),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in program)
