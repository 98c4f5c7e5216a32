"""Several gateways that are one service: they share limits, budgets and usage."""
