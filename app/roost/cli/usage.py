"""`roost usage`: tokens, time, energy and cost by key, model and day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from roost.cli.access import find_access
from roost.cli.api import Api
from roost.cli.keys import JsonOption
from roost.cli.show import print_json, print_table
from roost.ops.errors import RoostError

Json = Any
DAYS_BACK = 30
HOURS_OF = {"h": 1, "d": 24, "w": 7 * 24}
SINCE_FORMS = "today, yesterday, so long back (24h, 7d, 2w), or YYYY-MM-DD"
BAD_INPUT = 2
COLUMNS = (
    ("requests", "requests"), ("failed", "failed"), ("prompt_tokens", "tokens in"), ("cached_tokens", "cached"),
    ("completion_tokens", "tokens out"), ("engine_seconds", "engine s"), ("energy_wh", "Wh"), ("cost", "cost"),
)  # fmt: skip


def usage(
    *,
    by: Annotated[str, typer.Option(help="key, model, day, separated by commas.")] = "key",
    since: Annotated[str, typer.Option(help=f"First day (UTC): {SINCE_FORMS}.")] = f"{DAYS_BACK}d",
    until: Annotated[str, typer.Option(help=f"Last day (UTC): {SINCE_FORMS}.")] = "",
    key: Annotated[str, typer.Option(help="Of this key only.")] = "",
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what was used. A key sees its own usage, an administrator's all.

    Example: roost usage --by day,model --since 7d
    """
    asked = {"by": by, "since": day_of("--since", since), "until": day_of("--until", until), "key": key, "model": model}
    with Api(find_access()) as api:
        found: dict[str, Json] = api.get("/v1/usage?" + urlencode({n: v for n, v in asked.items() if v}))
    if as_json:
        print_json(found)
        return
    names = [name for name in ("day", "key", "model") if name in by.split(",")]
    heads = [*names, *(f"{head} {found['currency']}".strip() if head == "cost" else head for _, head in COLUMNS)]
    print_table(heads, [[*(row[n] for n in names), *(row[n] for n, _ in COLUMNS)] for row in found["data"]])


def day_of(option: str, text: str, now: datetime | None = None) -> str:
    """Return a day of UTC as YYYY-MM-DD, which is what usage is counted by; '' stays ''.

    Raises:
        RoostError: it is none of `SINCE_FORMS`; exit code 2.
    """
    now = now or datetime.now(UTC)
    word = text.strip().lower()
    if not word:
        return ""
    if word in {"today", "yesterday"}:
        return (now - timedelta(days=word == "yesterday")).date().isoformat()
    try:
        if word[:-1].isdigit() and word[-1] in HOURS_OF:
            return (now - timedelta(hours=int(word[:-1]) * HOURS_OF[word[-1]])).date().isoformat()
        moment = datetime.fromisoformat(text.strip())
    except OverflowError:
        raise RoostError(f"{option} {text} is too long ago.", fix="Write 30d, say.", exit_code=BAD_INPUT) from None
    except ValueError:
        raise RoostError(
            f"{option} does not know the day {text!r}.", fix=f"Write {SINCE_FORMS}.", exit_code=BAD_INPUT
        ) from None
    return (moment.astimezone(UTC) if moment.tzinfo else moment).date().isoformat()
