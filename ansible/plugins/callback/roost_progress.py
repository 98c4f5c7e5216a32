"""Ansible stdout callback: one line a role, errors as reason and fix, everything else in the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ansible.plugins.callback import CallbackBase

from roost.ops.progress import FAILED, OK, count, step_line

DOCUMENTATION = r"""
name: roost_progress
type: stdout
short_description: One line a role
description:
  - Prints a line for each role, with seconds and changes; the name of a role is the name of the step.
  - Details and differences go to the file named by the environment variable ROOST_LOG, a summary as JSON to
    ROOST_SUMMARY. With ROOST_VERBOSE=1 tasks are printed too, with their differences in a check. With ROOST_FLEET set
    the machine's name is said too.
author: Roost developers
"""

FIX = " Fix: "
DEBUG = "ansible.builtin.debug"  # what a playbook says to its user


class Named(Protocol):
    """A task or a play."""

    def get_name(self) -> str:
        """Return its name; a task's has `ROLE : ` in front."""


class Task(Named, Protocol):
    """A task, as far as it matters here."""

    action: str
    ignore_unreachable: bool | None


class Play(Named, Protocol):
    """A play, as far as it matters here."""

    check_mode: bool | None


class Machine(Protocol):
    """The machine that a task ran on."""

    name: str


class TaskResult(Protocol):
    """What became of a task."""

    host: Machine
    task: Task
    result: dict[str, Any]


@dataclass
class Step:
    """A role of the play, as far as it got."""

    name: str
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    ok: int = 0
    changed: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What ROOST_SUMMARY holds."""

    check: bool = False
    changed: int = 0
    failed: bool = False
    roles: dict[str, dict[str, float]] = field(default_factory=dict)
    changed_tasks: list[str] = field(default_factory=list)
    failure: dict[str, str] = field(default_factory=dict)


class Screen:
    """The terminal: finished lines from here, the running one from a process that counts the seconds."""

    def __init__(self) -> None:
        """Start that process if there is a terminal."""
        self.tty = sys.stdout.isatty()
        self.colour = self.tty and not os.environ.get("NO_COLOR")
        self.drawer: subprocess.Popen[bytes] | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-P", "-m", "roost.ops.progress"]
        return subprocess.Popen(words, stdin=subprocess.PIPE)

    def running(self, step: str, detail: str) -> None:
        """Show the present step."""
        if not self.tty:
            return
        self.drawer = self.drawer or self._start()
        if self.drawer.stdin and self.drawer.poll() is None:
            self.drawer.stdin.write(f"{step}\t{detail}\n".encode())
            self.drawer.stdin.flush()

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self.close()
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Clear the running line; the process is gone when this returns, so nothing overwrites what follows."""
        if self.drawer is not None and self.drawer.stdin:
            self.drawer.stdin.close()
            self.drawer.wait()
        self.drawer = None


class CallbackModule(CallbackBase):
    """Called by ansible-playbook for everything that happens."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "roost_progress"

    def __init__(self) -> None:
        """Open the log."""
        super().__init__()
        self.screen = Screen()
        self.summary = Summary()
        self.step: Step | None = None
        self.log_path = os.environ.get("ROOST_LOG", "")
        self.verbose = os.environ.get("ROOST_VERBOSE") == "1"
        self.fleet = bool(os.environ.get("ROOST_FLEET"))
        self.last_word = False  # of the failure, and no other comes in its place

    def log(self, text: str) -> None:
        """Append to the log file."""
        if self.log_path:
            with Path(self.log_path).open("a", encoding="utf-8") as stream:
                stream.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}\n")

    def end_step(self, *, failed: bool = False) -> None:
        """Print the line of the present step, if anything was done in it."""
        step, self.step = self.step, None
        if step is None:
            return
        step.seconds = round(time.monotonic() - step.began, 3)
        known = self.summary.roles.setdefault(step.name, {"ok": 0, "changed": 0, "seconds": 0.0})
        for key in known:
            known[key] = round(known[key] + getattr(step, key), 3)
        if not (step.ok or failed):
            return
        would = "would change " if self.summary.check else ""
        what = count(step.changed, "thing" if would else "change")
        note = f"{would}{what}" if step.changed else ""
        mark = FAILED if failed else OK
        self.screen.line(step_line(mark, step.name, step.seconds, note, colour=self.screen.colour))
        for text in step.notes:
            self.screen.line(f"    {text}")

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Note whether this is a check."""
        self.summary.check = bool(play.check_mode)
        self.log(f"play: {play.get_name()}")

    def v2_playbook_on_task_start(self, task: Named, is_conditional: bool) -> None:
        """A task of another role begins another step."""
        del is_conditional
        role, separator, _ = task.get_name().partition(" : ")
        role = role if separator else ""
        if role and (self.step is None or self.step.name != role):
            self.end_step()
            self.step = Step(role)
        name = title(task)
        self.log(f"task: {role}: {name}")
        if self.step is not None:
            self.screen.running(self.step.name, name)

    v2_playbook_on_handler_task_start = v2_playbook_on_task_start

    def _details(self, word: str, result: TaskResult) -> None:
        self.log(f"{word}: {result.task.get_name()}: {self._dump_results(result.result, indent=2)}")

    def v2_runner_on_ok(self, result: TaskResult) -> None:
        """Count it."""
        changed = bool(result.result.get("changed", False))
        self._details("changed" if changed else "ok", result)
        if self.step is None:
            return
        self.step.ok += 1
        where = f"{result.host.name}: " if self.fleet else ""
        said = result.result.get("msg") if result.task.action == DEBUG else None
        if note := result.result.get("note") or said:
            self.step.notes.append(f"{where}{note}")
        if changed:
            self.step.changed += 1
            self.summary.changed += 1
            self.summary.changed_tasks.append(f"{where}{self.step.name}: {title(result.task)}")
        if self.verbose:
            self.screen.line(f"    {'changed' if changed else 'ok     '}  {where}{title(result.task)}")

    def v2_runner_on_failed(self, result: TaskResult, ignore_errors: bool = False) -> None:
        """Say why, and what to do."""
        self._details("ignored" if ignore_errors else "failed", result)
        if ignore_errors:
            return
        self._fail(result, failure_message(result.result))

    def v2_runner_on_unreachable(self, result: TaskResult) -> None:
        """Say why, unless the playbook goes on without it."""
        self._details("unreachable", result)
        if result.task.ignore_unreachable:
            return
        self._fail(result, failure_message(result.result))

    def _fail(self, result: TaskResult, message: str) -> None:
        task = result.task
        # What a rescue says is the last word on the failure that led to it.
        last = bool(result.result.get("update"))
        if self.summary.failed and not last:
            return
        if self.fleet and not result.result.get("of_all"):
            message = f"{result.host.name}: {message}"
        reason, _, fix = message.partition(FIX)
        if self.last_word:  # of another machine, which was changed at the same time
            self.summary.failure["reason"] += f"\n{reason.strip()}"
            return
        self.last_word = last
        step = self.step.name if self.step else title(task)
        self.summary.failed = True
        self.summary.failure = {"step": step, "task": title(task), "reason": reason.strip(), "fix": fix.strip()}
        self.end_step(failed=True)

    def v2_runner_item_on_ok(self, result: TaskResult) -> None:
        """Log it; the task's own result counts."""
        self._details("item", result)

    def v2_runner_item_on_failed(self, result: TaskResult) -> None:
        """Log it; the task's own result counts."""
        self._details("item failed", result)

    def v2_on_file_diff(self, result: TaskResult) -> None:
        """Differences go to the log, in a verbose check to the screen too."""
        results = [item for item in result.result.get("results", [result.result]) if isinstance(item, dict)]
        for item in results:
            if item.get("diff") and item.get("changed"):
                text = self._get_diff(item["diff"]).rstrip()
                self.log(f"difference: {title(result.task)}:\n{text}")
                if text and self.verbose:
                    self.screen.line(text)

    def v2_playbook_on_stats(self, stats: object) -> None:
        """End the last step and write the summary."""
        del stats
        self.end_step()
        self.screen.close()
        if path := os.environ.get("ROOST_SUMMARY"):
            Path(path).write_text(json.dumps(asdict(self.summary)) + "\n", encoding="utf-8")


def title(task: Named) -> str:
    """Return a task's name without the role in front."""
    name = str(task.get_name())
    for separator in (" : ", " | "):
        name = name.rpartition(separator)[2]
    return name.strip()


def failure_message(result: dict[str, Any]) -> str:
    """Return what a failed task says: its own words, those of its failed items, or of the program it ran."""
    items = [item for item in result.get("results", []) if isinstance(item, dict) and item.get("failed")]
    if items:
        return "; ".join(dict.fromkeys(failure_message(item) for item in items))
    said = str(result.get("stderr") or "").strip()
    message = str(result.get("msg") or "").strip()
    if said and message in {"", "non-zero return code"}:
        # The roost command says `error: ...` and, on a line of its own, `fix: ...`.
        reason, _, fix = said.removeprefix("error: ").partition("\nfix: ")
        return f"{reason.strip()}{FIX}{fix.strip()}" if fix else reason
    errors = result.get("argument_errors")
    if errors:
        return "; ".join(str(error) for error in errors) + f"{FIX}Correct the variable with --set NAME=VALUE."
    return message or said or "the task failed without a word"
