"""Where programs of agents run: with nothing but a workspace, no network, and limits. See docs/sandbox.md."""
