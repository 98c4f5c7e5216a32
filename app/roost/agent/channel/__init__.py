"""The channel between a hub and its workers: `wire` for both, `desk` is the hub's end, `client` the worker's."""
