"""End to end: the real bootstrap in disposable hosts."""
