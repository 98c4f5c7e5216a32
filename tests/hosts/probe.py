"""A container on a disposable host that answers on published ports, and a stranger's look at the host's ports.

No image hub is needed: the image is the host's own Perl with what it links.
"""

from __future__ import annotations

from testinfra.host import Host

NAME = "roost-probe"
PERL = "$(ldd /usr/bin/perl | grep -o '/[^ ]*') /usr/bin/perl /usr/lib/*/perl-base"
# As a container's first process it gets no signal that it does not handle, and a shutdown would wait for it.
LISTEN = (
    "$SIG{TERM} = sub { exit }; "
    "my $s = IO::Socket::INET->new(LocalPort => 80, Listen => 5, ReuseAddr => 1) or die; 1 while $s->accept"
)


def publish(host: Host, *ports: int) -> None:
    """Have a container answer on these ports of the host, if it does not yet."""
    if host.run(f"docker inspect {NAME}").rc == 0:
        return
    host.check_output(f"tar -chP {PERL} | docker import - {NAME}")
    published = " ".join(f"--publish {port}:80" for port in ports)
    host.check_output(
        f"docker run --detach --restart always --name {NAME} {published} {NAME} perl -MIO::Socket::INET -e '{LISTEN}'"
    )


def listening(host: Host) -> set[int]:
    """Return the TCP ports at which anything on a host listens, at whatever address; Docker's published ones too."""
    lines = host.check_output("ss -Hltn").splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


def open_ports(stranger: Host, host: Host, address: str) -> set[int]:
    """Return those TCP ports of a host that answer a stranger; where nothing listens nothing can answer.

    (The end-to-end tests try all 65,535.)
    """
    program = f"""
import socket, sys
from concurrent.futures import ThreadPoolExecutor

def answers(port):
    try:
        socket.create_connection(("{address}", port), timeout=2).close()
    except OSError:
        return False
    return True

ports = list(map(int, sys.argv[1:]))
with ThreadPoolExecutor(64) as pool:
    print(*(port for port, answer in zip(ports, pool.map(answers, ports)) if answer))
"""
    ports = " ".join(map(str, sorted(listening(host))))
    return set(map(int, stranger.check_output(f"python3 - {ports} <<'EOF'{program}EOF").split()))


def listen(host: Host, port: int) -> None:
    """Have a program listen on a port of the host, for IPv4 and IPv6, until the host goes or `end`."""
    program = (
        "import socket, time; s = socket.create_server(('::', %d), family=socket.AF_INET6, dualstack_ipv6=True); "
        "time.sleep(1e6)"
    )
    there = f"ss -Hltn | grep -q ':{port} '"
    if host.run(there).rc != 0:
        begin = f'setsid python3 -c "{program % port}" >/dev/null 2>&1 </dev/null &'
        host.check_output(f"{begin} for i in $(seq 150); do {there} && exit; sleep 0.2; done; exit 1")


def end(host: Host, port: int) -> None:
    """End what `listen` began."""
    host.run(f"kill $(ss -Hltnp 'sport = :{port}' | grep -o 'pid=[0-9]*' | cut -d= -f2)")


def answers(stranger: Host, address: str, port: int) -> bool:
    """Whether a port answers a stranger; an IPv6 address may name the interface (fe80::1%eth0)."""
    program = f"import socket; socket.create_connection(('{address}', {port}), timeout=2)"
    return bool(stranger.run(f'python3 -c "{program}"').rc == 0)


def link_local(host: Host) -> str:
    """Return a host's IPv6 address on its first link, which it makes if IPv6 was off there."""
    host.check_output("sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0")
    found = "ip -6 -o addr show dev eth0 scope link -tentative | grep -o 'fe80[^/]*'"
    return str(host.check_output(f"for i in $(seq 50); do {found} && exit; sleep 0.2; done; exit 1").splitlines()[0])
