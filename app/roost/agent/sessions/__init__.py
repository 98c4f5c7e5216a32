"""Conversations on disk: one append-only file of JSON lines each, owned by a key, with an index for search."""
