"""What SearXNG is told: its `settings.yml` (https://docs.searxng.org/admin/settings/index.html)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

ENGINE_TIMEOUT_S, MOST_ENGINE_TIMEOUT_S = 4.0, 6.0
Engine = str | dict[str, object]


def settings_document(engines: Sequence[Engine], *, bind: str, port: int) -> str:
    """Return the file. Its secret is no part of it: SearXNG takes that from `SEARXNG_SECRET`.

    `engines` are names of SearXNG's own, or whole entries of its list; none leaves the choice to SearXNG. Answers are
    JSON, which SearXNG gives only where it is named. The limiter is off: nobody but this machine reaches it. It keeps
    no metrics, and says nothing of itself to others.
    """
    names = [engine if isinstance(engine, str) else str(engine["name"]) for engine in engines]
    entries: list[Mapping[str, object]] = [
        {"name": engine, "disabled": False} if isinstance(engine, str) else {"disabled": False, **engine}
        for engine in engines
    ]
    document: dict[str, object] = {
        "use_default_settings": {"engines": {"keep_only": names}} if names else True,
        "general": {
            "debug": False, "instance_name": "Roost", "enable_metrics": False, "donation_url": False,
            "contact_url": False, "privacypolicy_url": False,
        },
        "search": {"safe_search": 0, "autocomplete": "", "favicon_resolver": "", "formats": ["html", "json"]},
        "server": {
            "bind_address": bind, "port": port, "base_url": False, "limiter": False, "public_instance": False,
            "image_proxy": False, "method": "GET",
        },
        "outgoing": {"request_timeout": ENGINE_TIMEOUT_S, "max_request_timeout": MOST_ENGINE_TIMEOUT_S},
    }  # fmt: skip
    if entries:
        document["engines"] = [dict(entry) for entry in entries]
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
    return text
