"""Names that stand for others: the roles that every fleet answers to, and aliases of the operator's own. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from roost.gateway.routing import ADAPTER_MARK, AUTO, EMBEDDING, MAIN_SLOT

# Role -> who takes it where no slot has its name. A small fleet has one model for all of them, but for embeddings.
ROLES: Mapping[str, str] = {AUTO: MAIN_SLOT, "router": MAIN_SLOT, "specialist": MAIN_SLOT, "memory": MAIN_SLOT}
VIRTUAL = (AUTO, MAIN_SLOT, *(role for role in ROLES if role != AUTO), EMBEDDING)


def meaning(name: str, offered: Collection[str], aliases: Mapping[str, str]) -> str:
    """Return the model or slot that a name stands for; itself if it is one, or if nobody knows it.

    `offered` are the models and slots that there are. What follows a `+`, an adapter, stays.
    """
    if name in offered:
        return name
    base, mark, adapter = name.rpartition(ADAPTER_MARK)
    if mark and base:
        return f"{meaning(base, offered, aliases)}{ADAPTER_MARK}{adapter}"
    found = aliases.get(name, name)
    if found not in offered and found in ROLES:
        found = ROLES[found]
    return found


def is_auto(name: str, offered: Collection[str], aliases: Mapping[str, str]) -> bool:
    """Say whether a name leaves the choice of the model to the gateway: `auto` itself, or an alias of it."""
    return name not in offered and aliases.get(name, name) == AUTO and AUTO not in offered


def also_called(slot: str, offered: Collection[str], aliases: Mapping[str, str]) -> list[str]:
    """Return all names that lead to a slot, its own among them: virtual ones first, then aliases."""
    names = [*VIRTUAL, *(() if slot in VIRTUAL else (slot,)), *sorted(aliases.keys() - set(VIRTUAL) - {slot})]
    return [name for name in names if meaning(name, {*offered, slot}, aliases) == slot]
