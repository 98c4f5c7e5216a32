"""Logs: one JSON object a line on standard error, without secrets and without what people write to a model."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import traceback
from collections.abc import Collection, MutableMapping
from contextlib import suppress
from functools import lru_cache
from typing import Any

import structlog

from roost.gateway.observe.context import CURRENT
from roost.gateway.settings import Settings
from roost.ops.errors import RoostError

REDACTED = "[redacted]"
SECRET_NAME = re.compile(
    r"authorization|api[-_]?key|engine[-_]?key|token$|secret|password|cookie|^(prompt|content|messages|body|input)$",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"\broost-[A-Za-z0-9_-]{20,}|\bsk-[A-Za-z0-9_-]{16,}"
    r"|(?i:(?:x-)?api[-_]?key|authorization|nomad[-_]token)[\"']?\s*[:=]\s*[\"']?(?i:(?:bearer|basic)\s+)?[^\s\"',}]+"
    r"|(?i:bearer|basic)\s+[^\s\"']+"
    r"|\beyJ[\w-]+\.[\w-]+\.[\w-]+"  # a workload identity
)
# What these say is written by us, the system or a library about itself. The text of any other exception may hold what
# it stumbled over, a prompt for example: of those only the kind and the place are logged.
TELLING = (RoostError, OSError, TimeoutError, ImportError, MemoryError)
PLAIN = frozenset({bool, int, float})  # kinds of values that hide nothing
MOST_CHARACTERS = 2000  # of one value
SHORTEST_SECRET = 8  # characters
SHORTEST_MATCH = 7  # `basic x`: nothing shorter is matched by what looks like a secret, or is one that is known


ENCODER = json.JSONEncoder(default=repr)  # one for all lines: `json.dumps` would make one for each


@lru_cache(1024)  # a line of the log has some twenty names, always the same
def names_a_secret(name: str) -> bool:
    """Say whether what has this name must not be shown."""
    return SECRET_NAME.search(name) is not None


class Redactor:
    """Hides what is named like a secret, what looks like one inside any text, and the secrets it was told of."""

    def __init__(self, known: Collection[str] = ()) -> None:
        self._secrets: set[str] = set()
        self._known: re.Pattern[str] | None = None
        self.know(known)

    def know(self, secrets: Collection[str]) -> None:
        """Hide these, too, from now on: what is no longer in use may still turn up, and stays hidden.

        What is short is no secret but a word such as "ollama", which people give where any key will do.
        """
        more = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET} - self._secrets
        if more:
            self._secrets |= more
            words = sorted(map(re.escape, self._secrets), key=len, reverse=True)
            self._known = re.compile("|".join(words))

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Return the event without secrets."""
        return {
            # What most values are, decided here: a line has some twenty of them.
            name: value
            if (value is None or type(value) in PLAIN) and not names_a_secret(name)
            else self._clean(name, value)
            for name, value in event.items()
        }

    def _clean(self, name: str, value: object) -> object:
        if names_a_secret(name):
            return REDACTED
        if isinstance(value, str):
            return self._text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, dict):
            return {self._text(str(key)): self._clean(str(key), inner) for key, inner in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._clean("", inner) for inner in value]
        return self._text(repr(value))

    def _text(self, text: str) -> str:
        if len(text) < SHORTEST_MATCH:  # most values of a line
            return text
        if self._known:
            text = self._known.sub(REDACTED, text)
        if not text.isalnum():  # an id, for example; every alternative has some other character in it
            text = SECRET_VALUE.sub(REDACTED, text)
        return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def of_request(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say which request and trace a line belongs to, where it belongs to one."""
    current = CURRENT.get()
    if current:
        event.setdefault("request_id", current.request_id)
        event.setdefault("trace_id", current.trace_id)
    return event


def format_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Turn `exc_info` into the kinds of exceptions and where they came from."""
    given = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = given[1]
    elif given and not isinstance(given, BaseException):
        given = sys.exc_info()[1]
    if isinstance(given, BaseException):
        event["exception"] = described(given)
    return event


def described(error: BaseException) -> list[str]:
    """Return an exception and those behind it, first the one that was raised last, each with its places."""
    lines: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        kind = type(following)
        said = f": {following}" if isinstance(following, TELLING) else ""
        lines.append(f"{kind.__module__}.{kind.__qualname__}{said}")
        places = traceback.extract_tb(following.__traceback__)
        lines += [f"  {place.filename}:{place.lineno} {place.name}" for place in places]
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return lines


def report_of_loop(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what the event loop complains of without the texts of its tasks; for `set_exception_handler`."""
    said = str(context.get("message", "")).partition("\n")[0]
    structlog.get_logger(__name__).error("event_loop", said=said, exc_info=context.get("exception"))


def known_secrets(settings: Settings) -> list[str]:
    """Return the secrets that this process holds itself: of keys of the API it has only hashes."""
    found = [settings.nomad_token.get_secret_value()]
    for file in (settings.engine_key_file, settings.peer_key_file):
        with suppress(OSError):  # said where it is used
            found.append(file.read_text().strip() if file else "")
    return [secret for secret in found if secret]


def as_json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return the line: what the redactor has left is plain."""
    return ENCODER.encode(event)


class Lines:
    """The end of structlog's way for one of our loggers: a line on standard error.

    A line that cannot be written is lost, and nothing else: whoever reads the log may have ended before us, as all do
    when the machine goes down, and its disk may be full.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        try:
            sys.stderr.write(f"{line}\n")
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = msg


def configure(level: str, known: Collection[str] = ()) -> Redactor:
    """Send structlog and the standard library's loggers, uvicorn's included, to standard error as JSON.

    `known` are secrets of this process: wherever they turn up they are hidden. The redactor that is returned is told of
    those that come later.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        of_request,
        format_exception,
    ]
    redactor = Redactor(known)
    rendered: list[structlog.typing.Processor] = [redactor, as_json]
    # Our own lines go straight to standard error: through the standard library each costs twice as much, and there is
    # one for each request.
    structlog.configure(
        processors=[*shared, *rendered],
        logger_factory=Lines,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.PositionalArgumentsFormatter()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *rendered,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logging.getLogger("uvicorn.access").disabled = True
    return redactor
