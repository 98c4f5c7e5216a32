"""What a model's chat template can render, as far as conversations have to be arranged for it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Capabilities:
    """What a template takes without raising or dropping something.

    `system`: a system message at the beginning. `late_system`: one anywhere, too, unless it alternates. `alternates`:
    user and assistant have to take turns, the user first. `tools`: calls of an assistant and messages of tools.
    `many_calls`: more than one call in a message. `text_with_calls`: a message with calls may have a text, too.
    `call_id_length`: call ids have to be this many letters and digits, 0 for any.
    """

    system: bool = True
    late_system: bool = True
    alternates: bool = False
    tools: bool = True
    many_calls: bool = True
    text_with_calls: bool = True
    call_id_length: int = 0


STRICTEST = Capabilities(
    system=False, late_system=False, alternates=True, tools=False, many_calls=False, text_with_calls=False
)
"""What every template renders: for a model of which nothing is known."""
