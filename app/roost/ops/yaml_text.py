"""YAML as plain data, read by libyaml where PyYAML has it: commands that read variables or models wait for it."""

from __future__ import annotations

import yaml

try:  # twenty times as fast
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]  # both load the same plain data


def load_yaml(text: str) -> object:
    """Return what a document holds: mappings, lists, texts, numbers; None for an empty one.

    Raises:
        yaml.YAMLError: it is not valid.
    """
    return yaml.load(text, Loader=SafeLoader)
