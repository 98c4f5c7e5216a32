"""`roost doctor`: look at everything, say what is wrong and how to put it right."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from roost import __version__
from roost.cli.api import Access, Api
from roost.cli.logs import NOMAD_UNIT
from roost.cli.show import print_json
from roost.cli.status import Status, look
from roost.hosts.collect import collect
from roost.hosts.doctor import Certificate, Job, ModelFileSeen, Observation, SecretFile, Service, Version, diagnose
from roost.hosts.facts import HostFacts
from roost.hosts.findings import Finding, as_text, errors, warnings
from roost.models.catalogue import load_catalogue
from roost.models.store import model_path, state_of
from roost.ops.errors import RoostError
from roost.ops.run import run
from roost.ops.site import Site, load_site
from roost.ops.variables import load_variables

ASK_TIMEOUT_S = 10.0
FIREWALL_ASK = ["nft", "list", "table", "inet", "roost"]


def doctor(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Find out what is wrong here, and how to put it right.

    Ends with 0 when nothing is wrong, 1 with warnings, 2 with errors.

    Example: sudo roost doctor
    """
    site = load_site()
    facts = collect([site.state_dir, site.cache_dir, site.log_dir], manifest=site.state_dir / "manifest")
    findings = diagnose(facts, observe(site, facts))
    code = 2 if errors(findings) else 1 if warnings(findings) else 0
    if as_json:
        print_json({"ok": code == 0, "findings": [asdict(finding) for finding in findings]})
    else:
        if findings:
            print(as_text(findings))
        summary = f"\n{_count(errors(findings), 'error')}, {_count(warnings(findings), 'warning')}."
        print(_well(findings) if code == 0 else summary)
    raise typer.Exit(code)


def _well(findings: list[Finding]) -> str:
    if any(finding.id == "unseen" for finding in findings):
        return "Nothing wrong was found in what this user may look at."
    return "Nothing is wrong."


def _count(findings: list[Finding], word: str) -> str:
    return f"{len(findings)} {word}" if len(findings) == 1 else f"{len(findings)} {word}s"


def observe(site: Site, facts: HostFacts) -> Observation:
    """Look at the installation, as far as this user may."""
    status = look(site)
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
        certificates=[
            _certificate(path) for path in (site.nomad_ca, site.nomad_cert, site.nomad_cert.with_name("node.pem"))
        ],
        models=_models(site),
        versions=_versions(site, status),
        firewall=_succeeds(FIREWALL_ASK) if facts.is_root else None,
        unseen=status.unread,
    )


def _services(site: Site, facts: HostFacts) -> list[Service]:
    systemd = facts.init == "systemd"
    script = f"/etc/init.d/{NOMAD_UNIT}"
    state = ["systemctl", "is-active", NOMAD_UNIT] if systemd else [script, "status"]
    start = f"systemctl start {NOMAD_UNIT}" if systemd else f"{script} start"
    found = [Service(NOMAD_UNIT, _succeeds(state), "roost logs nomad", start)]
    if site.runtime == "docker":
        log = "journalctl -u docker" if systemd else f"the files named docker in {site.log_dir} and /var/log"
        found.append(Service("docker", facts.docker.running if facts.is_root else None, log, "./bootstrap.sh"))
    return found


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


def _certificate(path: Path) -> Certificate:
    try:
        return Certificate(str(path), x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())
    except OSError as error:
        return Certificate(str(path), problem=error.strerror or str(error))
    except ValueError as error:
        return Certificate(str(path), problem=str(error))


def _models(site: Site) -> list[ModelFileSeen]:
    catalogue = load_catalogue(site.catalogue)
    wanted = {slot.model: catalogue.get(slot.model) for slot in site.slots}
    return [
        ModelFileSeen(name, str(model_path(site.models_dir, model.file)), state_of(site.models_dir, model.file).value)
        for name, model in wanted.items()
    ]


def _versions(site: Site, status: Status) -> list[Version]:
    """Compare what runs with what the release that is installed wants."""
    release = site.catalogue.parent.parent
    found = [Version("The roost command", site.release, _current_release(site))]
    with suppress(RoostError):
        variables = load_variables(release, site.api_key_file.parent.parent / "host.yaml")
        found.append(Version("Nomad", str(variables.get("nomad_version", "")), status.nomad_version))
    with Api(Access(os.environ.get("ROOST_API") or site.api)) as api, suppress(RoostError):
        found.append(Version("The agent", __version__, str(api.get("/healthz").get("version", ""))))
    return found


def _current_release(site: Site) -> str:
    try:
        return (site.install_dir / "current").resolve(strict=True).name
    except OSError:
        return ""
