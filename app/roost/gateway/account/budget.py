"""What a key has used of its budget, and when that is renewed. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from roost.ops.api_keys import Budget

NO_BUDGET = Budget()


@dataclass(frozen=True)
class Spent:
    """What a key has used in this UTC day and month."""

    tokens_day: int = 0
    tokens_month: int = 0
    cost_day: float = 0.0
    cost_month: float = 0.0


def over_budget(budget: Budget, spent: Spent) -> str:
    """Return which part of the budget is used up, as the name of its field, or nothing."""
    pairs = {
        "tokens_per_day": (budget.tokens_per_day, spent.tokens_day),
        "tokens_per_month": (budget.tokens_per_month, spent.tokens_month),
        "cost_per_day": (budget.cost_per_day, spent.cost_day),
        "cost_per_month": (budget.cost_per_month, spent.cost_month),
    }
    return next((name for name, (limit, used) in pairs.items() if limit and used >= limit), "")


def until_renewed_s(part: str, now: datetime) -> int:
    """Return in how many seconds a part of a budget begins anew: at midnight, or with the month, in UTC."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if part.endswith("_day"):
        renewed = midnight + timedelta(days=1)
    else:
        renewed = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return math.ceil((renewed - now).total_seconds())
