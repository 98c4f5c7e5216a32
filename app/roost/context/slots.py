"""What is known of the models in use: how each is counted with, and what its template can; asked for once."""

from __future__ import annotations

from collections.abc import Callable

from roost.context.capabilities import Capabilities
from roost.context.discover import discover
from roost.context.keeper import Slot
from roost.context.tokens import Guarded, TokenCounter

MOST = 256
"""Keys and models that are remembered; the longest unused are asked again."""


class Slots:
    """Slots by key and model. `counter_of` makes a counter of a secret and a model's name."""

    def __init__(self, counter_of: Callable[[str, str], TokenCounter]) -> None:
        self._counter_of = counter_of
        self._known: dict[tuple[str, str], tuple[Guarded, Capabilities]] = {}

    async def slot(self, secret: str, model: str, context_tokens: int) -> Slot:
        """Return the slot of a model, asked for with a key.

        Raises:
            CountError: the model is not there.
        """
        known = self._known.pop((secret, model), None)
        if known is None:
            server = self._counter_of(secret, model)
            known = (Guarded(server), await discover(server))
        self._known[secret, model] = known
        if len(self._known) > MOST:
            del self._known[next(iter(self._known))]
        counter, capabilities = known
        return Slot(context_tokens, counter, capabilities)
