"""Whether a saved slot of a model helps later prompts: pure, from GGUF metadata.

Where a model keeps all keys and values, a prompt that begins like the saved one goes on from there. With a sliding
window or a recurrent state only the state after the last token is left, which fits no other prompt, and the engine
begins anew (llama.cpp, issue 28194).
"""

from __future__ import annotations

from collections.abc import Mapping

WINDOW = ".attention.sliding_window"
WINDOW_BUILT_IN = ("llama4.",)  # the engine itself knows their window, no key does
RECURRENT_PARTS = (".ssm.", ".shortconv.", ".wkv.", ".kda.")


def slots_reusable(shape: Mapping[str, object]) -> bool:
    """Say whether slots are worth saving; `shape` holds GGUF metadata by key. Of an unknown model they are not."""
    if not shape:
        return False
    windows = [value for key, value in shape.items() if key.endswith(WINDOW)]
    if any(window not in (0, None) for window in windows) or any(key.startswith(WINDOW_BUILT_IN) for key in shape):
        return False
    return not any(part in key for key in shape for part in RECURRENT_PARTS)
