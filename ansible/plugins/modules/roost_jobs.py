#!/usr/bin/python
"""Ansible module: this site's Nomad jobs, with a truthful difference, applied one by one until healthy."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from pydantic import ValidationError

from roost.fleet import deploy
from roost.fleet.agent_jobs import GATEWAY_JOB
from roost.fleet.engine_start import EngineStart
from roost.fleet.homecoming import bring_home
from roost.fleet.job_memory import JobMemory, job_memory
from roost.fleet.job_programs import Made, Programs, host_engine, programs_of
from roost.fleet.job_secrets import job_secrets
from roost.fleet.job_text import Job, render_job
from roost.fleet.job_variables import TO_BE_MADE, narrowed, own_secrets, store_variables
from roost.fleet.jobs import META_NODE, MONITORING_JOB, SEARCH_JOB, ModelServerJob, job_name, machine_of
from roost.fleet.monitoring.job import forget_watch_key
from roost.fleet.node_volumes import GATEWAY_TLS, all_have, described
from roost.fleet.nomad_api import NomadAccess, NomadClient, NomadRefusedError, NomadUnreachableError
from roost.fleet.search.job import forget_search_variable
from roost.fleet.site_jobs import site_jobs, stale_jobs, templates_dir, unlocked_slots
from roost.fleet.site_wish import SiteWish
from roost.fleet.start_proof import prove, require
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.estimate.measured import MeasuredStore
from roost.ops.errors import RoostError, user_message
from roost.ops.sealed import read_secret
from roost.ops.site import load_site

DOCUMENTATION = r"""
module: roost_jobs
short_description: Bring this site's Nomad jobs to what the variables say
description:
  - Decides the jobs, renders them, validates and plans each against Nomad, and runs those that differ.
  - Waits until each deployment is healthy. Model servers that no slot wants any more are stopped.
options:
  state:
    description: C(present) applies the jobs, C(absent) stops all of ours.
    type: str
    choices: [present, absent]
    default: present
  address:
    description: Address of Nomad's HTTP API, https://HOST:PORT.
    type: str
    required: true
  tls_dir:
    description: Folder with ca.pem, cli.pem and cli-key.pem, and api.pem when the agent listens on the LAN.
    type: path
    required: true
  secrets_dir:
    description: Folder of the secrets.
    type: path
    required: true
  release_dir:
    description: Folder of the release, for the job templates and the catalogue.
    type: path
    required: true
  wish:
    description: What the jobs shall be; see roost.fleet.site_wish.SiteWish.
    type: dict
  custom:
    description: Models of the operator, merged over the catalogue's.
    type: dict
    default: {}
  artifacts:
    description: What the module roost_artifacts returned.
    type: dict
  python:
    description: The Python that runs the agent where it is no container.
    type: path
    default: ""
  state_dir:
    description: Where it is kept what model servers took; empty to keep nothing and to ask the engine nothing.
    type: path
    default: ""
  listen_cert:
    description: Certificate of the address on the LAN; empty for the fleet's own.
    type: str
    default: ""
  listen_key:
    description: Key of that certificate.
    type: str
    default: ""
  token:
    description: The operator's token; empty for that of I(secrets_dir).
    type: str
    default: ""
  engine_key:
    description: Key of the model servers; empty for that of I(secrets_dir).
    type: str
    default: ""
  api_key:
    description: First key of the API; empty for that of I(secrets_dir).
    type: str
    default: ""
  search_engines:
    description: Engines of I(wish)'s search as JSON, apart from it since they may hold keys; empty for none.
    type: str
    default: ""
  may_go_back:
    description: Whether the machine may still be put back to the jobs it had, so that what those read has to stay, and
      others wait for their turn, so that gateways on them do not change yet.
    type: bool
    default: false
  timeout:
    description: Seconds that one job may take to become healthy.
    type: int
    default: 240
author: Roost developers
"""

EXAMPLES = r"""
- name: Run the jobs
  roost_jobs:
    address: https://127.0.0.1:4646
    tls_dir: /etc/roost/tls
    secrets_dir: /etc/roost/secrets
    release_dir: "{{ roost_release_dir }}"
    wish: "{{ jobs_wish }}"
    artifacts: "{{ images_result }}"
"""

RETURN = r"""
applied:
  description: Names of the jobs that were changed.
  type: list
  returned: always
starts:
  description: By job, what its engine said of its start, how many layers are on graphics processors, buffers in MiB.
  type: dict
  returned: when not in check mode
postponed:
  description: Whether the jobs are to be run once more when all machines are through, since gateways change last, or
    share a certificate until each machine has a place for its own, or since something stays that only jobs of before
    read.
  type: bool
  returned: always
"""

STOP_TIMEOUT_S = 60.0


def tls_pair(params: dict[str, Any], wish: SiteWish, *, dry_run: bool) -> tuple[str, str] | None:
    """Return certificate and key of the address on the LAN as PEM text, or None when there is none.

    With `dry_run` the fleet's own pair may be `TO_BE_MADE`: a check before the run that makes it.
    """
    if not wish.listen:
        return None
    tls = Path(params["tls_dir"])
    cert = Path(params["listen_cert"] or tls / "api.pem")
    key = Path(params["listen_key"] or tls / "api-key.pem")
    if dry_run and not params["listen_cert"] and not (cert.exists() and key.exists()):
        return TO_BE_MADE
    return cert.read_text(), key.read_text()


def authority(params: dict[str, Any]) -> str:
    """Return the certificate by which several gateways know each other, as PEM text; of a first check: not made yet.

    Raises:
        RoostError: the gateways have a certificate of another authority.
    """
    if params["listen_cert"]:
        raise RoostError(
            "Several gateways know each other by the fleet's own authority, and api_listen_cert names another's.",
            fix="Leave api_listen_cert empty and name the API in api_names_custom, or set gateway_replicas to 0.",
        )
    file = Path(params["tls_dir"]) / "ca.pem"
    return file.read_text() if file.exists() else TO_BE_MADE[0]


def present(module: AnsibleModule, client: NomadClient) -> None:
    """Apply the jobs."""
    params = module.params
    dry_run: bool = module.check_mode
    wanted = SiteWish.model_validate(with_engines(params["wish"], params["search_engines"]))
    wish = wanted if dry_run else placeable(client, wanted)
    release = Path(params["release_dir"])
    catalogue = load_catalogue(release / "group_vars" / "models.yaml", custom=params["custom"])
    made = Made.model_validate(params["artifacts"])
    python = Path(params["python"] or f"{sys.base_prefix}/bin/python3")
    state_dir = Path(params["state_dir"]) if params["state_dir"] else None
    engine = host_engine(wish, made)
    memory = job_memory(catalogue, Path(wish.models_dir), state_dir, engine, ask=not dry_run, warn=module.warn)
    # A check comes before the fetch that locks a model; what its server's job will be is known only then.
    unlocked = unlocked_slots(wish, catalogue) if dry_run else {}
    numbers = {slot.slot: slot.number for slot in wish.slots}
    waiting = {job_name(slot, wish.node, numbers[slot]): names for slot, names in unlocked.items()}
    made_of = programs_of(wish.runtime, made, python, wish.engine)
    programs = with_certificate(made_of, Path(params["tls_dir"]) / "engine.pem") if wish.node else made_of
    jobs = site_jobs(wish, catalogue, programs, memory, without=unlocked)
    secrets_dir = Path(params["secrets_dir"])
    applied: list[str] = list(waiting)
    try:
        listed = [j for j in client.list_jobs() if not j.get("Stop")]  # a cold one is dead too
        existing = [str(j["ID"]) for j in listed if not wish.node or of_machine(j, wish)]
    except (NomadUnreachableError, NomadRefusedError):
        if dry_run:  # Nomad is not there yet: everything would be new
            names = [job.name for job in jobs]
            after = "".join(f"{line}\n" for line in [*waiting_lines(waiting, ()), *names])
            module.exit_json(
                changed=True, applied=[*applied, *names], postponed=False, diff={"before": "", "after": after}
            )
        raise
    lines = waiting_lines(waiting, existing)
    tls = tls_pair(params, wish, dry_run=dry_run)
    secrets = job_secrets(
        jobs,
        engine_key=params["engine_key"] or (secrets_dir / "engine-key").read_text().strip(),
        api_keys=[params["api_key"] or (secrets_dir / "api-key").read_text().strip()],
        tls=tls,
        authority=authority(params) if wish.gateway_replicas else "",
        engine_ca=(Path(params["tls_dir"]) / "ca.pem").read_text() if wish.node else "",
    )
    lines += store_variables(client, secrets, agent=wish.with_agent, to_be_made=tls == TO_BE_MADE, dry_run=dry_run)
    lines += own_secrets(client, wish, dry_run=dry_run)
    later: list[str] = []
    for job in jobs:
        # Gateways stand on the other machines, which get what they run from in their own turns.
        waits = params["may_go_back"] and not dry_run and job.name == GATEWAY_JOB
        change = apply_one(module, client, job, release, dry_run=dry_run or waits)
        if change.changed and waits:
            later.append(job.name)
        elif change.changed:
            applied.append(job.name)
            lines += [f"{job.name}: {line}" for line in change.lines]
    # What a job read before it was changed goes only now, or once nothing goes back to that job any more.
    before = [*applied, *later] if params["may_go_back"] and not dry_run else []
    less, left = narrowed(client, secrets, before, dry_run=dry_run)
    lines += [f"{path}: without what no job reads any more" for path in less]
    lines += brought_home(module, client, wish, jobs, applied)
    proofs = {} if dry_run else proven(client, jobs, applied)
    starts = {name: asdict(start) for name, start in proofs.items()}
    if state_dir is not None and not dry_run:
        MeasuredStore(state_dir).use(engine.build)  # the next plan looks for this engine's figures
        keep_starts(wish, catalogue, memory, proofs)
    for name in stale_jobs([name for name in existing if name not in waiting], jobs, wish.elsewhere):
        applied.append(name)
        lines.append(f"{name}: no slot wants it any more, stopped")
        if not dry_run:
            deploy.stop(client, name, purge=True, timeout_s=STOP_TIMEOUT_S)
            forget = {MONITORING_JOB: forget_watch_key, SEARCH_JOB: forget_search_variable}.get(name)
            if forget:
                forget(client)
    after = "".join(f"{line}\n" for line in lines)
    diff = {"before": "", "after": after}
    postponed = bool(left or later) or wish != wanted
    module.exit_json(changed=bool(lines), applied=applied, starts=starts, postponed=postponed, diff=diff)


def with_engines(wish: dict[str, Any], engines: str) -> dict[str, Any]:
    """Return the wish with the engines that its search asks, which come as JSON."""
    if not (engines and wish.get("search")):
        return wish
    return {**wish, "search": {**wish["search"], "engines": json.loads(engines)}}


def placeable(client: NomadClient, wish: SiteWish) -> SiteWish:
    """Have gateways share a certificate as long as Nomad could not place them on every machine with one of its own."""
    own = wish.with_agent and wish.gateway_replicas and wish.gateway_tls_dir
    if not own or all_have(described(client), GATEWAY_TLS):
        return wish
    return wish.model_copy(update={"gateway_tls_dir": ""})


def brought_home(
    module: AnsibleModule, client: NomadClient, wish: SiteWish, jobs: Sequence[Job], applied: list[str]
) -> list[str]:
    """Have what a spare runs run here again; a line each."""
    mine = [j.name for j in jobs if isinstance(j, ModelServerJob) and len(j.nodes) > 1 and j.name not in applied]
    done = bring_home(client, wish.node, mine, dry_run=module.check_mode, timeout_s=module.params["timeout"])
    applied += done
    for job in [job for job, here in done.items() if not here]:
        module.warn(f"{job} is planned for {wish.node}, and Nomad does not run it there.")
    return [f"{job}: back from its spare to {wish.node}" for job in done]


def with_certificate(programs: Programs, certificate: Path) -> Programs:
    """Have model servers begin anew with another certificate: they read theirs once."""
    if not certificate.exists():  # a check before there is one
        return programs
    known = hashlib.sha256(certificate.read_bytes()).hexdigest()[:16]
    return replace(programs, engine_env={**programs.engine_env, "ROOST_ENGINE_CERTIFICATE": known})


def of_machine(listed: Mapping[str, Any], wish: SiteWish) -> bool:
    """Say whether a job is this machine's affair; those that name none are the agent's machine's, from before."""
    node = machine_of(listed)
    return node == wish.node or (not node and wish.with_agent)


def waiting_lines(waiting: Mapping[str, Sequence[str]], existing: Collection[str]) -> list[str]:
    """Return a line for each job that follows the fetch of files which are not locked yet."""
    return [
        f"{job}: {'changed' if job in existing else 'new job'}, once {', '.join(files)} "
        f"{'is' if len(files) == 1 else 'are'} locked and fetched"
        for job, files in waiting.items()
    ]


def keep_starts(wish: SiteWish, catalogue: Catalogue, memory: JobMemory, starts: Mapping[str, EngineStart]) -> None:
    """Keep what model servers took, for the next plan.

    Those with layers on other hosts, encoders, and those that compute with adapters are left out.
    """
    for slot in wish.slots:
        start = starts.get(job_name(slot.slot, wish.node, slot.number))
        model = catalogue.get(slot.model)
        encoder = slot.embedding or set(model.roles) == {"embedding"}
        if start is not None and not (slot.rpc or slot.adapters or encoder):
            memory.started(model.name, model.quantisation, slot.settings, slot.split, start)


def proven(client: NomadClient, jobs: Sequence[Job], applied: Sequence[str]) -> dict[str, EngineStart]:
    """Return what the engines said of their start, as far as their logs hold it.

    Raises:
        RoostError: layers that belong on a graphics processor are not there.
    """
    starts: dict[str, EngineStart] = {}
    for job in jobs:
        if isinstance(job, ModelServerJob):
            proof = prove(client, job.name)
            # A cold one has no log of a start; it is compared when `roost doctor` finds it warm.
            require(proof, job.driver, fresh=job.name in applied and proof.running)
            if proof.start is not None:
                starts[job.name] = proof.start
    return starts


def apply_one(
    module: AnsibleModule, client: NomadClient, job: Job, release: Path, *, dry_run: bool
) -> deploy.JobChange:
    """Render and apply one job; Nomad's warnings become the module's."""
    text = render_job(templates_dir(release), job)
    change = deploy.apply(client, text, dry_run=dry_run, timeout_s=module.params["timeout"])
    if change.warnings:
        module.warn(change.warnings)
    return change


def ours_to_stop(listed: Mapping[str, Any]) -> bool:
    """Say whether a job goes with this machine: all of them, but of another machine's fleet only its own."""
    try:
        controller = load_site().fleet
    except RoostError:
        return True
    here = socket.gethostname()
    return controller in {"", here} or (listed.get("Meta") or {}).get(META_NODE) == here


def absent(module: AnsibleModule, client: NomadClient) -> None:
    """Stop every job of ours; where no Nomad answers, or no longer with our certificates, none runs."""
    try:
        listed = [j for j in client.list_jobs() if str(j["ID"]).startswith("roost-")]
        names = [str(j["ID"]) for j in listed if ours_to_stop(j)]
    except (NomadUnreachableError, NomadRefusedError) as error:
        module.exit_json(changed=False, applied=[], reason=str(error))
    if not module.check_mode:
        for name in names:
            deploy.stop(client, name, purge=True, timeout_s=STOP_TIMEOUT_S)
    module.exit_json(changed=bool(names), applied=names)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "address": {"type": "str", "required": True},
            "tls_dir": {"type": "path", "required": True},
            "secrets_dir": {"type": "path", "required": True, "no_log": False},
            "release_dir": {"type": "path", "required": True},
            "wish": {"type": "dict"},
            "custom": {"type": "dict", "default": {}},
            "artifacts": {"type": "dict"},
            "python": {"type": "path", "default": ""},
            "state_dir": {"type": "path", "default": ""},
            "listen_cert": {"type": "str", "default": ""},
            "listen_key": {"type": "str", "default": "", "no_log": False},
            **{
                name: {"type": "str", "default": "", "no_log": True}
                for name in ("token", "engine_key", "api_key", "search_engines")
            },
            "may_go_back": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 240},
        },
        required_if=[("state", "present", ("wish", "artifacts"))],
        supports_check_mode=True,
    )
    params = module.params
    tls = Path(params["tls_dir"])
    token_file = Path(params["secrets_dir"]) / "nomad-operator-token"
    try:
        token = params["token"] or (read_secret(token_file).decode().strip() if token_file.exists() else "")
        client = NomadClient(NomadAccess.below(params["address"], tls, token))
        (present if params["state"] == "present" else absent)(module, client)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        module.fail_json(msg=f"The variables of the jobs are not valid: {where}: {first['msg']}.")
    except (RoostError, OSError) as error:
        module.fail_json(msg=user_message(error))


if __name__ == "__main__":
    main()
