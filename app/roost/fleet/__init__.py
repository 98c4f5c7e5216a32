"""Nomad, its jobs, and the artifacts (engine, agent, images) that the jobs run."""
