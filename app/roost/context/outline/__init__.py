"""Outlines of long texts, one kind of text a file: what a briefing of the content gate is made of."""
