"""Disposable Debian hosts in containers, on a network of their own, for tests that install the real thing."""
