"""SearXNG for the fleet: what it is told, and its job in Nomad."""
