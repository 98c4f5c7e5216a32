"""Which model answers a request for `auto`, and whether its answer is good enough; explained in docs/routing.md."""
