"""The pure parts of the disposable hosts: what they compare, recognise and decide."""

from __future__ import annotations

import contextlib
import dataclasses
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.e2e.story import changes
from tests.hosts import roots
from tests.hosts.host import HOST_CACHE, PROXY_CA, ca_bundle, find_all_pids, find_pids, host_environment, wait_until
from tests.hosts.scan import answering, scan
from tests.hosts.snapshot import Snapshot, compare, parse

PRINTED = """\
== files
d\t755\troot:root\t/etc\t
f\t644\troot:root\t/etc/a file\t
l\t777\troot:root\t/etc/link\t/etc/a file
f\t644\troot:root\t/var/log/syslog\t
== sums
aa11  /etc/a file
bb22  /var/log/syslog
== users
root:0:/root:/bin/bash
== processes
/usr/sbin/cron
[kworker/0:1]
"""


def changed(snapshot: Snapshot, **files: str) -> Snapshot:
    renamed = {name.replace("_", "/"): value for name, value in files.items()}
    return dataclasses.replace(snapshot, files={**snapshot.files, **renamed})


def test_parse_reads_files_with_spaces_links_and_sums() -> None:
    seen = parse(PRINTED)
    assert seen.files["/etc/a file"] == "f 644 root:root aa11"
    assert seen.files["/etc/link"] == "l 777 root:root /etc/a file"
    assert seen.sections["users"] == {"root:0:/root:/bin/bash"}


def test_equal_snapshots_do_not_differ() -> None:
    assert not compare(parse(PRINTED), parse(PRINTED))
    assert str(compare(parse(PRINTED), parse(PRINTED))) == "no difference"


def test_logs_and_kernel_threads_do_not_count() -> None:
    other = PRINTED.replace("bb22", "cc33").replace("kworker/0:1", "kworker/1:1")
    assert not compare(parse(PRINTED), parse(other))


def test_added_removed_and_changed_are_told_apart() -> None:
    other = PRINTED.replace("aa11", "ff00").replace("/usr/sbin/cron", "/opt/ours").replace("root:0", "roost:1")
    difference = compare(parse(PRINTED), parse(other))
    assert difference.added == ("processes: /opt/ours", "users: roost:1:/root:/bin/bash")
    assert difference.removed == ("processes: /usr/sbin/cron", "users: root:0:/root:/bin/bash")
    assert difference.changed == ("file: /etc/a file: f 644 root:root aa11 -> f 644 root:root ff00",)


def test_more_can_be_ignored() -> None:
    after = changed(parse(PRINTED), _srv_new="f 644 root:root 00")
    assert compare(parse(PRINTED), after).added == ("file: /srv/new",)
    assert not compare(parse(PRINTED), after, ignore_paths=[r"^/srv/"])


LISTING = """\
      1       0 /sbin/init
    210       1 /usr/sbin/dockerd -H fd://
    305       1 /usr/local/bin/nomad agent -config /etc/roost/nomad.d
    310     305 /usr/local/bin/nomad executor {"LogFile":"..."}
    330     305 /usr/local/bin/nomad docker_logger
    340     305 /usr/local/bin/nomad agent -config /etc/roost/nomad.d
    400     390 /lib64/ld-linux-x86-64.so.2 --argv0 llama-server --library-path x /usr/bin/llama-server -m y
    401     390 /bin/sh -c exec llama-server
    420     410 /usr/bin/llama-server -m z
    490     480 /sbin/docker-init -- python3 -m roost.cli.serve
    500     490 python3 -m roost.cli.serve
    501       1 grep nomad
"""


def test_our_processes_are_recognised() -> None:
    assert find_pids(LISTING) == {"dockerd": 210, "nomad": 305, "model-server": 400, "agent": 500}
    everyone = {"dockerd": {210}, "nomad": {305}, "model-server": {400, 420}, "agent": {500}}
    assert find_all_pids(LISTING) == everyone, "340 was only just forked"
    assert find_pids("  1 0 /sbin/init\n") == {}


def test_a_root_is_known_by_all_that_makes_it() -> None:
    base = roots.SYSTEMD
    others = [
        dataclasses.replace(base, include=(*base.include, "vim")),
        dataclasses.replace(base, suite="trixie"),
        dataclasses.replace(base, finish="true"),
        dataclasses.replace(base, mirror="http://mirror.example/debian"),
    ]
    assert len({base.key, *(o.key for o in others)}) == len(others) + 1
    assert base.key == dataclasses.replace(base).key


def test_debootstrap_gets_what_the_root_says() -> None:
    plain = dataclasses.replace(roots.SYSV, mirror="")
    argv = roots.debootstrap_argv(plain, Path("/x/root"), Path("/x/debs"))
    assert "--exclude=systemd,systemd-sysv" in argv
    assert argv[-2:] == ["bookworm", "/x/root"]
    chosen = dataclasses.replace(plain, mirror="http://mirror.example/debian")
    assert roots.debootstrap_argv(chosen, Path("/x/root"), Path("/x/debs"))[-1] == "http://mirror.example/debian"


def test_a_proxy_ca_is_handed_on_only_where_there_is_one(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    assert ca_bundle({"SSL_CERT_FILE": str(bundle)}) is None
    assert host_environment({}) == {"ROOST_CACHE_DIR": HOST_CACHE}
    bundle.touch()
    given = host_environment({"SSL_CERT_FILE": str(bundle), "https_proxy": "http://proxy.example:3128", "PIP_CERT": ""})
    assert given["ROOST_EXTRA_CA_BUNDLE"] == given["PIP_CERT"] == PROXY_CA
    assert given["https_proxy"] == "http://proxy.example:3128"


def test_the_scanner_refuses_what_is_not_a_test_network() -> None:
    with pytest.raises(ValueError, match="not one of ours"):
        scan("192.0.2.1")


def test_a_scanner_that_is_kept_from_running_misses_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second is over before it is asked for the first time; the kernel has connected meanwhile."""
    clock = iter([0.0, 2.0])
    monkeypatch.setattr("tests.hosts.scan.time", SimpleNamespace(monotonic=lambda: next(clock)))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_server(("127.0.0.1", 0)) as closed:
        ports = [server.getsockname()[1], closed.getsockname()[1]]
        closed.close()
        assert answering("127.0.0.1", ports) == ports[:1]


def test_changes_are_summed() -> None:
    assert changes("✓ layout  2 s   9 changes\n✓ jobs  1 s   1 change\n✓ verify  1 s\n") == 10
    assert changes("✓ layout  2 s\n") == 0


def test_waiting_ends_with_an_error_when_nothing_comes() -> None:
    assert wait_until("at once", lambda: True, 1) < 1
    with pytest.raises(TimeoutError, match="never: not within 0 s"):
        wait_until("never", lambda: False, 0, pause_s=0)


def test_suites_side_by_side_make_a_root_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    together = threading.Barrier(2, timeout=0.2)

    def docker(*args: str) -> str:
        if args[0] == "import":
            made.append(args[-1])
        return "".join(made)

    def step(argv: list[str]) -> None:
        if argv[0] == "tar":
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait()  # only breaks where nobody else is making it
            Path(argv[argv.index("-cf") + 1]).touch()

    monkeypatch.setattr(roots, "docker", docker)
    monkeypatch.setattr(roots, "_step", step)
    with ThreadPoolExecutor(2) as both:
        images = list(both.map(lambda _: roots.ensure_image(roots.SYSTEMD, tmp_path), range(2)))
    assert images == [roots.SYSTEMD.image] * 2
    assert made == [roots.SYSTEMD.image]
