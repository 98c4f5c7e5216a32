"""Whether the package clients reach their registries, asked of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from roost.hosts import registries
from roost.hosts.registries import reach, reason

NOBODY = "http://127.0.0.1:9"


def test_pip_without_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{NOBODY}/simple")
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    assert "Connection refused" in reach(["pip"])["pip"]


def test_apt_without_a_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutil.which("apt-get"), "these tests are for systems with apt"
    sources = tmp_path / "sources.list"
    sources.write_text(f"deb [trusted=yes] {NOBODY}/debian stable main\n")
    config = tmp_path / "apt.conf"
    config.write_text(f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "{tmp_path}/none";\n')
    monkeypatch.setenv("APT_CONFIG", str(config))
    said = reach(["apt"])["apt"]
    assert "127.0.0.1" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["apt.conf", "sources.list"]
    sources.write_text("")
    assert reach(["apt"]) == {"apt": ""}


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    assert "cannot be used" in reach(["pip"], extra_ca_bundle=tmp_path / "none.pem")["pip"]


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("failed:\nW: x\nE: The repository is not signed.\n", "E: The repository is not signed."),
        (
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'Name unknown': /simple\nERROR: x",
            "Name unknown",
        ),
        ("only this", "only this"),
        ("", "no reason given"),
    ],
)
def test_reason(output: str, line: str) -> None:
    assert reason(output) == line


def test_names_of_sources_are_those_that_need_resolving() -> None:
    text = """# deb http://old.example/debian x main
deb [signed-by=/x] https://deb.example/debian bookworm main
URIs: http://192.0.2.7/debian https://security.example/debian
"""
    assert registries.registry_names(text) == ["deb.example", "security.example"]


def test_names_that_do_not_resolve_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in registries.PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(registries, "_texts", lambda: ["deb https://deb.example/debian x main"])
    monkeypatch.setattr(registries, "_apt_settings", lambda: "")

    def refuse(_: str) -> object:
        raise OSError

    assert registries.unresolved(refuse) == ["deb.example"]
    assert registries.unresolved(lambda _: None) == []
    monkeypatch.setattr(registries, "_apt_settings", lambda: 'Acquire::http::Proxy "http://192.0.2.1:3128";')
    assert registries.unresolved(refuse) == []
