"""What is wrong on an installed machine: pure, from what was seen to findings with their fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from roost.hosts.certificates import Certificate, certificate_findings
from roost.hosts.facts import HostFacts
from roost.hosts.findings import Finding, NotChecked, Severity

LOW_DISK_MIB, FULL_DISK_MIB = 2048, 256
SECRET_MODE = 0o600
AGAIN = "Run ./bootstrap.sh again."
AS_ROOT = "only root may look; run sudo roost doctor"


@dataclass(frozen=True)
class Needed:
    """How bad it is when a service is not there, and what goes wrong then."""

    severity: Severity
    why: str


FOR_ALL = Needed("error", "Nothing of Roost works without it.")


@dataclass(frozen=True)
class Service:
    """A service of the machine: whether it runs and answers, None where that cannot be told; commands for its log, its
    start, and its start `again`."""

    name: str
    running: bool | None
    log: str
    start: str
    again: str = ""
    answers: bool | None = True
    needed: Needed = FOR_ALL


@dataclass(frozen=True)
class SecretFile:
    """A file that only root may read: its mode, or None if it is missing."""

    path: str
    mode: int | None
    owner_uid: int = 0


@dataclass(frozen=True)
class Job:
    """A job of Nomad."""

    id: str
    running: int
    wanted: int
    restarts: int
    last_event: str = ""


@dataclass(frozen=True)
class Offloaded:
    """A model server that should compute on graphics processors: what is wrong, and the PCI addresses of its cards.

    `told` says whether its log still holds its start.
    """

    job: str
    problem: str = ""
    told: bool = True
    gpu_slots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Version:
    """One thing of which two versions should agree: what is wanted, and what runs."""

    what: str
    wanted: str
    running: str


@dataclass(frozen=True)
class Observation:
    """What was seen of the installation. `unseen` names what this user could not look at, with how to."""

    services: Sequence[Service] = ()
    nomad_problem: str = ""
    nomad_leader: str | None = None  # None: could not be asked
    missing_jobs: Sequence[str] = ()
    jobs: Sequence[Job] = ()
    api_reachable: bool = True
    api_ready: bool = True
    api_reasons: Sequence[str] = ()
    secrets: Sequence[SecretFile] = ()
    certificates: Sequence[Certificate] = ()
    versions: Sequence[Version] = ()
    offloaded: Sequence[Offloaded] = ()
    firewall: bool | None = None  # whether our rules are loaded; None: could not be asked
    unseen: Sequence[str] = ()


def diagnose(facts: HostFacts, seen: Observation) -> list[Finding]:
    """Return everything that is wrong or worth knowing."""
    return [
        *_services(seen),
        *_firewall(seen),
        *_boot(facts),
        *_nomad(seen),
        *_jobs(seen),
        *_api(seen),
        *_secrets(seen),
        *certificate_findings(seen.certificates, facts.clock),
        *_disks(facts),
        *_versions(seen),
        *_offloaded(seen),
        *_gpus(facts, seen),
    ]


def not_checked(facts: HostFacts, seen: Observation) -> list[NotChecked]:
    """Return what could not be looked at."""
    found = [NotChecked(text, "this user may not ask; run sudo roost doctor") for text in seen.unseen]
    if not facts.is_root:
        found.append(NotChecked("secrets and their modes", AS_ROOT))
    if seen.firewall is None:
        found.append(NotChecked("whether the firewall's rules are loaded", AS_ROOT))
    found += [NotChecked(f"the service {s.name}", AS_ROOT) for s in seen.services if s.running is None]
    found += [NotChecked(f"whether the service {s.name} answers", AS_ROOT) for s in seen.services if s.answers is None]
    if seen.nomad_leader is None and not seen.nomad_problem:
        found.append(NotChecked("Nomad and its jobs", "Nomad was not asked"))
    found += [NotChecked(f"the version of {v.what}", "it did not say") for v in seen.versions if not v.running]
    return found


def _services(seen: Observation) -> Iterator[Finding]:
    for service in seen.services:
        if service.running is False:
            yield Finding(
                f"service:{service.name}", service.needed.severity, f"The service {service.name} does not run.",
                service.needed.why, f"Look at its log: {service.log}. Start it: {service.start}",
            )  # fmt: skip
        elif service.answers is False:
            yield Finding(
                f"service:{service.name}", service.needed.severity,
                f"The service {service.name} runs, but does not answer.", service.needed.why,
                f"Look at its log: {service.log}. Start it again: {service.again}",
            )  # fmt: skip


def _firewall(seen: Observation) -> Iterator[Finding]:
    if seen.firewall is False:
        yield Finding(
            "firewall", "error", "The firewall rules of Roost are not loaded.",
            "Other hosts can reach Nomad's ports for servers and gossip.",
            f"{AGAIN} If it comes back, look for what flushes nftables (`systemctl status nftables`).",
        )  # fmt: skip


def _boot(facts: HostFacts) -> Iterator[Finding]:
    if facts.init == "none":
        yield Finding(
            "boot", "info", "Nothing starts Roost when this machine starts.",
            "Process 1 is neither systemd nor init.",
            "Let whatever starts the machine run ./bootstrap.sh or the scripts /etc/init.d/roost-*.",
        )  # fmt: skip


def _nomad(seen: Observation) -> Iterator[Finding]:
    if seen.nomad_problem:
        yield Finding(
            "nomad", "error", f"Nomad cannot be asked: {seen.nomad_problem}",
            "Nomad starts the model servers and the agent, and starts them again when they end.",
            "Look at `roost logs nomad`, then run ./bootstrap.sh again.",
        )  # fmt: skip
    elif seen.nomad_leader == "":
        yield Finding(
            "nomad-leader", "error", "Nomad has no leader.", "It starts nothing new without one.",
            "Wait half a minute; then look at `roost logs nomad`.",
        )  # fmt: skip


def _jobs(seen: Observation) -> Iterator[Finding]:
    for name in seen.missing_jobs:
        yield Finding(
            f"job:{name}", "error", f"Nomad does not have the job {name}.", "A part of Roost is missing.", AGAIN
        )
    for job in seen.jobs:
        if job.running < job.wanted:
            last = f" The last that happened: {job.last_event}" if job.last_event else ""
            yield Finding(
                f"job:{job.id}", "error", f"{job.running} of {job.wanted} instances of the job {job.id} run.{last}",
                "Requests fail or wait.", f"Look at `roost logs {_source(job.id)}` and `roost jobs`.",
            )  # fmt: skip
        elif job.restarts > 0:
            yield Finding(
                f"restarts:{job.id}", "info", f"The job {job.id} was restarted {job.restarts} times.",
                "It ended by itself, or was killed for lack of memory.", f"Look at `roost logs {_source(job.id)}`.",
            )  # fmt: skip


def _source(job_id: str) -> str:
    return job_id.removeprefix("roost-model-").removeprefix("roost-")


def _api(seen: Observation) -> Iterator[Finding]:
    said = "; ".join(seen.api_reasons) or "no reason given"
    if not seen.api_reachable:
        yield Finding(
            "api", "error", f"The API does not answer: {said}.", "Nobody can use the models.",
            "Look at `roost logs agent` and `roost jobs`.",
        )  # fmt: skip
    elif not seen.api_ready:
        slot = seen.api_reasons[0].partition(":")[0] if seen.api_reasons and ":" in seen.api_reasons[0] else "main"
        yield Finding(
            "api", "error", f"No model server is ready: {said}.", "Requests wait and then fail.",
            f"Look at `roost logs {slot}`; a large model takes minutes to load.",
        )  # fmt: skip


def _secrets(seen: Observation) -> Iterator[Finding]:
    for secret in seen.secrets:
        if secret.mode is None:
            yield Finding(
                f"secret:{secret.path}", "error", f"{secret.path} is missing.",
                "Roost proves with it who it is.", "Restore it from a backup, or run ./bootstrap.sh again.",
            )  # fmt: skip
        elif secret.mode & ~SECRET_MODE or secret.owner_uid != 0:
            wrong = f"mode {secret.mode:04o}" if secret.mode & ~SECRET_MODE else f"owner {secret.owner_uid}"
            yield Finding(
                f"secret:{secret.path}", "error", f"{secret.path} has {wrong}; only root should read it.",
                "Whoever reads it can act as the operator.", f"chown root {secret.path}; chmod 600 {secret.path}",
            )  # fmt: skip


def _disks(facts: HostFacts) -> Iterator[Finding]:
    by_device: Mapping[int, list[str]] = {
        d.device: [e.path for e in facts.disks if e.device == d.device] for d in facts.disks
    }
    free = {d.device: d.free_mib for d in facts.disks}
    for device, paths in by_device.items():
        if free[device] < LOW_DISK_MIB:
            yield Finding(
                f"disk:{paths[0]}", "error" if free[device] < FULL_DISK_MIB else "warning",
                f"{free[device]} MiB are free on the disk of {', '.join(paths)}.",
                "Nomad and Docker fail in strange ways on a full disk.",
                "Free space; `roost images gc` removes old images, and the cache folder may be emptied.",
            )  # fmt: skip


def _versions(seen: Observation) -> Iterator[Finding]:
    for version in seen.versions:
        if version.running and version.wanted != version.running:
            yield Finding(
                f"version:{version.what}", "warning",
                f"{version.what}: {version.running} runs, {version.wanted} is what this release wants.",
                "The parts were tested together in one version only.", AGAIN,
            )  # fmt: skip


def _offloaded(seen: Observation) -> Iterator[Finding]:
    for server in seen.offloaded:
        if server.problem:
            yield Finding(
                f"offload:{server.job}", "error", f"{server.job} does not compute as planned: {server.problem}.",
                "It answers many times slower than planned, and takes memory that others were promised.",
                f"Look at `roost logs {_source(server.job)}` for the driver's words. {AGAIN}",
            )  # fmt: skip
        elif not server.told:
            yield Finding(
                f"offload:{server.job}", "info", f"The log of {server.job} no longer says where its layers are.",
                "It has written so much since its start that this was dropped.",
                "Nothing to do; the playbook looked at it after the start.",
            )  # fmt: skip


def _gpus(facts: HostFacts, seen: Observation) -> Iterator[Finding]:
    used = {slot for server in seen.offloaded for slot in server.gpu_slots}
    for gpu in facts.gpus:
        if gpu.slot in used:
            continue
        size = f", {gpu.memory_mib} MiB" if gpu.memory_mib else ""
        yield Finding(
            f"gpu:{gpu.slot}", "info", f"A graphics processor is here but not used: {gpu.vendor} {gpu.name}{size}.",
            "No model server computes on it.", "Nothing to do.",
        )  # fmt: skip
