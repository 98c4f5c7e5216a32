"""A client of Roost's own API for the command line."""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from roost.cli.access import Access, on_loopback, trusting
from roost.ops.errors import NOT_ALLOWED, NOT_FOUND, USAGE, RoostError

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 300.0  # between two tokens; a long prompt on a slow machine takes its time
QUICK_TIMEOUT_S = 5.0
AGENT_TIMEOUT_S = 30.0  # the hub assembles the agent with the first request, which takes its time on a busy machine
AGENT_PATHS = "/roost/v1/"
READY, COLD, UNREACHABLE = "ready", "cold", "unreachable"
BEST_FIRST = (READY, "loading", COLD, "down")
DATA = "data:"
DONE = "[DONE]"

Message = dict[str, str]
Json = Any


@dataclass(frozen=True)
class Readiness:
    """What `/readyz` says. `slots` counts the model servers of each slot by state."""

    reachable: bool
    ready: bool
    reasons: tuple[str, ...]
    slots: dict[str, dict[str, int]]

    def state_of(self, slot: str) -> str:
        """Return the best state of a slot's model servers; `unknown` or `unreachable` where nothing is said of it."""
        counts = self.slots.get(slot, {})
        return next((state for state in BEST_FIRST if counts.get(state)), "unknown" if self.reachable else UNREACHABLE)


@dataclass(frozen=True)
class Ended:
    """The end of an answer: model, tokens, tokens a second (None where unknown), why it ended."""

    model: str
    prompt_tokens: int
    tokens: int
    tokens_per_s: float | None
    finish_reason: str


@dataclass(frozen=True)
class Options:
    """What a chat request asks for beyond its messages; None leaves it to the server."""

    model: str = "auto"
    max_tokens: int | None = None
    temperature: float | None = None


EXIT_CODES = {400: USAGE, 401: NOT_ALLOWED, 403: NOT_ALLOWED, 404: NOT_FOUND, 422: USAGE}
"""What a verb ends with where the API refuses, by its status."""


class Api:
    """Requests to the API; used as a context manager."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._client = self._new_client()

    def _new_client(self) -> httpx.Client:
        key = self._access.key
        return httpx.Client(
            base_url=self._access.base_url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            verify=trusting(self._access.ca),
            trust_env=not on_loopback(self._access.base_url),  # no proxy between this machine and itself
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._client.close()

    def readiness(self) -> Readiness:
        """Ask `/readyz`; never raises."""
        try:
            answer = self._client.get("/readyz", timeout=QUICK_TIMEOUT_S)
            document = answer.json()
            return Readiness(
                reachable=True,
                ready=answer.status_code == httpx.codes.OK,
                reasons=tuple(str(r) for r in document.get("reasons", [])),
                slots=dict(document.get("slots", {})),
            )
        except httpx.HTTPError as error:
            reason = f"the API does not answer at {self._access.base_url} ({_said(error)})"
            return Readiness(reachable=False, ready=False, reasons=(reason,), slots={})
        except (ValueError, AttributeError):
            reason = f"what answers at {self._access.base_url} is not Roost"
            return Readiness(reachable=False, ready=False, reasons=(reason,), slots={})

    def get(self, path: str) -> Json:
        """GET a JSON object.

        Raises:
            RoostError: the API does not answer, or refuses.
        """
        with self._explained():
            return self._object(self._client.get(path, timeout=patience(path)))

    def find(self, path: str) -> Json | None:
        """GET a JSON object; None where there is nothing of that path.

        Raises:
            RoostError: the API does not answer, or refuses for another reason.
        """
        with self._explained():
            answer = self._client.get(path, timeout=patience(path))
            return None if answer.status_code == httpx.codes.NOT_FOUND else self._object(answer)

    def post(self, path: str, body: dict[str, Json]) -> Json:
        """POST a JSON object; the answer is one, too.

        Raises:
            RoostError: the API does not answer, or refuses.
        """
        with self._explained():
            return self._object(self._client.post(path, json=body, timeout=patience(path)))

    def _object(self, answer: httpx.Response) -> Json:
        self._refuse(answer)
        try:
            document = answer.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise RoostError(f"What answers at {self._access.base_url} is not Roost.", fix="Check ROOST_API.")
        return document

    def send(self, method: str, path: str, body: Json = None, *, timeout_s: float = QUICK_TIMEOUT_S) -> dict[str, Json]:
        """Send a JSON object and return the one that is answered.

        Raises:
            RoostError: the API does not answer, or refuses.
        """
        with self._explained():
            answer = self._client.request(method, path, json=body, timeout=timeout_s)
            self._refuse(answer, "See `roost endpoints list`.")
            return dict(answer.json())

    def remove(self, path: str) -> None:
        """DELETE; nothing is answered.

        Raises:
            RoostError: the API does not answer, or refuses.
        """
        with self._explained():
            self._refuse(self._client.delete(path, timeout=patience(path)))

    def models(self) -> list[dict[str, Json]]:
        """Return the entries of `/v1/models`."""
        return list(self.get("/v1/models")["data"])

    def chat(self, messages: Sequence[Message], options: Options) -> Generator[str | Ended]:
        """Ask for an answer; yields its text as it comes and `Ended` at the end.

        Closing the iterator ends the work on the server.

        Raises:
            RoostError: the API does not answer, refuses, or breaks off.
        """
        body: dict[str, Json] = {
            "model": options.model, "messages": list(messages), "stream": True,
            "stream_options": {"include_usage": True},
        }  # fmt: skip
        if options.max_tokens is not None:
            body["max_tokens"] = options.max_tokens
        if options.temperature is not None:
            body["temperature"] = options.temperature
        # A client of its own: closing it closes the connection wherever Ctrl-C hit, and so stops the model server.
        with (
            self._explained(),
            self._new_client() as client,
            client.stream("POST", "/v1/chat/completions", json=body) as answer,
        ):
            if answer.is_error:
                answer.read()
                self._refuse(answer)
            yield from _read_stream(answer.iter_lines())

    def events(self, path: str, body: dict[str, Json]) -> Generator[dict[str, Json]]:
        """POST and yield the server-sent events that come back; closing the iterator closes the connection.

        Raises:
            RoostError: the API does not answer, refuses, or breaks off.
        """
        with self._explained(), self._new_client() as client, client.stream("POST", path, json=body) as answer:
            if answer.is_error:
                answer.read()
                self._refuse(answer)
            for line in answer.iter_lines():
                if line.startswith(DATA):
                    yield json.loads(line[len(DATA) :])

    def _refuse(self, answer: httpx.Response, where: str = "") -> None:
        if not answer.is_error:
            return
        try:
            said = str(answer.json()["error"]["message"])
        except (ValueError, KeyError, TypeError):
            said = f"status {answer.status_code}"
        fixes = {
            401: "Set ROOST_API_KEY to a key of yours (`sudo roost keys add NAME` makes one), or run with sudo.",
            404: where or f"See `{_lists(answer.request.url.path)}` for what there is.",
            503: "See what is missing with `roost status` and `roost doctor`.",
        }
        code = EXIT_CODES.get(answer.status_code, 1)
        raise RoostError(f"The API refused: {said}", fix=fixes.get(answer.status_code, ""), exit_code=code)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            raise RoostError(
                f"The API at {self._access.base_url} does not answer: {_said(error)}.",
                fix="See `roost status` and `roost doctor`.",
            ) from None


def patience(path: str) -> float:
    """Return how many seconds an answer may take."""
    return AGENT_TIMEOUT_S if path.startswith(AGENT_PATHS) else QUICK_TIMEOUT_S


def _lists(path: str) -> str:
    """Return the command that lists what is at a path of the API."""
    kind = path.removeprefix("/roost/v1/").split("/")[0]
    return {"sessions": "roost sessions list", "memory": "roost memory list", "skills": "roost skills list"}.get(
        kind, "roost models"
    )


def _read_stream(lines: Iterator[str]) -> Iterator[str | Ended]:
    """Read server-sent events of a chat answer.

    Raises:
        RoostError: the stream reports an error, or ends before its end mark.
    """
    model, reason = "", ""
    usage: dict[str, Json] = {}
    timings: dict[str, Json] = {}
    first: float | None = None
    pieces = 0
    for line in lines:
        if not line.startswith(DATA):
            continue
        data = line[len(DATA) :].strip()
        if data == DONE:
            seconds = time.monotonic() - first if first is not None else 0.0
            tokens = int(usage.get("completion_tokens", pieces))
            rate = timings.get("predicted_per_second") or ((tokens - 1) / seconds if tokens > 1 and seconds else None)
            yield Ended(model, int(usage.get("prompt_tokens", 0)), tokens, rate, reason)
            return
        event = json.loads(data)
        if "error" in event:
            raise RoostError(f"The answer broke off: {event['error'].get('message', event['error'])}", fix="Ask again.")
        model = event.get("model") or model
        usage = event.get("usage") or usage
        timings = event.get("timings") or timings
        for choice in event.get("choices", []):
            reason = choice.get("finish_reason") or reason
            text = (choice.get("delta") or {}).get("content")
            if text:
                pieces += 1
                first = first if first is not None else time.monotonic()
                yield text
    raise RoostError("The answer broke off before its end.", fix="Ask again; see `roost status` if it happens again.")


def _said(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
