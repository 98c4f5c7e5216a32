"""Names of Roost's own services outside Nomad, as `group_vars/fleet.yaml` has them, and of what runs for a while."""

from __future__ import annotations

DOCKER = "roost-docker"
FIREWALL = "roost-firewall"
LISTEN = "roost-listen"
NOMAD = "roost-nomad"
REGISTRY = "roost-registry"
JOIN = "roost-join"
"""`roost fleet receive`, while a join token is open."""
SHARE = "roost-share"
"""What gives other machines of a fleet what a run made."""
