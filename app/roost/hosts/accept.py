"""The acceptance of a booted image, step by step. Standard library only, Python 3.9+.

Start, status, create a task, list queued, intake by capability, one tick, list, stop, pidfiles gone, rotation
configured. A step whose feature this release does not have reports `missing`: it asks the API, and a route that is not
there says so.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from roost.hosts.staged import Staged, StagedService

OK, FAILED, MISSING = "ok", "failed", "missing"
EXIT = {OK: 0, FAILED: 1, MISSING: 2}
# What an installation is asked (`roost verify`), too.
SYSTEM = "You are a helpful assistant."
QUESTION, EXPECT = "What is the capital of France?", "Paris"
MAX_TOKENS = 128
MOST_SHOWN = 200  # characters of an answer that is none
ANSWER_S = 60.0
NOT_FOUND = 404
TASKS = "/v1/tasks"


@dataclass(frozen=True)
class Step:
    """One step of the runbook and how it ended; `detail` says what was seen."""

    name: str
    result: str
    detail: str


class StepError(Exception):
    """A step did not hold; the text says what was seen."""


class FeatureMissingError(Exception):
    """What the step is about is not in this release."""


@dataclass(frozen=True)
class Init:
    """An init system: the words that start, stop and ask for a service, and what it says while nothing of it runs."""

    verb: Callable[[str, str], Sequence[str]]

    def run(self, verb: str, service: str) -> tuple[int, str]:
        """Run a verb; return its exit code and what it printed."""
        done = subprocess.run(
            list(self.verb(verb, service)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        return done.returncode, done.stdout.strip()


def init_of(system: str) -> Init:
    """Return the init system of a staged host."""
    if system == "freebsd":
        return Init(lambda verb, service: ("service", service, verb))
    return Init(lambda verb, service: ("systemctl", "is-active" if verb == "status" else verb, service))


class Runbook:
    """The steps, on one host. `timeout_s`: how long starting may take, and each answer; 0: as on most machines."""

    def __init__(self, staged: Staged, init: Init, timeout_s: float = 0.0) -> None:
        self._staged = staged
        self._init = init
        self._start_s = timeout_s or staged.start_timeout_s
        self._answer_s = timeout_s or ANSWER_S

    def run(self, tell: Callable[[Step], None]) -> list[Step]:
        """Walk through all steps; one that fails does not keep the later ones from being tried. Starts all again.

        `tell` hears of each step as it ends.
        """
        steps: list[Step] = []
        for name, check in self._steps():
            try:
                step = Step(name, OK, check())
            except FeatureMissingError as error:
                step = Step(name, MISSING, str(error))
            except (StepError, OSError, ValueError) as error:
                step = Step(name, FAILED, str(error))
            steps.append(step)
            tell(step)
        for service in self._staged.services:  # the host goes on as it was found: with its services running
            self._init.run("start", service.name)
        return steps

    def _steps(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("start", self._start),
            ("status", self._status),
            ("answer", self._answer),
            ("create a task", lambda: self._task("POST", TASKS, {"title": "acceptance", "capability": "shell"})),
            ("list queued", lambda: self._task("GET", f"{TASKS}?state=queued")),
            ("intake by capability", lambda: self._task("POST", f"{TASKS}/intake", {"capabilities": ["shell"]})),
            ("one tick", lambda: self._task("POST", f"{TASKS}/tick", {})),
            ("list", lambda: self._task("GET", TASKS)),
            ("stop", self._stop),
            ("pidfiles gone", self._no_pidfiles),
            ("rotation", self._rotation),
        ]

    def _start(self) -> str:
        for service in self._staged.services:
            code, said = self._init.run("start", service.name)
            if code and self._init.run("status", service.name)[0]:
                raise StepError(f"{service.name}: {said}")
        return ", ".join(service.name for service in self._staged.services)

    def _status(self) -> str:
        end = time.monotonic() + self._start_s
        while True:
            left = [service.name for service in self._staged.services if self._init.run("status", service.name)[0]]
            url = f"{self._staged.api}/readyz" if self._staged.api else f"{self._staged.engine}/health"
            status, _ = self._ask("GET", url)
            if not left and status == 200:
                return f"{url} answers"
            if time.monotonic() > end:
                raise StepError(f"not running: {', '.join(left) or 'none'}; {url} says {status or 'nothing'}")
            time.sleep(0.5)

    def _answer(self) -> str:
        base = self._staged.api or self._staged.engine
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
        body = {"model": "auto", "max_tokens": MAX_TOKENS, "temperature": 0, "messages": messages}
        status, document = self._ask("POST", f"{base}/v1/chat/completions", body)
        if status != 200:
            raise StepError(f"status {status}: {document}")
        try:
            text = str(document["choices"][0]["message"]["content"]).strip()
        except (LookupError, TypeError):
            raise StepError(f"this is no answer of a chat: {str(document)[:MOST_SHOWN]}") from None
        if EXPECT not in text:
            raise StepError(f"asked {QUESTION!r}, it said {text!r}")
        return text

    def _task(self, method: str, path: str, body: object = None) -> str:
        if not self._staged.api:
            raise FeatureMissingError("no agent runs on this host, so it has no tasks")
        status, document = self._ask(method, self._staged.api + path, body)
        if status == NOT_FOUND:
            raise FeatureMissingError(f"this release's API has no {path.partition('?')[0]}")
        if status >= 300 or not status:
            raise StepError(f"status {status}: {document}")
        return f"status {status}"

    def _stop(self) -> str:
        daemons = [service for service in reversed(self._staged.services) if service.daemon]
        for service in daemons:
            code, said = self._init.run("stop", service.name)
            if code:
                raise StepError(f"{service.name}: {said}")
        still = [service.name for service in daemons if not self._init.run("status", service.name)[0]]
        if still:
            raise StepError(f"still running: {', '.join(still)}")
        return ", ".join(service.name for service in daemons)

    def _no_pidfiles(self) -> str:
        if self._staged.system == "linux":
            return self._no_processes()
        there = [path for service in self._staged.services for path in service.pidfiles if Path(path).exists()]
        if there:
            raise StepError(f"still there: {', '.join(there)}")
        return "none left"

    def _no_processes(self) -> str:
        """systemd keeps no pidfiles: what is left of a service is what its control group says."""
        for service in self._staged.services:
            if service.daemon:
                shown = _output("systemctl", "show", "--property", "MainPID", "--value", service.name)
                if shown != "0":
                    raise StepError(f"{service.name} still has process {shown}")
        return "systemd keeps none, and no process is left"

    def _rotation(self) -> str:
        if self._staged.system == "linux":
            if _output("systemctl", "is-active", "systemd-journald") != "active":
                raise StepError("the journal, which limits itself, is not running")
            return f"the journal limits itself: {_output('journalctl', '--disk-usage')}"
        return "; ".join(self._rotated(service) for service in self._staged.services)

    def _rotated(self, service: StagedService) -> str:
        if not Path(service.rotation).is_file():
            raise StepError(f"{service.rotation} is missing")
        plan = _output("newsyslog", "-n", "-v", "-f", service.rotation)
        if service.log not in plan:
            raise StepError(f"newsyslog does not know {service.log}: {plan}")
        return f"newsyslog knows {service.log}"

    def _ask(self, method: str, url: str, body: object = None) -> tuple[int, Any]:
        """Return status and document; 0 where nothing answers."""
        key = self._staged.api_key if self._staged.api else self._staged.engine_key
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {Path(key).read_text().strip()}"
        data = None if body is None else json.dumps(body)
        where = urlsplit(url)
        connection = HTTPConnection(where.hostname or "", where.port, timeout=self._answer_s)
        try:
            connection.request(method, f"{where.path}?{where.query}" if where.query else where.path, data, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except (OSError, HTTPException) as error:
            return 0, str(error)
        finally:
            connection.close()
        return answer.status, json.loads(text) if answer.status == 200 and text[:1] in "[{" else text


def _output(*words: str) -> str:
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip()


def exit_code(steps: Sequence[Step]) -> int:
    """Return 1 if a step failed, else 2 if one is missing, else 0."""
    results = {step.result for step in steps}
    return next(EXIT[result] for result in (FAILED, MISSING, OK) if result in results or result == OK)
