"""Endpoints beyond their probes: outliers, those added by hand, what is kept of all of them over a restart."""
