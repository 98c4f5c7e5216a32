"""Tools of other programs by the Model Context Protocol, and ours for them. Runs with the worker, never in the hub.

`servers`: which a user named. `connection`: one that runs. `tools`: what they offer, as tools of the runner.
`serve`: Roost's own tools as a server. Only `connection`, `process`, `web` and `serve` import the package `mcp`.
"""
