"""Whether a saved slot of a model helps later prompts: pure, from GGUF metadata.

Where a model keeps all keys and values, a prompt that begins like the saved one goes on from there. With a sliding
window or a recurrent state only the state after the last token is left, which fits no other prompt, and the engine
begins anew (llama.cpp, issue 28194).
"""

from __future__ import annotations

from collections.abc import Mapping

WINDOW = "attention.sliding_window"
WINDOW_BUILT_IN = ("llama4",)  # the engine itself knows their window, no key does
RECURRENT = ("ssm.", "shortconv.", "wkv.", "kda.")


def slots_reusable(architecture: str, shape: Mapping[str, object]) -> bool:
    """Say whether slots are worth saving; `shape` is the catalogue's. Of a model whose shape is unknown they are not.

    The `shape` holds GGUF metadata by key, without the architecture before it.
    """
    if not shape or architecture in WINDOW_BUILT_IN or shape.get(WINDOW) not in (None, 0):
        return False
    return not any(key.startswith(RECURRENT) for key in shape)
