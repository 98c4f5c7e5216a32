"""What roles write on hosts: settings of dockerd and the registry, servers of the clock, keys of operators."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.ansible.rendering import decide, render, task_of

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2wlBhJVZyk0vZq3kGJ0Y0Yw0sXyq3YkY3w0a5Wc9sM ada@desk"


def test_dockerd_keeps_containers_and_bounds_logs(tmp_path_factory: pytest.TempPathFactory) -> None:
    variants = {"default": {}, "other": {"docker_live_restore": False, "docker_log_max_mib": 50, "docker_log_files": 5}}
    found = render(tmp_path_factory.mktemp("docker"), "docker", "etc/docker/daemon.json.j2", variants)
    assert json.loads(found["default"]) == {
        "live-restore": True,
        "log-driver": "json-file",
        "log-opts": {"max-file": "3", "max-size": "10m"},
    }
    assert json.loads(found["other"])["log-opts"] == {"max-file": "5", "max-size": "50m"}
    assert json.loads(found["other"])["live-restore"] is False


def test_dockerd_is_told_the_proxies_and_nothing_else(tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = {"HTTPS_PROXY": "http://u:p%40w@192.0.2.1:3128", "NO_PROXY": "", "PIP_INDEX_URL": "https://x"}
    found = render(
        tmp_path_factory.mktemp("proxies"), "docker", "etc/systemd/system/docker.service.d/roost.conf.j2",
        {"proxies": {"node_environment": environment}},
    )["proxies"]  # fmt: skip
    assert found.splitlines()[1:] == ["[Service]", 'Environment="HTTPS_PROXY=http://u:p%%40w@192.0.2.1:3128"']


@pytest.mark.parametrize(
    ("template", "lines"),
    [
        ("etc/chrony/sources.d/roost.sources.j2", ["server 192.0.2.1 iburst", "server ntp.example.org iburst"]),
        ("etc/systemd/timesyncd.conf.d/roost.conf.j2", ["[Time]", "NTP=192.0.2.1 ntp.example.org"]),
    ],
)
def test_servers_of_the_clock(tmp_path_factory: pytest.TempPathFactory, template: str, lines: list[str]) -> None:
    variants = {"two": {"time_servers": ["192.0.2.1", "ntp.example.org"]}}
    assert render(tmp_path_factory.mktemp("time"), "time", template, variants)["two"].splitlines()[1:] == lines


def test_an_operator_has_the_keys_that_are_named(tmp_path_factory: pytest.TempPathFactory) -> None:
    variants = {"ada": {"item": {"name": "ada", "keys": [KEY, KEY.replace("ada@desk", "ada@laptop")]}}}
    found = render(tmp_path_factory.mktemp("users"), "users", "ssh/authorized_keys.j2", variants)["ada"]
    assert found.splitlines()[1:] == [KEY, KEY.replace("ada@desk", "ada@laptop")]


def test_the_registry_listens_in_the_fleet_for_its_certificates(tmp_path_factory: pytest.TempPathFactory) -> None:
    variants = {"default": {"images_from": "registry"}}
    found = render(tmp_path_factory.mktemp("registry"), "registry", "etc/roost/registry.yaml.j2", variants)["default"]
    settings = yaml.safe_load(found)
    assert settings["version"] == "0.1" or settings["version"] == 0.1
    assert settings["http"]["addr"] == "192.0.2.11:8466"
    assert settings["http"]["tls"]["clientcas"] == ["/etc/roost/tls/ca.pem"]
    assert settings["storage"]["filesystem"]["rootdirectory"] == "/var/lib/roost/registry"


@pytest.mark.parametrize("check", [False, True])
def test_the_package_s_own_registry_is_left_out_after_a_run_that_was_broken_off_too(
    tmp_path: Path, *, check: bool
) -> None:
    ours, theirs = ["docker-registry"], list[str]()
    variants = {
        "installed": {"registry_installed": {"changed": True, "owned": ours}},
        "was there from a run before": {"registry_installed": {"changed": False, "owned": ours}},
        "was there before Roost": {"registry_installed": {"changed": False, "owned": theirs}},
    }
    task = "Registry | Leave the package's own service out"
    found = decide(tmp_path, "registry", "install.yml", task, variants, check=check)
    # A check installs nothing, so there is no such service to look at.
    assert found == {
        "installed": not check,
        "was there from a run before": True,
        "was there before Roost": False,
    }


INSTALLING: dict[str, dict[str, Any]] = {"package is to come": {"time_found": {"stdout_lines": []}}}
THERE: dict[str, dict[str, Any]] = {"package is there": {"time_found": {"stdout_lines": ["/usr/sbin/chronyd"]}}}


@pytest.mark.parametrize("task", ["Time | Start it at boot", "Time | Run it"])
@pytest.mark.parametrize("check", [False, True])
def test_a_check_looks_at_the_clock_s_service_where_there_is_one(tmp_path: Path, task: str, *, check: bool) -> None:
    always = {"hardware_host": {"init": "systemd", "virtualisation": "none"}}
    variants = {name: {**found, **always} for name, found in (INSTALLING | THERE).items()}
    found = decide(tmp_path, "time", "install.yml", task, variants, check=check)
    assert found == {"package is to come": not check, "package is there": True}


def test_servers_that_are_named_no_more_are_forgotten(tmp_path: Path) -> None:
    variants = {
        "named": {**THERE["package is there"], "time_servers": ["192.0.2.1"]},
        "none": {**THERE["package is there"], "time_servers": []},
        "kept by another": {"time_found": {"stdout_lines": ["/usr/sbin/openntpd"]}, "time_servers": []},
    }
    found = decide(tmp_path, "time", "install.yml", "Time | Forget servers that are named no more", variants)
    assert found == {"named": False, "none": True, "kept by another": False}


def told(
    folder: Path, role: str, file: str, task: str, field: str, variants: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Return what a field of a task's module says for each variant of variables."""
    module = next(value for key, value in task_of(role, file, task).items() if key.startswith("ansible.builtin."))
    (folder / "field.j2").write_text(str(module[field]))
    return render(folder, role, str(folder / "field.j2"), variants)


@pytest.mark.parametrize(
    ("task", "field", "end"),
    [
        ("Users | Make the folders of their keys", "path", ""),
        ("Users | Write their keys, and no others", "dest", "/authorized_keys"),
    ],
)
def test_keys_go_where_the_account_has_its_home(tmp_path: Path, task: str, field: str, end: str) -> None:
    made = [{"home": "/srv/people/ada", "group": 100}, {"changed": True}]
    variants: dict[str, dict[str, Any]] = {
        "was there": {"item": {"name": "ada"}, "users_index": 0, "users_made": {"results": made}},
        "to come": {"item": {"name": "bob"}, "users_index": 1, "users_made": {"results": made}},
    }
    assert told(tmp_path, "users", "install.yml", task, field, variants) == {
        "was there": f"/srv/people/ada/.ssh{end}",
        "to come": f"/home/bob/.ssh{end}",
    }
    (tmp_path / "again").mkdir()
    groups = told(tmp_path / "again", "users", "install.yml", task, "group", variants)
    assert groups == {"was there": "100", "to come": "bob"}


def test_administrators_who_are_to_be_none_are_known_before_anything_is_run(tmp_path: Path) -> None:
    operators = [{"name": "ada", "keys": [KEY]}, {"name": "bob", "keys": [KEY]}, {"name": "eve", "admin": True}]
    loop = task_of("users", "install.yml", "Users | Take administrators' rights from those who are none")["loop"]
    (tmp_path / "loop.j2").write_text(loop.replace(") }}", ") | map(attribute='name') | join }}"))
    variants = {
        "one": {"operators": operators, "ansible_facts": {"getent_group": {"sudo": ["x", "27", "ada,eve"]}}},
        "none": {"operators": operators, "ansible_facts": {"getent_group": {"sudo": ["x", "27", ""]}}},
        "no such group": {"operators": operators, "ansible_facts": {"getent_group": {"sudo": None}}},
    }
    found = render(tmp_path, "users", str(tmp_path / "loop.j2"), variants)
    assert found == {"one": "ada", "none": "", "no such group": ""}
