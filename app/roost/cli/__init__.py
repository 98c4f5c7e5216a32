"""The roost command: assembly only."""
