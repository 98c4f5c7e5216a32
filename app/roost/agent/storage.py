"""Asking a store on disk from a route: in a thread, and with an answer for what may be wrong with the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import ClassVar, TypeVar

from roost.gateway.errors import ApiError
from roost.ops.errors import RoostError

T = TypeVar("T")


class MissingError(RoostError):
    """Something is not there, or is another key's: both look the same. `code` says to clients what it is."""

    code: ClassVar[str] = "not_found"


async def stored(ask: Callable[[], T]) -> T:
    """Ask a store in a thread.

    Raises:
        ApiError: it has no such thing, or the disk is full or damaged.
    """
    try:
        return await asyncio.to_thread(ask)
    except MissingError as error:
        raise ApiError(404, error.message, code=error.code) from None
    except FileNotFoundError:  # removed meanwhile
        raise ApiError(404, "It is not there any more.", code=MissingError.code) from None
    except (OSError, sqlite3.Error) as error:
        raise ApiError(507, f"It cannot be kept: {error}.", kind="server_error", code="storage") from None
    except RoostError as error:
        raise ApiError(503, str(error), kind="server_error", code="storage") from None
