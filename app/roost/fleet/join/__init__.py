"""How a machine joins a fleet by a token: short-lived, for one use, and with no lasting secret in it."""
