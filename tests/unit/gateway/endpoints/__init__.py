"""Tests of endpoints beyond their probes."""
