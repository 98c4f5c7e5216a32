"""Watching the gateway: metrics, traces, and what each line of the log is about."""
