"""All endpoints as routing sees them at one moment, with what follows from that for one request after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roost.gateway.routing import Route, View, resolve_for
from roost.ops.api_keys import ApiKey

MOST_ROUTES = 256  # clients choose the names


class Standing:
    """Never changes; the registry makes another one when an endpoint does.

    `until` is when it is no longer true though nothing happens, in seconds of the monotonic clock.
    """

    def __init__(self, views: Sequence[View], remembered: Mapping[str, str], until: float, settled: bool) -> None:
        self.views = views
        self.until = until
        self._remembered = remembered
        self._settled = settled
        names = {view.slot for view in views} | {model for view in views for model in view.models}
        self.offered = frozenset(names | remembered.keys() | set(remembered.values()))
        self._routes: dict[tuple[str, Sequence[str]], Route] = {}

    def route(self, name: str, key: ApiKey | None) -> Route:
        """Resolve a model's name among what `key` may use; the same route again for the same question."""
        asked = (name, key.models if key else ())
        found = self._routes.get(asked)
        if found is None:
            found = resolve_for(key, name, self.views, self._remembered, settled=self._settled)
            if len(self._routes) < MOST_ROUTES:
                self._routes[asked] = found
        return found
