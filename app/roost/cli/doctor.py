"""`roost doctor`: look at everything, say what is wrong and how to put it right."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from roost import __version__
from roost.cli.access import Access
from roost.cli.api import Api
from roost.cli.certificates import look_at_certificates
from roost.cli.doctor_models import look_at_models, look_at_plan, look_at_servers
from roost.cli.show import print_json
from roost.cli.status import Status, look
from roost.fleet.artifacts.from_site import HOST_FILE
from roost.fleet.findings import fleet_findings, fleet_not_checked
from roost.fleet.nomad_api import NomadClient
from roost.fleet.start_proof import prove
from roost.hosts.collect import collect
from roost.hosts.doctor import (
    Job,
    Needed,
    Observation,
    Offloaded,
    SecretFile,
    Service,
    Version,
    diagnose,
    not_checked,
)
from roost.hosts.facts import HostFacts
from roost.hosts.findings import Finding, NotChecked, as_text, errors, not_checked_text, warnings
from roost.hosts.findings_hardware import hardware_findings, hardware_not_checked, look_at_hardware
from roost.hosts.preflight import check
from roost.hosts.preflight_wishes import wishes_from
from roost.models.catalogue import load_catalogue
from roost.models.findings import model_findings, models_not_checked
from roost.models.model_slots import parse_slots
from roost.ops import service_names
from roost.ops.errors import RoostError, reason_of
from roost.ops.listen_keeper import NAME, answers
from roost.ops.run import run
from roost.ops.site import Site, load_site
from roost.ops.variables import load_variables

DOCTORS_OWN = {"root", "init"}  # said by doctor in words of its own, as full disks are
ASK_TIMEOUT_S = 10.0
ANSWER_S = 2.0  # what keeps sockets waits for nobody: one that takes longer is stuck
LISTEN_NEEDED = Needed("warning", "While the agent is replaced its clients are refused, who would wait a moment.")
FIREWALL_ASK = ["nft", "list", "table", "inet", "roost"]


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Find out what is wrong here, and how to put it right.

    Ends with 0 when nothing is wrong, 1 with warnings, 2 with errors.

    Example: sudo roost doctor
    """
    report = examine(load_site())
    code = 2 if errors(report.findings) else 1 if warnings(report.findings) else 0
    if as_json:
        print_json({
            "ok": code == 0,
            "findings": [asdict(finding) for finding in report.findings],
            "not_checked": [asdict(item) for item in report.skipped],
        })  # fmt: skip
    else:
        _print(report)
    raise typer.Exit(code)


@dataclass(frozen=True)
class Report:
    """What was found, and what was not looked at."""

    findings: list[Finding]
    skipped: list[NotChecked]


def _print(report: Report) -> None:
    found = report.findings
    parts = [as_text(found)] if found else []
    if report.skipped:
        parts.append(not_checked_text(report.skipped))
    if errors(found) or warnings(found):
        parts.append(f"{_count(errors(found), 'error')}, {_count(warnings(found), 'warning')}.")
    else:
        parts.append("Nothing wrong was found in what was looked at." if report.skipped else "Nothing is wrong.")
    print("\n\n".join(parts))


def examine(site: Site) -> Report:
    """Look at everything, and say what is wrong and what was not looked at."""
    models_dir = str(site.models_dir)
    paths = [site.state_dir, site.cache_dir, site.log_dir, site.models_dir]
    facts = collect(paths, manifest=site.state_dir / "manifest")
    status = look(site)
    seen = observe(site, facts, status)
    hardware = look_at_hardware(models_dir)
    variables = _variables(site)
    catalogue = load_catalogue(site.catalogue)
    bundle = str(variables.get("extra_ca_bundle") or "")
    plan = look_at_plan()
    models = look_at_models(site, catalogue, extra_ca=Path(bundle) if bundle else None)
    models = replace(models, memory=plan.memory)
    servers = look_at_servers(site, status, catalogue, {**_contexts(variables), **plan.contexts}, facts.clock)
    servers = replace(servers, refused=plan.refused, unplanned=plan.problem)
    found = [
        *diagnose(facts, seen),
        *hardware_findings(facts, hardware),
        *model_findings(models),
        *fleet_findings(servers),
    ]
    return Report(
        [*found, *still_in_the_way(facts, variables, found)],
        [
            *not_checked(facts, seen),
            *hardware_not_checked(facts, hardware),
            *models_not_checked(models),
            *fleet_not_checked(servers),
        ],
    )


def still_in_the_way(facts: HostFacts, variables: Mapping[str, object], found: Sequence[Finding]) -> Iterator[Finding]:
    """Yield what preflight would refuse today: a machine changes after its set-up. What was found is not said twice."""
    if not variables:
        return
    known = {finding.id for finding in found}
    wishes = wishes_from(variables, installed=True, here=facts.default_address)
    for finding in check(facts, wishes):
        doctors_own = finding.id in DOCTORS_OWN or finding.id.startswith("disk:")
        if finding.id not in known and not doctors_own:
            yield finding


def _variables(site: Site) -> dict[str, object]:
    """Return the variables of the release that is installed; none where this user may not read them."""
    try:
        return load_variables(site.catalogue.parent.parent, site.api_key_file.parent.parent / HOST_FILE)
    except RoostError:
        return {}


def _contexts(variables: Mapping[str, object]) -> dict[str, int]:
    """Return the contexts that the slots name, in tokens; 0 is chosen."""
    try:
        slots = parse_slots(variables.get("model_slots") or [])
    except RoostError:
        return {}
    return {slot.slot: slot.context_size for slot in slots}


def _count(findings: list[Finding], word: str) -> str:
    return f"{len(findings)} {word}" if len(findings) == 1 else f"{len(findings)} {word}s"


def observe(site: Site, facts: HostFacts, status: Status) -> Observation:
    """Look at the installation, as far as this user may."""
    asked = bool(status.nomad_version)
    wanted_jobs = [site.agent_job, *(slot.job for slot in site.slots)]
    here = {job.id for job in status.jobs}
    own = [job for job in status.jobs if job.id in wanted_jobs]
    return Observation(
        services=_services(site, facts),
        nomad_problem=status.nomad_problem,
        nomad_leader=status.nomad_leader if asked else None,
        missing_jobs=[job for job in wanted_jobs if asked and job not in here],
        jobs=[Job(j.id, j.running, j.wanted, j.restarts, j.events[-1] if j.events else "") for j in own],
        api_reachable=status.agent != "unreachable",
        api_ready=status.agent == "ready",
        api_reasons=status.agent_reasons,
        secrets=_secrets(site) if facts.is_root else [],
        certificates=look_at_certificates(site),
        versions=_versions(site, status),
        offloaded=_offloaded(site) if asked else [],
        firewall=firewall_loaded() if facts.is_root else None,
        unseen=[reason_of(text) for text in status.unread],
    )


def firewall_loaded() -> bool:
    """Say whether our rules are loaded; only root may ask."""
    return _succeeds(FIREWALL_ASK)


def _offloaded(site: Site) -> list[Offloaded]:
    """Return what the model servers that should compute on graphics processors say of their start."""
    found: list[Offloaded] = []
    try:
        client = NomadClient.from_site(site, timeout_s=ASK_TIMEOUT_S)
        for slot in site.slots:
            proof = prove(client, slot.job)
            if proof.planned:
                told = proof.start is not None or not proof.running
                found.append(Offloaded(slot.job, proof.problem, told, proof.gpu_slots))
    except RoostError:
        return found  # whatever hinders us is a finding already
    return found


def _services(site: Site, facts: HostFacts) -> list[Service]:
    systemd = facts.init == "systemd"
    name = service_names.NOMAD
    found = [Service(name, _runs(name, systemd=systemd), "roost logs nomad", _command(name, "start", systemd=systemd))]
    if site.listen_dir:
        found.append(_listen(site, site.listen_dir / NAME, as_root=facts.is_root, systemd=systemd))
    if site.runtime == "docker":
        log = "journalctl -u docker" if systemd else f"the files named docker in {site.log_dir} and /var/log"
        found.append(Service("docker", facts.docker.running if facts.is_root else None, log, "./bootstrap.sh"))
    return found


def _listen(site: Site, door: Path, *, as_root: bool, systemd: bool) -> Service:
    """Look at what keeps the listening sockets of the agent or a gateway here; nobody but root gets to its socket."""
    name = service_names.LISTEN
    runs = _runs(name, systemd=systemd)
    return Service(
        name,
        runs,
        f"journalctl -u {name}" if systemd else f"{site.log_dir}/{name}.log",
        _command(name, "start", systemd=systemd),
        again=_command(name, "restart", systemd=systemd),
        answers=not runs or (answers(door, ANSWER_S) if as_root else None),
        needed=LISTEN_NEEDED,
    )


def _runs(name: str, *, systemd: bool) -> bool:
    return _succeeds(["systemctl", "is-active", name] if systemd else [f"/etc/init.d/{name}", "status"])


def _command(name: str, verb: str, *, systemd: bool) -> str:
    return f"systemctl {verb} {name}" if systemd else f"/etc/init.d/{name} {verb}"


def _succeeds(command: list[str]) -> bool:
    try:
        run(command, timeout_s=ASK_TIMEOUT_S)
    except RoostError:
        return False
    return True


def _secrets(site: Site) -> list[SecretFile]:
    folder = site.api_key_file.parent
    names = ("api-key", "engine-key", "nomad-operator-token", "gossip-key")
    paths = [*(folder / name for name in names), site.nomad_key, site.nomad_ca.with_name("ca-key.pem")]
    return [_secret(path) for path in paths]


def _secret(path: Path) -> SecretFile:
    try:
        info = path.stat()
    except FileNotFoundError:
        return SecretFile(str(path), None)
    return SecretFile(str(path), stat.S_IMODE(info.st_mode), info.st_uid)


def _versions(site: Site, status: Status) -> list[Version]:
    """Compare what runs with what the release that is installed wants."""
    release = site.catalogue.parent.parent
    found = [Version("The roost command", site.release, _current_release(site))]
    with suppress(RoostError):
        variables = load_variables(release, site.api_key_file.parent.parent / "host.yaml")
        found.append(Version("Nomad", str(variables.get("nomad_version", "")), status.nomad_version))
    with Api(Access(os.environ.get("ROOST_API") or site.api, ca=site.trusted_for_api)) as api, suppress(RoostError):
        found.append(Version("The agent", __version__, str(api.get("/healthz").get("version", ""))))
    return found


def _current_release(site: Site) -> str:
    try:
        return (site.install_dir / "current").resolve(strict=True).name
    except OSError:
        return ""
