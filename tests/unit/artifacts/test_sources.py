"""Finding the host's own Debian mirror among its apt sources."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from roost.fleet.artifacts.sources import Mirrors, choose, host_mirrors, mirrors, parse_deb822, parse_one_line

if TYPE_CHECKING:
    from pathlib import Path

ONE_LINE = """\
# deb http://old.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib # ours
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://mirror.example/security bookworm-security main
deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/debian bookworm main
deb https://vendor.example/linux/debian bookworm stable
"""

DEB822 = """\
# A comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/node
Suites: nodistro
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFit2ioBEADhWpZ8
"""

MIRROR = Mirrors("http://mirror.example/debian", "http://mirror.example/debian-security")


def host(root: Path, *, system: str = "debian", codename: str = "bookworm", **files: str) -> Path:
    """Make a root with apt sources; `__` in a name stands for a dot."""
    parts = root / "etc/apt/sources.list.d"
    parts.mkdir(parents=True)
    (root / "etc/os-release").write_text(f'ID={system}\nVERSION_CODENAME="{codename}"\n')
    for name, text in files.items():
        (parts / name.replace("__", ".")).write_text(text)
    return root


def test_one_line_format_gives_the_hosts_own_archive() -> None:
    chosen = choose(parse_one_line(ONE_LINE), "bookworm")
    assert chosen == Mirrors("http://mirror.example/debian", "http://mirror.example/security")


def test_sources_disabled_or_of_source_packages_do_not_count() -> None:
    uris = {entry.uri for entry in parse_one_line(ONE_LINE) + parse_deb822(DEB822)}
    assert not uris & {"http://old.example/debian", "http://disabled.example/debian"}


def test_deb822_format_gives_every_suite() -> None:
    suites = [entry.suite for entry in parse_deb822(DEB822)]
    assert suites == ["bookworm", "bookworm-updates", "bookworm-security", "nodistro"]
    assert choose(parse_deb822(DEB822), "bookworm") == MIRROR


@pytest.mark.parametrize(
    "line",
    [
        "deb https://vendor.example/linux/debian bookworm stable",
        "deb [signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.example/debian bookworm main",
        "deb https://vendor.example/debian nodistro main",
        "deb http://mirror.example/debian trixie main",
        "deb",
        "",
    ],
)
def test_what_is_not_the_hosts_own_release_is_somebody_elses(line: str) -> None:
    assert choose(parse_one_line(line), "bookworm") == Mirrors()


def test_host_reads_both_formats_and_ignores_other_files(tmp_path: Path) -> None:
    root = host(
        tmp_path, debian__sources=DEB822, vendor__list="deb https://v.example/d bookworm stable\n", old__save=ONE_LINE
    )
    assert host_mirrors(root) == MIRROR


def test_a_mirror_list_is_followed_to_its_first_address(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text("# nearest first\nhttp://near.example/debian/\nhttp://far.example/debian\n")
    root = host(tmp_path / "root", cloud__list=f"deb mirror+file:{listed} bookworm main\n")
    assert host_mirrors(root).main == "http://near.example/debian"


def test_another_system_has_no_debian_mirror(tmp_path: Path) -> None:
    root = host(tmp_path, system="ubuntu", codename="noble", main__list="deb http://u.example/ubuntu noble main\n")
    assert host_mirrors(root) == Mirrors()


def test_the_variable_wins_and_security_stays_the_hosts(tmp_path: Path) -> None:
    root = host(tmp_path, debian__sources=DEB822)
    assert mirrors("http://given.example/debian/", root) == Mirrors("http://given.example/debian", MIRROR.security)
