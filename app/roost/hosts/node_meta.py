"""What a machine tells Nomad of itself, so that jobs can ask for it: `${meta.roost_tier}`. Pure.

Only what stays the same from run to run: a changed value restarts Nomad. So memory is rounded, and what is free, or
which addresses there are, is left to the facts.
"""

from __future__ import annotations

import re

from roost.hosts.bandwidth import Bandwidth
from roost.hosts.facts import HostFacts
from roost.hosts.tiers import Tier

MIB_PER_GIB = 1024
UNPRINTABLE = re.compile(r'[^\x20-\x7e]|["\\$%{}]')  # HCL would read these, names of hardware have them rarely


def node_meta(facts: HostFacts, tier: Tier, bandwidth: Bandwidth | None = None) -> dict[str, str]:
    """Return name -> value, sorted; a value that is not known is left out.

    Sizes are GiB rounded to whole ones (`roost_memory_gib`, `roost_gpu_memory_gib`: of the largest card),
    `roost_bandwidth_gbs` is 10^9 bytes/s. Several cards are listed with a comma between them.
    """
    cards = facts.gpus
    own = max((gpu.memory_mib for gpu in cards), default=0)
    found = {
        "roost_tier": tier.name,
        "roost_kind": tier.kind,
        "roost_usable_gib": str(round(tier.usable_bytes / 1024**3)),
        "roost_arch": facts.arch,
        "roost_isa": facts.cpu.isa,
        "roost_cpu_vendor": facts.cpu.vendor,
        "roost_cpu_model": facts.cpu_model,
        "roost_cores": str(facts.cpu_cores),
        "roost_physical_cores": str(facts.cpu.physical_cores),
        "roost_numa_nodes": str(facts.cpu.numa_nodes),
        "roost_memory_gib": str(round(facts.memory_total_mib / MIB_PER_GIB)),
        "roost_bandwidth_gbs": str(round(bandwidth.gbs)) if bandwidth else "",
        "roost_disk": facts.disks[0].kind if facts.disks else "",
        "roost_gpu_count": str(len(cards)),
        "roost_gpu_vendors": ",".join(sorted({gpu.vendor for gpu in cards})),
        "roost_gpus": ",".join(gpu.name.replace(",", " ") for gpu in cards),
        "roost_gpu_memory_gib": str(round(own / MIB_PER_GIB)) if own else "",
        "roost_gpu_drivers": ",".join(sorted({gpu.driver for gpu in cards if gpu.driver})),
        "roost_nvidia_driver": facts.nvidia.driver,
        "roost_cuda": facts.nvidia.cuda,
        "roost_rocm": "true" if facts.rocm else "",
        "roost_level_zero": "true" if facts.level_zero else "",
    }
    return {name: text for name in sorted(found) if (text := UNPRINTABLE.sub(" ", found[name]).strip())}
