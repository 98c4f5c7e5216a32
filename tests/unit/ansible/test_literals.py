"""The scan for literals: it finds each kind, leaves alone what is none, and finds nothing in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import literals as scan

KNOWN = {"port": {"8360"}, "user": {"8361"}}


def kinds(line: str, path: str = "ansible/roles/x/tasks/main.yml") -> list[str]:
    return sorted({found.kind for found in scan.literals(line, path, KNOWN)})


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("bind: 192.0.2.7", "address"),
        ('cidr = "2001:db8::7"', "address"),
        ("listen: ::1", "address"),
        ("  - {{ x | default('192.0.2.7') }}", "address"),
        ("ip saddr 10.0.0.0/8 accept", "subnet"),
        ("cidr: fd00::/8", "subnet"),
        ("api_port: 9999", "port"),
        ("port: '9999'", "port"),
        ("      static = 9999", "port"),
        ("tcp dport 9999 drop", "port"),
        ("  http = 9999", "port"),
        ('url: "https://{{ host }}:9999/v1"', "port"),
        ("url: http://localhost:9999", "port"),
        ("allowed: [8360]", "port"),
        ("owner: alice", "user"),
        ("become_user: alice", "user"),
        ('  user = "alice"', "user"),
        ("uid: 1234", "user"),
        ("run: 8361", "user"),
        ("dest: /home/alice/file", "path"),
        ("dest: /root/.ssh", "path"),
        ("dest: /etc/roost/site.json", "path"),
        ("  path = '/var/lib/roost-data'", "path"),
        ("dest: /opt/thing", "path"),
        ("dest: /tmp/thing", "path"),
        ("api_token: abcdefgh12345678", "secret"),
        ("password: 'correct-horse'", "secret"),
        ("-----BEGIN EC PRIVATE KEY-----", "secret"),
    ],
)
def test_each_kind_is_found(line: str, kind: str) -> None:
    assert kind in kinds(line), line


@pytest.mark.parametrize(
    "line",
    [
        "owner: root",
        "group: root",
        'user = "{{ roost_agent_user }}"',
        "dest: '{{ roost_config_dir }}/site.json'",
        "bind: '{{ loopback_address }}'",
        "api_port: '{{ api_port | int }}'",
        "mode: '0600'",
        "version: 1.11.3",
        'delay = "5s"',
        "when: version is version('20.10', '>=')",
        "report: 12",
        "path: /etc/apt/sources.list.d",
        "path: /dev/dri",
        "# listens on 192.0.2.7, port: 8360",
        "{# dest: /home/alice #}",
        "key: '{{ lookup(\"ansible.builtin.file\", secret_file) }}'",
        "url: https://example.org/8359",
        "at: 12:30",
        "mac: 00:11:22:33:44",
        "dest: /tmp/thing  # literal: every test host has it",
    ],
)
def test_what_is_no_literal_is_left_alone(line: str) -> None:
    assert kinds(line) == [], line


def test_descriptions_may_have_examples() -> None:
    text = "description: An address such as 192.0.2.7.\n"
    assert kinds(text, "ansible/roles/x/meta/argument_specs.yml") == []
    assert kinds(text) == ["address"]


def test_it_says_where() -> None:
    found = scan.literals("a: 1\nowner: alice\n", "playbook.yaml")
    assert str(found[0]).startswith("playbook.yaml:2: the user alice is a literal")


def test_defaults_give_the_numbers_that_are_known() -> None:
    variables = {"api_port": 8360, "roost_agent_uid": 8361, "usage_watts": 7, "nomad_dynamic_port_min": 20000}
    assert scan.defaults_of(variables) == {"port": {"8360", "20000"}, "user": {"8361"}}


def test_the_repository_has_none() -> None:
    assert scan.main() == 0


def test_roles_jobs_and_playbooks_are_looked_at() -> None:
    found = scan.files()
    for name in ("ansible/roles/nomad/tasks/main.yml", "nomad/agent.nomad.hcl.j2", "playbook.yaml"):
        assert name in found
    assert not any(name.startswith("nomad/build/") for name in found)
    assert all(Path(name).suffix != ".py" for name in found)
