"""What apt says, read; what is recorded before it acts; what a removal may take along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from roost.ops import packages
from roost.ops.dpkg import installed
from roost.ops.errors import RoostError
from roost.ops.ownership import Manifest
from roost.ops.packages import Plan, parse_simulation

SIMULATED = """Reading package lists...
The following NEW packages will be installed:
  libtirpc3 wget
Inst libc6 [2.36-9] (2.36-9+deb12u14 Debian:12.15/oldstable [amd64])
Inst libtirpc3 (1.3.3+ds-1 Debian:12.15/oldstable [amd64])
Inst wget (1.21.3-1 Debian:12.15/oldstable [amd64])
Remv curl [7.88.1-10]
Conf wget (1.21.3-1 Debian:12.15/oldstable [amd64])
"""


class ScriptedApt(packages.Apt):
    """Knows plans and failures in order; keeps what it was told to do."""

    def __init__(self, plans: Sequence[Plan | str], *, manifest: Manifest | None = None) -> None:
        super().__init__()
        self.plans = list(plans)
        self.manifest = manifest
        self.did: list[str] = []
        self.owned_at_install: list[str] = []
        self.install_failures: list[str] = []

    def _next(self) -> Plan:
        plan = self.plans.pop(0) if len(self.plans) > 1 else self.plans[0]
        if isinstance(plan, str):
            raise RoostError(plan)
        return plan

    def update(self) -> None:
        self.did.append("update")

    def simulate_install(self, names: Sequence[str]) -> Plan:
        del names
        return self._next()

    def simulate_purge(self, names: Sequence[str]) -> Plan:
        # c, which is not ours, needs b.
        return Plan(removed=[*names, *(["c"] if "b" in names else [])])

    def install(self, names: Sequence[str]) -> None:
        if self.manifest is not None:
            self.owned_at_install = self.manifest.owned("package")
        if self.install_failures:
            raise RoostError(self.install_failures.pop(0))
        self.did.append("install " + " ".join(names))


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    monkeypatch.setattr(packages, "finish_interrupted", lambda: None)
    return Manifest(tmp_path / "manifest")


def test_an_upgraded_package_is_not_a_new_one() -> None:
    assert parse_simulation(SIMULATED) == Plan(new=["libtirpc3", "wget"], removed=["curl"])


def test_everything_new_is_recorded_before_it_is_installed(manifest: Manifest) -> None:
    apt = ScriptedApt([Plan(new=["libtirpc3", "wget"])], manifest=manifest)
    assert packages.install(apt, ["wget"], manifest) == ["libtirpc3", "wget"]
    assert apt.owned_at_install == ["libtirpc3", "wget"]
    assert apt.did == ["install wget"]


def test_lists_are_fetched_only_when_apt_cannot_say(manifest: Manifest) -> None:
    apt = ScriptedApt(["E: Unable to locate package wget", Plan(new=["wget"])], manifest=manifest)
    packages.install(apt, ["wget"], manifest)
    assert apt.did == ["update", "install wget"]


def test_lists_older_than_the_mirror_are_fetched_again_once(manifest: Manifest) -> None:
    apt = ScriptedApt([Plan(new=["wget"]), Plan(new=["libnew1", "wget"])], manifest=manifest)
    apt.install_failures = ["Err:1 http://x wget 404  Not Found"]
    packages.install(apt, ["wget"], manifest)
    assert apt.did == ["update", "install wget"]
    assert manifest.owned("package") == ["wget", "libnew1"]


def test_an_installation_that_removes_something_is_refused(manifest: Manifest) -> None:
    apt = ScriptedApt([Plan(new=["docker.io"], removed=["docker-ce"])])
    with pytest.raises(RoostError, match="would remove docker-ce"):
        packages.install(apt, ["docker.io"], manifest)
    assert manifest.owned("package") == []
    assert apt.did == []


@pytest.mark.parametrize(
    ("said", "fix"),
    [
        ("Could not resolve 'mirror.example'", "--offline"),
        ("Certificate verification failed: The certificate is NOT trusted", "ROOST_EXTRA_CA_BUNDLE"),
        ("E: You don't have enough free space in /var", "disk space"),
        ("E: Could not get lock /var/lib/dpkg/lock", "package manager"),
        ("E: Unable to locate package nonsense", "/etc/apt"),
        ("The following packages have unmet dependencies", "apt-get -f install"),
    ],
)
def test_apts_words_become_a_way_out(said: str, fix: str) -> None:
    error = packages.explain(RoostError(said), "wget could not be installed")
    assert said in error.message
    assert fix in error.fix


def test_what_others_need_now_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "on_disk", lambda names: set(names) - {"gone"})
    assert packages.removable(ScriptedApt([Plan()]), ["a", "b", "d", "gone"]) == ["a", "d"]
    assert packages.removable(ScriptedApt([Plan()]), ["a", "b", "c"]) == ["a", "b", "c"]
    assert packages.removable(ScriptedApt([Plan()]), ["gone"]) == []


def test_downloads_are_kept_for_the_next_machine(tmp_path: Path) -> None:
    for name in ("first_1_amd64.deb", "second_1_amd64.deb"):
        with packages.kept_archives(tmp_path) as options:
            archives = Path(next(o for o in options if o.startswith("Dir::Cache::archives=")).partition("=")[2])
            assert (archives / "partial").is_dir()
            seen = sorted(path.name for path in archives.glob("*.deb"))
            (archives / name).write_text(name)
    assert seen == ["first_1_amd64.deb"]
    kept = tmp_path / "debs/host"
    assert sorted(path.name for path in kept.iterdir()) == ["first_1_amd64.deb", "second_1_amd64.deb"]


def test_this_machines_dpkg_is_understood() -> None:
    assert installed(["dpkg", "no-such-package-anywhere"]) == {"dpkg"}
