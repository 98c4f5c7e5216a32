"""`roost usage`: tokens, time, energy and cost by key, model and day."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from roost.cli.api import Api, find_access
from roost.cli.keys import JsonOption
from roost.cli.show import print_json, print_table
from roost.ops.errors import RoostError

Json = Any
DAYS_BACK = 30
COLUMNS = (
    ("requests", "requests"), ("failed", "failed"), ("prompt_tokens", "tokens in"), ("cached_tokens", "cached"),
    ("completion_tokens", "tokens out"), ("engine_seconds", "engine s"), ("energy_wh", "Wh"), ("cost", "cost"),
)  # fmt: skip


def usage(
    *,
    by: Annotated[str, typer.Option(help="key, model, day, separated by commas.")] = "key",
    since: Annotated[str, typer.Option(help="First day (UTC), or so many days back: 7d.")] = f"{DAYS_BACK}d",
    until: Annotated[str, typer.Option(help="Last day, YYYY-MM-DD (UTC).")] = "",
    key: Annotated[str, typer.Option(help="Of this key only.")] = "",
    model: Annotated[str, typer.Option(help="Of this model only.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Show what was used. A key sees its own usage, an administrator's all.

    Example: roost usage --by day,model --since 7d
    """
    asked = {"by": by, "since": first_day(since), "until": until, "key": key, "model": model}
    with Api(find_access()) as api:
        found: dict[str, Json] = api.get("/v1/usage?" + urlencode({n: v for n, v in asked.items() if v}))
    if as_json:
        print_json(found)
        return
    names = [name for name in ("day", "key", "model") if name in by.split(",")]
    heads = [*names, *(f"{head} {found['currency']}".strip() if head == "cost" else head for _, head in COLUMNS)]
    print_table(heads, [[*(row[n] for n in names), *(row[n] for n, _ in COLUMNS)] for row in found["data"]])


def first_day(text: str, today: datetime | None = None) -> str:
    """Return a day as YYYY-MM-DD; `7d` is a week before today.

    Raises:
        RoostError: it is neither.
    """
    if text.endswith("d") and text[:-1].isdigit():
        try:
            return ((today or datetime.now(UTC)) - timedelta(days=int(text[:-1]))).date().isoformat()
        except OverflowError:
            raise RoostError(f"{text} is too long ago.", fix="Write 30d, say.") from None
    return text
