"""Which models there are, how much memory they need, and how they come to a machine."""
