"""The service in a machine, asked over HTTP: the bytes go through the guest agent to its address of loopback.

No program starts in the guest for it but a shell: where the processor is emulated, Python takes seconds to begin.
"""

from __future__ import annotations

import http.client
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tests.hosts.host import wait_until
from tests.qemu.machine import Machine

# Few tokens: where the processor is emulated, each takes a second and more.
QUESTION = {"model": "auto", "prompt": "The capital of France is", "temperature": 0, "max_tokens": 4}
EXPECT = "Paris"
ASK_S = 60.0
FLIGHT = "/run/flight"


class _Bytes(io.BytesIO):
    """A socket as http.client reads one."""

    def makefile(self, _mode: str) -> io.BytesIO:
        return self


@dataclass(frozen=True)
class Reply:
    """An answer; status 0: there was none, and the body says why."""

    status: int
    body: str

    @cached_property
    def document(self) -> dict[str, Any]:
        """The body as JSON."""
        return dict(json.loads(self.body))


def parse(raw: bytes) -> Reply:
    """Return the answer in the bytes that came back."""
    response = http.client.HTTPResponse(_Bytes(raw))  # type: ignore[arg-type]  # it only ever calls makefile
    try:
        response.begin()
        return Reply(response.status, response.read().decode())
    except (http.client.HTTPException, OSError) as error:
        return Reply(0, f"{type(error).__name__}: {error}")


def request(method: str, path: str, body: object = None, **headers: str) -> bytes:
    """Return the bytes of a request after whose answer the connection is closed."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Connection: close", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] * bool(content)
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


class Service:
    """The gateway and the agent of a machine, with its first key; `says` is the file that tells where both are."""

    def __init__(self, machine: Machine, says: str) -> None:
        self.machine = machine
        self._says = says

    @cached_property
    def _site(self) -> dict[str, Any]:
        return dict(json.loads(self.machine.exec(f"cat {self._says}").out))

    @cached_property
    def key(self) -> str:
        """The key that was made with the machine."""
        path = self._site.get("api_key") or self._site["api_key_file"]
        return self.machine.exec(f"cat {path}").out.strip()

    @cached_property
    def port(self) -> int:
        """Where it listens."""
        return int(self._site["api"].rpartition(":")[2])

    def ask(self, method: str, path: str, body: object = None, timeout_s: float = ASK_S) -> Reply:
        """Ask once."""
        raw = request(method, path, body, Authorization=f"Bearer {self.key}")
        limit_s = timeout_s * self.machine.accelerator.patience
        done = self.machine.exec(
            f"timeout {limit_s:.0f} bash -c {shlex.quote(self._exchange)}",
            check=False,
            stdin=raw,
            timeout_s=timeout_s + 10,
        )
        return parse(done.out.encode()) if done.code == 0 else Reply(0, done.text)

    @property
    def _exchange(self) -> str:
        """Bash that sends its input to the service and prints what comes back."""
        return f"exec 3<>/dev/tcp/127.0.0.1/{self.port} && cat >&3 && cat <&3"

    def wait(self, what: str, check: Callable[[], bool], limit_s: float = ASK_S) -> float:
        """Wait for what should come within `limit_s` on a real processor; return the seconds it took."""
        return wait_until(what, check, limit_s * self.machine.accelerator.patience, pause_s=1)

    def answers(self) -> float:
        """Wait until the model says that it is Paris; return the seconds it took."""
        ready_s = self.wait("the API is ready", lambda: self.ask("GET", "/readyz").status == 200)
        return ready_s + self.wait("the model answers", lambda: EXPECT in self.text())

    def text(self) -> str:
        """Ask the model once; return what it says, nothing if it was refused or nobody answered."""
        reply = self.ask("POST", "/v1/completions", QUESTION)
        return text_of(reply) if reply.status == 200 else ""

    def answer(self) -> str:
        """Ask the model once; return what it says.

        Raises:
            AssertionError: it was refused, or nobody answered.
        """
        return text_of(self.ask("POST", "/v1/completions", QUESTION))

    def begin(self) -> None:
        """Ask the model and leave the request under way."""
        raw = request("POST", "/v1/completions", QUESTION, Authorization=f"Bearer {self.key}")
        limit_s = ASK_S * self.machine.accelerator.patience
        exchange = f"timeout {limit_s:.0f} bash -c {shlex.quote(self._exchange)} <{FLIGHT}.in >{FLIGHT}.out 2>&1"
        command = f"rm -f {FLIGHT}.*; cat >{FLIGHT}.in; ({exchange}; touch {FLIGHT}.over) </dev/null >/dev/null 2>&1 &"
        self.machine.exec(command, stdin=raw)

    def end(self) -> Reply:
        """Wait for the answer to what `begin` asked."""
        limit_s = ASK_S * self.machine.accelerator.patience
        over = f"test -e {FLIGHT}.over"
        wait_until("the request ends", lambda: self.machine.exec(over, check=False).code == 0, limit_s, pause_s=1)
        return parse(self.machine.exec(f"cat {FLIGHT}.out").out.encode())


def text_of(reply: Reply) -> str:
    """Return what a model said.

    Raises:
        AssertionError: it is no answer of a model.
    """
    assert reply.status == 200, reply
    return str(reply.document["choices"][0]["text"])
