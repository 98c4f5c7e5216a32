"""A disposable host: a container whose PID 1 is a real init system, on a network of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts import roots, snapshot
from tests.hosts.docker import LABEL, SUITE, DockerError, Result, call, docker

CLONE = "/root/roost"
HOST_CACHE = "/var/cache/roost"
PROXY_CA = "/usr/local/share/proxy-ca.pem"
# How programs behind an inspecting proxy are told its CA; passed on as a company's machine would have them.
CA_VARIABLES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "GOPROXY")
# The container's own cgroup and network namespaces keep two hosts apart; Docker mounts what shows them read-only, a
# machine has it writable. Where this machine does not forward packets, the hosts' Docker has to turn that on.
AS_ON_A_MACHINE = (
    "for m in /sys/fs/cgroup /sys/fs/cgroup/*/; do mount -o remount,bind,rw $m 2>/dev/null; done; "
    "mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,rw /proc/sys/net;"
)
BOOT_S = 240.0
SLOW_SHUTDOWN_S = 10.0


@dataclass(frozen=True)
class Kind:
    """What runs as PID 1, on which root; how it is asked to stop and how it says that it has started."""

    root: roots.Root
    init: str
    stop_signal: str
    ready: str


SYSTEMD = Kind(
    roots.SYSTEMD, "exec /sbin/init", "SIGRTMIN+3", "systemctl is-system-running | grep -Eq 'running|degraded'"
)
PEOPLE = Kind(roots.PEOPLE, SYSTEMD.init, SYSTEMD.stop_signal, SYSTEMD.ready)
SYSTEMD_13 = Kind(roots.SYSTEMD_13, SYSTEMD.init, SYSTEMD.stop_signal, SYSTEMD.ready)
FLEET = Kind(roots.FLEET, SYSTEMD.init, SYSTEMD.stop_signal, SYSTEMD.ready)
FLEET_13 = Kind(roots.FLEET_13, SYSTEMD.init, SYSTEMD.stop_signal, SYSTEMD.ready)
SYSV = Kind(roots.SYSV, "exec /sbin/init", "SIGINT", "runlevel | grep -q ' 2$' && ! pgrep -x rc")
# systemd is on the disk but does not run, as in most development containers.
BARE = Kind(roots.SYSTEMD, "trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done", "SIGTERM", "true")
NEIGHBOUR = Kind(roots.NEIGHBOUR, BARE.init, "SIGTERM", "true")


def wait_until(what: str, check: Callable[[], bool], timeout_s: float, *, pause_s: float = 0.25) -> float:
    """Ask `check` until it says yes; return the seconds it took.

    Raises:
        TimeoutError: it did not within `timeout_s` seconds.
    """
    start = time.monotonic()
    while not check():
        if time.monotonic() - start > timeout_s:
            raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")
        time.sleep(pause_s)
    return time.monotonic() - start


def ca_bundle(env: Mapping[str, str]) -> Path | None:
    """The CA bundle this machine was told to trust, if it was told one that exists."""
    for name in CA_VARIABLES:
        if (value := env.get(name)) and Path(value).is_file():
            return Path(value)
    return None


def host_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Environment of a disposable host on a machine with the environment `env`."""
    wanted = {name: env[name] for name in PROXY_VARIABLES if env.get(name)}
    wanted["ROOST_CACHE_DIR"] = HOST_CACHE
    if ca_bundle(env):
        wanted |= dict.fromkeys(CA_VARIABLES, PROXY_CA)
        wanted["ROOST_EXTRA_CA_BUNDLE"] = PROXY_CA
    return wanted


def node_environment(env: Mapping[str, str]) -> dict[str, str]:
    """What an inventory says of such a host's environment: a login over SSH has none of it."""
    return {name: value for name, value in host_environment(env).items() if not name.startswith("ROOST_")}


@dataclass
class Lan:
    """A network of our own. `internal` has no way out, like a cut cable behind the switch."""

    name: str
    subnet: str
    internal: bool = False

    @classmethod
    def create(cls, name: str, *, internal: bool = False) -> Lan:
        """Make the network on the first free /24 of 10.213.0.0/16.

        Raises:
            DockerError: none was free.
        """
        flags = ["--internal"] if internal else []
        for number in range(1, 255):
            subnet = f"10.213.{number}"
            with contextlib.suppress(DockerError):
                docker("network", "create", "--label", LABEL, *flags, "--subnet", f"{subnet}.0/24", name)
                return cls(name, subnet, internal)
        raise DockerError(f"No free subnet for the network {name}.")

    def address(self, number: int) -> str:
        """The address of host `number` (2 to 254)."""
        return f"{self.subnet}.{number}"

    def join(self, name: str, number: int) -> str:
        """Plug a running host into this network too; return its address here."""
        docker("network", "connect", "--ip", self.address(number), self.name, name)
        return self.address(number)

    def close(self) -> None:
        """Remove the network; its hosts must be gone."""
        docker("network", "rm", self.name)


@dataclass
class Host:
    """One host. Close it to remove the container with everything in it."""

    name: str
    kind: Kind
    lan: Lan
    address: str
    logs: Path
    runs: int = field(default=0)

    @classmethod
    def start(
        cls,
        kind: Kind,
        name: str,
        *,
        lan: Lan,
        number: int = 10,
        cache: Path,
        host_cache: Path | None = None,
        tmpfs: Mapping[str, str] | None = None,
        volumes: Mapping[Path, str] | None = None,
    ) -> Host:
        """Boot a host and wait until its init system has started everything.

        `cache` keeps roots and apt's archives on this machine; `host_cache` becomes the host's ROOST_CACHE_DIR
        (default: one shared folder below `cache`); `tmpfs` maps a path to mount options such as `size=200m`.

        Raises:
            DockerError: the container could not be made.
            TimeoutError: it did not boot within a minute.
        """
        image = roots.ensure_image(kind.root, cache)
        # apt locks its archives: suites that run side by side each have their own.
        archives = cache / "archives" / SUITE
        archives = archives.with_name(f"{archives.name}-{name}") if kind.root.ssh else archives
        shared = host_cache or cache / "host"
        mounts = {archives: "/var/cache/apt/archives", shared: HOST_CACHE, **(volumes or {})}
        for folder in mounts:
            (folder / "partial" if folder == archives else folder).mkdir(parents=True, exist_ok=True)
        argv = ["run", "--detach", "--name", name, "--hostname", name, "--label", LABEL]
        argv += ["--network", lan.name, "--ip", lan.address(number), "--stop-signal", kind.stop_signal]
        argv += ["--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "SYS_BOOT", "--cgroupns", "private"]
        argv += ["--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"]
        argv += ["--tmpfs", "/run", "--volume", "/var/lib/docker"]
        for path, options in (tmpfs or {}).items():
            argv += ["--tmpfs", f"{path}:{options}"]
        for folder, where in mounts.items():
            argv += ["--volume", f"{folder}:{where}"]
        for key, value in host_environment(os.environ).items():
            argv += ["--env", f"{key}={value}"]
        if bundle := ca_bundle(os.environ):
            argv += ["--volume", f"{bundle.resolve()}:{PROXY_CA}:ro"]
        docker(*argv, image, "/bin/sh", "-c", f"{AS_ON_A_MACHINE} {kind.init}")
        host = cls(name, kind, lan, lan.address(number), logs_folder(cache))
        host.wait_booted()
        return host

    def wait_booted(self) -> float:
        """Wait until the init system has started everything; return the seconds it took."""
        return wait_until(f"{self.name} boots", lambda: self.exec(self.kind.ready, check=False).code == 0, BOOT_S)

    def exec(self, command: str, *, check: bool = True, stdin: bytes | None = None, timeout_s: float = 600) -> Result:
        """Run a shell command as root on the host.

        Raises:
            AssertionError: `check` is set and it exited non-zero; the message has the end of what it printed.
        """
        begin = time.monotonic()
        flags = ["--interactive"] if stdin is not None else []
        done = call(["docker", "exec", *flags, self.name, "sh", "-c", command], stdin=stdin, timeout_s=timeout_s)
        result = Result(done.code, done.out, done.err, time.monotonic() - begin)
        if check and result.code != 0:
            tail = "\n".join(result.text.splitlines()[-40:])
            raise AssertionError(f"{self.name}: `{command}` exited with {result.code}:\n{tail}")
        return result

    def spawn(self, command: str) -> None:
        """Start a shell command on the host and leave it running."""
        docker("exec", "--detach", self.name, "sh", "-c", command)

    def occupy(self, port: int, address: str = "127.0.0.1") -> None:
        """Let a stranger listen on a port until `pkill perl`. Perl is in every Debian; Python is not."""
        options = f"LocalAddr => q({address}), LocalPort => {port}, Listen => 5, ReuseAddr => 1"
        program = f"my $s = IO::Socket::INET->new({options}) or die; while (my $c = $s->accept) {{ close $c }}"
        self.spawn(f"exec perl -MIO::Socket::INET -e '{program}'")
        wait_until("the stranger listens", lambda: f":{port} " in self.exec("ss -Hltn").out, 20)

    def write(self, path: str, content: str) -> None:
        """Write a file on the host."""
        self.exec(f"cat > {shlex.quote(path)}", stdin=content.encode())

    def copy_clone(self, repository: Path) -> None:
        """Put the working tree (tracked, and untracked but not ignored) at /root/roost."""
        listed = call(["git", "-C", str(repository), "ls-files", "-co", "--exclude-standard", "--deduplicate", "-z"])
        names = [n for n in listed.out.split("\0") if n and (repository / n).exists()]
        packed = call_bytes(
            ["tar", "-C", str(repository), "--null", "--no-recursion", "-T", "-", "-c"], "\0".join(names)
        )
        docker("exec", "--interactive", self.name, "mkdir", "-p", CLONE)
        docker("exec", "--interactive", self.name, "tar", "-C", CLONE, "--no-same-owner", "-x", stdin=packed)

    def bootstrap(self, *args: str, check: bool = True, timeout_s: float = 900) -> Result:
        """Run `./bootstrap.sh ARGS` in the clone; its output is kept in the log folder."""
        self.runs += 1
        command = f"cd {CLONE} && ./bootstrap.sh {shlex.join(args)}"
        result = self.exec(command, check=False, timeout_s=timeout_s)
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{self.name}-{self.runs:02}.log"
        log.write_text(f"$ {command}\n{result.text}\nexit code {result.code}, {result.seconds:.1f} s\n")
        if check and result.code != 0:
            tail = "\n".join(result.text.splitlines()[-60:])
            raise AssertionError(f"{self.name}: bootstrap.sh exited with {result.code} (log: {log}):\n{tail}")
        return result

    def pids(self) -> dict[str, int]:
        """PIDs of what must not restart by itself: nomad, dockerd, model server, agent; absent ones are left out."""
        return find_pids(self.exec("ps -eo pid,ppid,args --no-headers").out)

    def all_pids(self) -> dict[str, set[int]]:
        """As `pids`, each process: of several model servers none may restart by itself."""
        return find_all_pids(self.exec("ps -eo pid,ppid,args --no-headers").out)

    def snapshot(self) -> snapshot.Snapshot:
        """Everything on the host that a test compares."""
        return snapshot.parse(self.exec(snapshot.COLLECT).out)

    def reboot(self) -> None:
        """Shut down in order and boot again; waits until it is up.

        What keeps it from shutting down for long is written into the log folder: its own journal ends with it.
        """
        down = threading.Event()
        watch = threading.Thread(target=self._note_slow_shutdown, args=(down,))
        watch.start()
        try:
            docker("restart", "--time", "60", self.name)
        finally:
            down.set()
            watch.join()
        self.wait_booted()

    def _note_slow_shutdown(self, down: threading.Event) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        while not down.wait(SLOW_SHUTDOWN_S):
            said = call(["docker", "top", self.name, "-eo", "pid,ppid,stat,etimes,wchan:24,args"]).text
            jobs = ""
            with contextlib.suppress(subprocess.TimeoutExpired):
                jobs = self.exec("systemctl list-jobs; journalctl --no-pager -n 60", check=False, timeout_s=20).text
            with (self.logs / f"{self.name}-shutdown.txt").open("a") as file:
                file.write(f"{said}\n{jobs}\n")

    def collect(self) -> None:
        """Copy what explains a failure into the log folder."""
        folder = self.logs / self.name
        folder.mkdir(parents=True, exist_ok=True)
        call(["docker", "cp", f"{self.name}:/var/log/roost", str(folder)])
        for name, command in {
            "processes": "ps -efww",
            "doctor": "roost doctor",
            "status": "roost status --json",
            "nomad": "journalctl --no-pager -n 400 2>/dev/null; tail -n 400 /var/log/roost/*nomad* 2>/dev/null",
        }.items():
            with contextlib.suppress(Exception):
                (folder / f"{name}.txt").write_text(self.exec(command, check=False, timeout_s=30).text)

    def close(self) -> None:
        """Remove the host and everything on it."""
        docker("rm", "--force", "--volumes", self.name)


def call_bytes(argv: list[str], stdin: str) -> bytes:
    """Run a program and return its output as bytes.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    return subprocess.run(argv, input=stdin.encode(), capture_output=True, check=True).stdout


def logs_folder(cache: Path) -> Path:
    """Where this run keeps its logs: $ROOST_TEST_LOGS, else below the cache folder."""
    return Path(os.environ.get("ROOST_TEST_LOGS", str(cache / "logs" / "last")))


def find_pids(listing: str) -> dict[str, int]:
    """Pick our processes out of `ps -eo pid,ppid,args`; where several match, the oldest (lowest PID) counts."""
    return {name: min(pids) for name, pids in find_all_pids(listing).items()}


def find_all_pids(listing: str) -> dict[str, set[int]]:
    """Pick all our processes out of `ps -eo pid,ppid,args`, by kind.

    A child that has its parent's words has only just been forked, and is something else in a moment.
    """
    marks: dict[str, Callable[[str], bool]] = {
        "nomad": lambda a: a.split()[0].endswith("nomad") and " agent" in a,
        "dockerd": lambda a: a.split()[0].endswith("dockerd"),
        "model-server": lambda a: "llama-server" in a or "llama_cpp_python_server" in a,
        "agent": lambda a: "-m roost.cli.serve" in a or "-m roost serve" in a,
    }
    found: dict[str, dict[int, int]] = {}
    for line in listing.splitlines():
        number, parent, args = (*line.split(maxsplit=2), "", "", "")[:3]
        # What starts a task (Nomad's executor, a shell, the container's init) carries its words in its own.
        if not args or "executor" in args or args.startswith(("sh -c", "/bin/sh", "/sbin/docker-init")):
            continue
        for name, matches in marks.items():
            if matches(args):
                found.setdefault(name, {})[int(number)] = int(parent)
    return {name: {pid for pid, of in pids.items() if of not in pids} for name, pids in found.items()}


@contextlib.contextmanager
def lan(name: str, *, internal: bool = False) -> Iterator[Lan]:
    """A network for the length of a `with` block."""
    made = Lan.create(name, internal=internal)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def running(host: Host) -> Iterator[Host]:
    """Close a host at the end of a `with` block, after collecting what explains a failure."""
    try:
        yield host
    finally:
        host.collect()
        host.close()
