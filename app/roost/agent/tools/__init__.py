"""The tools that act on a user's machine: one module a tool, run in a workspace by `LocalRunner`."""
