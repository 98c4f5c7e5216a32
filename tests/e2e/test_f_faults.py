"""What can go wrong on the way: a clear message, an exit code, nothing half done, and the next run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e import story
from tests.e2e.story import Site
from tests.hosts import host as hosts
from tests.hosts.host import CLONE, Host, lan, wait_until
from tests.hosts.snapshot import compare

Measure = Callable[[str, float], None]
INTERRUPTED = 130
OURS = "/etc/roost /opt/roost/current /var/lib/roost/nomad /var/lib/roost/models /usr/local/bin/roost /etc/init.d/nomad"


def nothing_half_done(host: Host) -> None:
    """No service, process, job, secret or user of ours is there."""
    assert host.pids() == {}
    assert host.exec(f"ls -d {OURS} 2>/dev/null", check=False).out == ""
    assert host.exec("getent passwd roost-agent roost-engine", check=False).out == ""


@pytest.fixture(scope="module")
def site(cache: Path, repository: Path) -> Iterator[Site]:
    with story.clean_site(hosts.SYSTEMD, "host-f", cache=cache, repository=repository) as made:
        yield made


def test_unknown_and_contradicting_arguments_are_refused(site: Site) -> None:
    for args in (["--bogus"], ["--set", "nonsense"], ["--offline"], ["--check", "--purge"], ["stray"]):
        done = site.host.bootstrap(*args, check=False)
        assert done.code == 2, f"{args}: {done.code}: {done.text}"
    assert not (difference := compare(site.before, site.host.snapshot())), str(difference)


def test_help_changes_nothing(site: Site) -> None:
    said = site.host.bootstrap("--help").out
    for option in ("--check", "--run-local", "--listen", "--offline", "--upgrade", "--uninstall", "--purge", "--yes"):
        assert option in said
    assert not (difference := compare(site.before, site.host.snapshot())), str(difference)


def test_a_missing_offline_folder_is_said(site: Site) -> None:
    story.failed_clearly(site.host.bootstrap("--yes", "--offline", "/nowhere", check=False), "/nowhere")
    nothing_half_done(site.host)


def test_both_taken_ports_are_said_at_once(site: Site) -> None:
    site.host.occupy(4646)
    site.host.occupy(8360)
    done = site.host.bootstrap("--yes", check=False)
    site.host.exec("pkill -x perl")
    story.failed_clearly(done, "4646")
    story.failed_clearly(done, "8360")
    nothing_half_done(site.host)


def test_ctrl_c_in_the_middle_and_run_again(site: Site, measure: Measure) -> None:
    host = site.host
    # As in a terminal: the interrupt reaches every process of the foreground group.
    run = f"cd {CLONE}; echo $$ > /root/group; trap : INT; ./bootstrap.sh --yes > /root/out 2>&1; echo $? > /root/code"
    host.spawn(f"exec setsid sh -c '{run}'")
    wait_until("the playbook begins", lambda: "docker" in host.exec("cat /root/out", check=False).out, 300)
    host.exec("/bin/kill -INT -- -$(cat /root/group)")
    wait_until("it ends", lambda: host.exec("cat /root/code", check=False).out.strip() != "", 120)
    assert host.exec("cat /root/code").out.strip() == str(INTERRUPTED)
    assert "Traceback" not in host.exec("cat /root/out").out
    left = "ps -eo args | grep -E '[a]nsible|[b]ootstrap.sh'"
    wait_until("nothing of it is left", lambda: host.exec(left, check=False).out == "", 20)
    measure("f: first run after Ctrl-C", story.first_run(site).seconds)
    host.exec("rm -f /root/group /root/out /root/code")


def test_a_second_bootstrap_at_the_same_time_is_refused(site: Site) -> None:
    host = site.host
    host.spawn(f"cd {CLONE} && ./bootstrap.sh --yes > /root/out 2>&1; echo $? > /root/code")
    wait_until("the first begins", lambda: host.exec("test -s /root/out", check=False).code == 0, 60, pause_s=0.05)
    done = host.bootstrap("--yes", check=False)
    wait_until("the first ends", lambda: host.exec("cat /root/code", check=False).out.strip() != "", 600)
    assert host.exec("cat /root/code").out.strip() == "0"
    story.failed_clearly(done, "running|already|lock")
    host.exec("rm -f /root/out /root/code")


def test_purge_after_all_that(site: Site) -> None:
    story.purge_leaves_no_trace(site)


def test_full_disk_is_found_before_anything_happens(cache: Path, repository: Path) -> None:
    small = {"/var/lib/roost": "size=64m"}
    with story.clean_site(hosts.SYSTEMD, "f-full", cache=cache, repository=repository, tmpfs=small) as full:
        done = full.host.bootstrap("--yes", check=False)
        story.failed_clearly(done, "/var/lib/roost.*(free|space|MiB)|(free|space|MiB).*/var/lib/roost")
        nothing_half_done(full.host)
        # Whoever insists meets the next check: the model does not fit, and no part of it stays.
        done = full.host.bootstrap("--yes", "--set", "preflight_min_disk_mib=1", check=False)
        story.failed_clearly(done, "space|disk|full")
        assert full.host.exec("find /var/lib/roost/models -type f ! -name .lock 2>/dev/null", check=False).out == ""
        full.host.bootstrap("--purge", "--yes")
        assert full.host.pids() == {}


def test_no_registry_reachable(cache: Path, repository: Path, tmp_path: Path) -> None:
    with (
        lan("f-cut", internal=True) as cut,
        story.site_on(cut, hosts.SYSTEMD, "f-cut", cache=cache, repository=repository, host_cache=tmp_path) as site,
    ):
        done = site.host.bootstrap("--yes", check=False)
        story.failed_clearly(done, "reach|network|download|fetch|packages")
        nothing_half_done(site.host)
