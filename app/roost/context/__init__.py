"""Tokens, cost modes, compaction, content gate, repair of conversations: what a model is shown. It knows no tools."""
