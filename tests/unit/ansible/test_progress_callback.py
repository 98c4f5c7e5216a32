"""The callback, in a real ansible-playbook: lines on the screen, summary, log."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
INTERPRETER = "vars: {ansible_connection: local, ansible_python_interpreter: '{{ ansible_playbook_python }}'}"


@dataclass(frozen=True)
class Played:
    code: int
    out: str
    summary: dict[str, Any]
    log: str


def play(folder: Path, roles: dict[str, str], *options: str, verbose: bool = False) -> Played:
    """Run a play of these roles, given by their tasks."""
    for name, tasks in roles.items():
        (folder / f"roles/{name}/tasks").mkdir(parents=True)
        (folder / f"roles/{name}/tasks/main.yml").write_text(f"---\n{tasks}")
    (folder / "play.yaml").write_text(
        f"- hosts: localhost\n  gather_facts: false\n  {INTERPRETER}\n  roles: [{', '.join(roles)}]\n"
    )
    env = {
        "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT / "app"),
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "ansible/plugins/callback"), "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_STDOUT_CALLBACK": "roost_progress", "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false", "ROOST_LOG": str(folder / "log"),
        "ROOST_SUMMARY": str(folder / "summary"), "ROOST_VERBOSE": "1" if verbose else "0",
    }  # fmt: skip
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [str(program), *options, "play.yaml"], cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return Played(
        done.returncode, done.stdout, json.loads((folder / "summary").read_text()), (folder / "log").read_text()
    )


def without_seconds(text: str) -> list[str]:
    return [re.sub(r" +\d+ s", "", line) for line in text.splitlines()]


def writing(path: Path, content: str = "new line") -> str:
    return f"- name: First | Write it\n  ansible.builtin.copy: {{dest: {path}, content: '{content}', mode: '0600'}}\n"


QUIET = "- name: Second | Look\n  ansible.builtin.command: {argv: ['true']}\n  changed_when: false\n"
SKIPPED = "- name: Third | Not here\n  ansible.builtin.command: {argv: ['true']}\n  when: false\n"


def test_one_line_a_role_with_its_changes_and_none_for_what_did_nothing(tmp_path: Path) -> None:
    done = play(tmp_path, {"first": writing(tmp_path / "x"), "second": QUIET, "third": SKIPPED})
    assert done.code == 0
    assert without_seconds(done.out) == ["✓ first   1 change", "✓ second"]
    assert done.summary["changed"] == 1
    assert done.summary["changed_tasks"] == ["first: Write it"]
    assert done.summary["roles"]["second"]["ok"] == 1
    assert "changed: first : First | Write it" in done.log


def test_a_check_says_what_would_change_and_shows_it_when_asked(tmp_path: Path) -> None:
    done = play(tmp_path, {"first": writing(tmp_path / "x")}, "--check", "--diff", verbose=True)
    assert "✓ first   would change 1 thing" in without_seconds(done.out)
    assert "+new line" in done.out
    assert "+new line" in done.log
    assert done.summary["check"] is True
    assert not (tmp_path / "x").exists()


def test_a_failure_has_a_reason_and_a_fix(tmp_path: Path) -> None:
    task = "- name: First | Try\n  ansible.builtin.fail: {msg: 'It is broken. Fix: Mend it.'}\n"
    done = play(tmp_path, {"first": task, "second": QUIET})
    assert done.code != 0
    assert without_seconds(done.out) == ["✗ first"]
    assert done.summary["failed"] is True
    assert done.summary["failure"] == {"step": "first", "task": "Try", "reason": "It is broken.", "fix": "Mend it."}


def test_the_roost_commands_own_fix_is_found(tmp_path: Path) -> None:
    command = "echo 'error: No answer.' >&2; echo 'fix: Wait.' >&2; exit 1"
    done = play(
        tmp_path, {"first": f'- name: First | Ask\n  ansible.builtin.command: {{argv: [sh, -c, "{command}"]}}\n'}
    )
    assert (done.summary["failure"]["reason"], done.summary["failure"]["fix"]) == ("No answer.", "Wait.")


def test_what_must_not_be_logged_is_not(tmp_path: Path) -> None:
    secret = "sesame-open"
    done = play(tmp_path, {"first": writing(tmp_path / "x", secret) + "  no_log: true\n"}, "--diff", verbose=True)
    assert (tmp_path / "x").read_text() == secret
    assert secret not in done.out + done.log


def test_ignored_failures_and_loops_are_no_failure_of_the_play(tmp_path: Path) -> None:
    ignored = "- name: First | Try\n  ansible.builtin.fail: {msg: no}\n  ignore_errors: true\n"
    loop = "- name: Second | Each\n  ansible.builtin.fail: {msg: '{{ item }} Fix: Mend {{ item }}.'}\n  loop: [a, b]\n"
    done = play(tmp_path, {"first": ignored, "second": loop})
    assert done.summary["failure"]["step"] == "second"
    assert "a" in done.summary["failure"]["reason"]


def test_what_a_rescue_says_is_the_last_word_on_a_failure(tmp_path: Path) -> None:
    (tmp_path / "library").mkdir()
    module = "from ansible.module_utils.basic import AnsibleModule\nm = AnsibleModule({'update': {'type': 'bool'}})\n"
    module += "m.fail_json(msg='It was put back. Fix: Again.', update=m.params['update'])\n"
    (tmp_path / "library/putback.py").write_text(module)
    tasks = (
        "- name: First | Change it\n  block:\n"
        "    - name: First | Fail\n      ansible.builtin.fail: {msg: 'The reason. Fix: This.'}\n"
        "  rescue:\n    - name: First | Go back\n      putback: {update: UPDATE}\n"
    )
    for word, reason in (("true", "It was put back."), ("false", "The reason.")):
        folder = tmp_path / word
        folder.mkdir()
        (folder / "library").symlink_to(tmp_path / "library")
        played = play(folder, {"first": tasks.replace("UPDATE", word)})
        assert played.code != 0
        assert played.summary["failure"]["reason"] == reason


def test_what_a_playbook_says_to_its_user_is_on_the_screen(tmp_path: Path) -> None:
    says = "- name: First | Say it\n  ansible.builtin.debug: {msg: 'This is left. Fix: take it away.'}\n"
    assert "This is left. Fix: take it away." in play(tmp_path, {"first": says}).out
