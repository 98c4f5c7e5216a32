"""A virtual machine: a disk, a kernel, two processors, a network card whose cable ends nowhere."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts.docker import Result
from tests.hosts.host import wait_until
from tests.qemu.guest_agent import GuestAgent, GuestError

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 2048
PROCESSORS = 2
PROBE_S = 20.0
TAIL_LINES = 40
BOOT_S = 60.0
OFF_S = 60.0
# The journal of the disk is committed when a program asks for it, or after five minutes: a power cut is then as hard
# as it can be. e2scrub looks for volumes of LVM that are not there.
KERNEL_WORDS = "root=/dev/vda rw rootflags=commit=300 console=ttyS0 systemd.mask=e2scrub_reap.service"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
AGENT_LINE = "org.qemu.guest_agent.0"  # the name by which the guest's agent finds its line


@dataclass(frozen=True)
class Accelerator:
    """How the processor is had: QEMU's arguments, and how many times longer than on a real one all may take."""

    name: str
    arguments: tuple[str, ...]
    patience: float


KVM = Accelerator("kvm", ("-accel", "kvm", "-cpu", "host"), 1.0)
TCG = Accelerator("tcg", ("-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"), 10.0)


def choose_accelerator(kernel: Path, folder: Path) -> Accelerator:
    """Return KVM where a kernel gets through its start with it in seconds, else the emulator.

    That /dev/kvm opens says little: within a virtual machine it may refuse registers, or crawl.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return TCG
    console = folder / "kvm-probe.log"
    argv = [QEMU, *KVM.arguments, "-m", "512", "-nodefaults", "-no-reboot", "-display", "none"]
    argv += ["-serial", f"file:{console}", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"]
    try:
        # Without a root the kernel panics at the end of its start, and with -no-reboot that ends QEMU.
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired:
        return TCG
    through = done.returncode == 0 and "Kernel panic" in console.read_text(errors="replace")
    return KVM if through else TCG


@dataclass(frozen=True)
class Image:
    """What a machine starts from: its disk, which it changes, and the kernel with its first root beside it."""

    disk: Path
    kernel: Path
    initrd: Path


@dataclass
class Machine:
    """One machine. It is on from `power_on` until `power_off` or `cut_power`; its disk stays."""

    image: Image
    accelerator: Accelerator
    folder: Path
    boots: int = 0
    _qemu: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def console(self) -> Path:
        """What it has said on its console since it was last switched on."""
        return self.folder / f"console-{self.boots}.log"

    @property
    def _line(self) -> GuestAgent:
        return GuestAgent(self.folder / "agent.sock")

    def power_on(self) -> float:
        """Switch on and wait until systemd has started everything; return the seconds it took.

        Raises:
            TimeoutError: it did not get there.
        """
        assert self._qemu is None, "it is on"
        self.boots += 1
        argv = [QEMU, *self.accelerator.arguments, "-smp", str(PROCESSORS), "-m", str(MEMORY_MIB)]
        argv += ["-nodefaults", "-no-user-config", "-display", "none"]
        argv += ["-nic", "user,model=virtio-net-pci,restrict=on"]
        argv += ["-serial", f"file:{self.console}"]
        argv += ["-drive", f"file={self.image.disk},if=virtio,format=raw,cache=writeback,discard=unmap"]
        argv += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        argv += ["-chardev", f"socket,id=agent,path={self.folder / 'agent.sock'},server=on,wait=off"]
        argv += ["-device", f"virtserialport,chardev=agent,name={AGENT_LINE}"]
        argv += ["-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)]
        argv += ["-append", KERNEL_WORDS]
        self._qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        return self.wait_booted()

    def wait_booted(self, old_boot: str = "") -> float:
        """Wait until systemd has started everything, in another boot than `old_boot`; return the seconds it took.

        Raises:
            TimeoutError: it did not; the message has the end of what the console said.
        """
        try:
            return wait_until("the machine boots", lambda: self._booted(old_boot), BOOT_S * self.accelerator.patience)
        except TimeoutError as error:
            said = "\n".join(self.console.read_text(errors="replace").splitlines()[-TAIL_LINES:])
            raise TimeoutError(f"{error}; its console:\n{said}") from None

    def _booted(self, old_boot: str) -> bool:
        assert self._qemu is not None
        assert self._qemu.poll() is None, f"QEMU ended with {self._qemu.returncode}"
        if not self._line.ready():
            return False
        try:
            done = self._line.run(
                "cat /proc/sys/kernel/random/boot_id; systemctl is-system-running", stdin=None, timeout_s=60
            )
        except (OSError, ValueError, GuestError):  # it goes down just now
            return False
        boot, _, state = done.out.partition("\n")
        return boot != old_boot and state.strip() in {"running", "degraded"}

    def exec(self, command: str, *, check: bool = True, stdin: bytes | None = None, timeout_s: float = 120) -> Result:
        """Run a shell command as root; `timeout_s` is meant for a real processor.

        Raises:
            AssertionError: `check` is set and it exited non-zero; the message has the end of what it printed.
        """
        done = self._line.run(command, stdin=stdin, timeout_s=timeout_s * self.accelerator.patience)
        if check and done.code != 0:
            tail = "\n".join(done.text.splitlines()[-TAIL_LINES:])
            raise AssertionError(f"`{command}` exited with {done.code}:\n{tail}")
        return done

    def reboot(self) -> float:
        """Go down in order and come up again; return the seconds until all is started."""
        boot = self.exec(f"cat {BOOT_ID}").out.strip()
        with suppress(OSError, ValueError, GuestError):  # it may go down before it says that it will
            self.exec("systemctl --no-block reboot")
        return self.wait_booted(boot)

    def power_off(self) -> float:
        """Go down in order; return the seconds it took."""
        assert self._qemu is not None
        qemu = self._qemu
        with suppress(OSError, ValueError, GuestError):
            self.exec("systemctl --no-block poweroff")
        seconds = wait_until(
            "the machine goes down", lambda: qemu.poll() is not None, OFF_S * self.accelerator.patience
        )
        self._qemu = None
        return seconds

    def cut_power(self) -> None:
        """End it in the middle of what it does: what the guest had not brought to its disk is lost."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
            self._qemu = None
