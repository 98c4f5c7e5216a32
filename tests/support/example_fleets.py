"""The example inventories on recorded machines: planned, and written as jobs, with no machine at hand."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import yaml

from roost.fleet.capacity import capacity_of
from roost.fleet.job_text import render_job
from roost.fleet.place_fleet import Decided, place_fleet
from roost.fleet.site_jobs import site_jobs
from roost.fleet.site_wish import SiteWish
from roost.fleet.survey import Survey
from roost.hosts.facts import HostFacts, facts_from
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.lock_file import Locked
from roost.models.model_slots import parse_slots
from roost.models.source_types import HubSource
from tests.unit.fleet.golden_jobs import PACKAGES, REPOSITORY, WHO, programs
from tests.unit.hosts.records import record

CATALOGUE = REPOSITORY / "group_vars/models.yaml"
DEFAULTS = yaml.safe_load((REPOSITORY / "group_vars/all.yaml").read_text())
INVENTORIES = {path.stem: path for path in sorted((REPOSITORY / "ansible/inventory").glob("*.yaml"))}
# What the machines of an example are taken to be; those that are not named are all alike.
MACHINES = {"desk": "nvidia-3060-gap", "rack": "nvidia-2x4090", "mini": "intel-n100", "head": "intel-n100"}
USUAL = "recorded-vm"
TIERS = {
    "potato": "raspberry-pi-5", "sweet": "nvidia-3060-gap", "power": "amd-rx6900xt", "beast": "nvidia-2x4090",
}  # fmt: skip
RANGE = re.compile(r"^(.*)\[(\d+):(\d+)\](.*)$")


def hosts_of(inventory: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every machine of an example with its variables; `worker[01:12]` are twelve."""
    fleet = yaml.safe_load(INVENTORIES[inventory].read_text())["fleet"]
    for name, own in fleet["hosts"].items():
        variables = {**DEFAULTS, **fleet.get("vars", {}), **(own or {})}
        several = RANGE.match(name)
        if several is None:
            yield name, variables
            continue
        before, first, last, after = several.groups()
        for number in range(int(first), int(last) + 1):
            yield f"{before}{number:0{len(first)}}{after}", variables


def facts(name: str) -> HostFacts:
    """The facts of the machine that stands for a host of an example."""
    return replace(facts_from(record(MACHINES.get(name, USUAL))), hostname=name)


def survey(name: str, variables: dict[str, Any], machine: HostFacts | None = None) -> Survey:
    """What a host would say; every model can be had."""
    seen = machine or facts(name)
    others = int(variables["reserved_memory_mib"])
    host = capacity_of(seen, vendors=[v for v in PACKAGES if v != "RPC"], others_mib=others, kind="docker")
    return Survey(name, host, tuple(parse_slots(variables["model_slots"])))


def planned(inventory: str) -> tuple[list[Survey], Decided]:
    """The plan for an example."""
    surveys = [survey(name, variables) for name, variables in hosts_of(inventory)]
    return surveys, place_fleet(surveys, CATALOGUE, [one.machine for one in surveys])


@cache
def locked() -> Catalogue:
    """The catalogue as if every file of a hub had been fetched once; sizes and hashes are made up."""
    catalogue = load_catalogue(CATALOGUE, custom={})
    locks: dict[str, Locked] = {}
    for model in catalogue.all():
        for name, item in {model.reference: model, **model.parts, **model.extras}.items():
            source = next((s for s in item.sources if isinstance(s, HubSource)), None)
            if source is not None:
                locks[name] = Locked(
                    repository=source.repository, revision=source.revision, file=source.file, commit="1" * 40,
                    bytes=item.file.bytes or 1 << 20,
                    sha256=item.file.sha256 or hashlib.sha256(name.encode()).hexdigest(),
                )  # fmt: skip
    return catalogue.model_copy(update={"locks": locks})


def wish(machine: HostFacts, slots: list[dict[str, Any]], runtime: str = "docker", **more: object) -> SiteWish:
    """What the playbook would ask for on a machine."""
    fields: dict[str, Any] = {
        "runtime": runtime, "engine": "llama.cpp", "datacenter": "dc1", "bind": "127.0.0.1", "api_port": 8360,
        "agent_memory_mib": 256, "agent_log_level": "info", "agent_cost_mode": "smart",
        "models_dir": "/srv/models", "engine_threads": 3,
        "gpus": asdict(machine)["gpus"], "engine_gpu_packages": PACKAGES, "slots_dir": "/srv/slots", "slots": slots,
        "agent_identity": WHO, "engine_identity": WHO,
    }  # fmt: skip
    return SiteWish.model_validate({**fields, **more})


def texts(decided: Decided, machines: dict[str, HostFacts]) -> dict[str, str]:
    """The jobs of a plan by name, as each machine would register them."""
    found: dict[str, str] = {}
    for name, share in decided.shares.items():
        fleet = {"node": name, "engine_address": "192.0.2.1", "engine_tls_dir": "/srv/tls"}
        more = fleet if len(decided.shares) > 1 else {}
        asked = wish(machines[name], share.slots, elsewhere=share.elsewhere, **more)
        for job in site_jobs(asked, locked(), programs("docker"))[:-1]:
            found[job.name] = render_job(REPOSITORY / "nomad", job)
    return found


def texts_of_tier(tier: str) -> dict[str, str]:
    """The job of every model of the catalogue on a machine of a tier, on its graphics processor where it has one."""
    machine = facts_from(record(TIERS[tier]))
    gpus = {"gpus": [0], "gpu_layers": [9]} if machine.gpus and TIERS[tier] != "raspberry-pi-5" else {}
    found: dict[str, str] = {}
    for name in locked().entries:
        slot = {"slot": "main", "model": name, "context_size": 4096, "memory_mib": 1024, **gpus}
        job = site_jobs(wish(machine, [slot]), locked(), programs("docker"))[0]
        found[f"{tier}: {name}"] = render_job(REPOSITORY / "nomad", job)
    return found
