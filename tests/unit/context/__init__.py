"""Tests of the context room."""
