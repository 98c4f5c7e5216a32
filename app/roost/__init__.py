"""Roost: a private fleet that serves local language models and works with them."""

__version__ = "0.1.0"
