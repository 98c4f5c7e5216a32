"""Prometheus as a job of the fleet: what it runs, what it keeps, and the key with which it looks at gateways."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict, Field

from roost.fleet.agent_jobs import STATE_MOUNT
from roost.fleet.agent_variables import AGENT_JOB
from roost.fleet.jobs import MONITORING_JOB, MONITORING_KEY, Driver, Identity, MonitoringJob, PlainFile
from roost.fleet.key_store import NomadKeyStore, update
from roost.fleet.monitoring.prometheus import scrape_document
from roost.fleet.monitoring.rules import Thresholds, rules_text
from roost.fleet.nomad_api import NomadClient, NomadRefusedError
from roost.fleet.nomad_setup import NOT_FOUND, ensure_variable
from roost.ops import api_keys
from roost.ops.api_keys import KeyDocument, Role, Tier

CONFIG_FILE, RULES_FILE, TARGETS_FILE = "prometheus.yaml", "rules.yaml", "targets.json"
KEY_ITEM = "api_key"
GO_SHARE = 0.85  # of the task's memory: above it Go's collector works harder instead of being killed


class MonitoringWish(BaseModel):
    """What the playbook's variables say of Prometheus."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    port: int = Field(ge=1, le=65535)
    memory_mib: int = Field(ge=128)
    scrape_s: int = Field(ge=5, le=300)
    keep_days: int = Field(ge=1)
    keep_mib: int = Field(ge=64)
    state_dir: str
    identity: Identity
    thresholds: Thresholds = Field(default_factory=Thresholds)


@dataclass(frozen=True)
class MonitoringPrograms:
    """An image, or a command and its first arguments."""

    image: str = ""
    command: tuple[str, ...] = ()


def monitoring_job(
    wish: MonitoringWish, programs: MonitoringPrograms, driver: Driver, *, datacenter: str, bind: str
) -> MonitoringJob:
    """Decide the job. It listens on `bind` only: whoever may use the machine may look, nobody from outside."""
    targets: dict[str, object] = {"file_sd_configs": [{"files": [TARGETS_FILE], "refresh_interval": "30s"}]}
    config = scrape_document(key_file="../secrets/api-key", targets=targets, rules=RULES_FILE, every_s=wish.scrape_s)
    address = f"[{bind}]" if ":" in bind else bind
    options = [
        f"--config.file=${{NOMAD_TASK_DIR}}/{CONFIG_FILE}",
        f"--storage.tsdb.path={STATE_MOUNT if driver == 'docker' else wish.state_dir}",
        f"--storage.tsdb.retention.time={wish.keep_days}d",
        f"--storage.tsdb.retention.size={wish.keep_mib}MB",
        f"--web.listen-address={address}:{wish.port}",
        "--log.format=json",
    ]
    program, *leading = programs.command or ("",)
    command, args = wish.identity.command(driver, program, [*leading, *options])
    return MonitoringJob(
        name=MONITORING_JOB,
        datacenter=datacenter,
        driver=driver,
        user=wish.identity.user(driver),
        uid=wish.identity.uid,
        gid=wish.identity.gid,
        image=programs.image,
        command=command,
        args=args,
        env={"GOMEMLIMIT": f"{round(wish.memory_mib * GO_SHARE)}MiB"},
        files=[PlainFile(CONFIG_FILE, config), PlainFile(RULES_FILE, rules_text(wish.thresholds))],
        targets_file=TARGETS_FILE,
        service=AGENT_JOB,
        key_name=MONITORING_KEY,
        state_mount=STATE_MOUNT,
        port=wish.port,
        cpu_mhz=200,
        memory_mib=wish.memory_mib,
    )


def ensure_watch_key(client: NomadClient, *, dry_run: bool = False) -> bool:
    """Give the job a read-only key of its own, unless it has one that is good; return whether that had to be done.

    One that was revoked stays so, until it is forgotten: `roost keys revoke monitoring --purge`.
    """
    variable = f"nomad/jobs/{MONITORING_JOB}"
    try:
        held = str((client.get(f"var/{variable}") or {}).get("Items", {}).get(KEY_ITEM, ""))
    except NomadRefusedError as error:
        if error.status != NOT_FOUND:
            raise
        held = ""
    store = NomadKeyStore(client)
    known = _named(store.load()[0])
    if known and (known.revoked or (held and api_keys.digest_of(held) == known.sha256)):
        return False
    if dry_run:
        return True
    secret = api_keys.new_secret()
    update(store, lambda document: _with(document, api_keys.digest_of(secret)))
    ensure_variable(client, variable, {KEY_ITEM: secret})
    return True


def forget_watch_key(client: NomadClient) -> None:
    """Take the key away again, for a fleet that is no longer watched."""
    now = datetime.now(UTC)

    def change(document: KeyDocument) -> KeyDocument:
        return api_keys.without_key(document, MONITORING_KEY, now, purge=True) if _named(document) else document

    update(NomadKeyStore(client), change)


def _named(document: KeyDocument) -> api_keys.ApiKey | None:
    return next((key for key in document.keys if key.name == MONITORING_KEY), None)


def _with(document: KeyDocument, sha256: str) -> KeyDocument:
    now = datetime.now(UTC)
    if _named(document):
        return api_keys.rotated(document, MONITORING_KEY, sha256, now, timedelta(0))
    fields = {"name": MONITORING_KEY, "sha256": sha256, "role": Role.READ_ONLY, "tier": Tier.STANDARD, "created": now}
    return api_keys.with_key(document, api_keys.made_key({**fields, "owner": "the job of Prometheus"}))
