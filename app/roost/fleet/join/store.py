"""The tokens that were given out, in one file of root's: hashes of their secrets, until when, whether used."""

from __future__ import annotations

import fcntl
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path

from roost.fleet.join.token import Token
from roost.ops.errors import RoostError
from roost.ops.files import write_atomic

FILE = "join-tokens.json"
REMEMBER_S = 86400.0  # how long a token that is over is known, so that its refusal can say why
AGAIN = "Make a new one on the server: sudo roost fleet token."


class TokenRefusedError(RoostError):
    """The token opens nothing; the message says why."""


@dataclass(frozen=True)
class Entry:
    """A token that was given out. Times in seconds since 1970; `used_by` is empty until it was used."""

    number: str
    secret_sha256: str
    expires: float
    used_by: str = ""


KEPT = tuple(field.name for field in fields(Entry))  # an earlier release wrote down more


@dataclass(frozen=True)
class Store:
    """The list of one fleet; `folder` is that of its secrets."""

    folder: Path

    def add(self, token: Token, *, expires: float, now: float) -> None:
        """Write down a token that is given out."""
        entry = Entry(token.number, sha256(token.secret).hexdigest(), expires)
        with self._locked() as entries:
            kept = [e for e in entries if e.expires + REMEMBER_S > now]
            self._write([*kept, entry])

    def use(self, number: str, secret: bytes, by: str, now: float) -> Entry:
        """Use a token up for a machine; of two who use it at once one is refused.

        Raises:
            TokenRefusedError: it is unknown, altered, over, or used.
        """
        with self._locked() as entries:
            entry = next((e for e in entries if e.number == number), None)
            if entry is None or not hmac.compare_digest(entry.secret_sha256, sha256(secret).hexdigest()):
                raise TokenRefusedError("This token is not known here: it was altered, or is very old.", fix=AGAIN)
            if entry.used_by:
                raise TokenRefusedError(f"This token was used already, by {entry.used_by}.", fix=AGAIN)
            if entry.expires <= now:
                raise TokenRefusedError(f"This token ended {now - entry.expires:.0f} s ago.", fix=AGAIN)
            used = replace(entry, used_by=by)
            self._write([used if e is entry else e for e in entries])
        return used

    def open_until(self, now: float) -> float:
        """Return until when a token is good that nobody used yet; 0 where there is none."""
        with self._locked() as entries:
            return max((e.expires for e in entries if not e.used_by and e.expires > now), default=0.0)

    def count(self, now: float) -> int:
        """Return how many tokens are open."""
        with self._locked() as entries:
            return sum(not e.used_by and e.expires > now for e in entries)

    @contextmanager
    def _locked(self) -> Iterator[list[Entry]]:
        with (self.folder / f".{FILE}.lock").open("a") as lock:
            (self.folder / f".{FILE}.lock").chmod(0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                loaded = json.loads((self.folder / FILE).read_text())
                yield [Entry(**{name: entry[name] for name in KEPT if name in entry}) for entry in loaded]
            except FileNotFoundError:
                yield []
            except (ValueError, TypeError) as error:
                raise RoostError(
                    f"{self.folder / FILE} cannot be read: {error}.", fix="Delete it; tokens given out end with it."
                ) from None

    def _write(self, entries: list[Entry]) -> None:
        write_atomic(self.folder / FILE, json.dumps([asdict(e) for e in entries], indent=1) + "\n", mode=0o600)
