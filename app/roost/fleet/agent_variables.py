"""Names of the agent's job and of what it reads and writes in Nomad; for the gateway too, which has no templates."""

from __future__ import annotations

AGENT_JOB = "roost-agent"
# The endpoints that were added by hand. Its policy says that the agent may read and write it (`fleet/nomad_setup.py`).
ENDPOINTS_VARIABLE = f"nomad/jobs/{AGENT_JOB}/endpoints"
ENDPOINTS_ITEM = "endpoints"
