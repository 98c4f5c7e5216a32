"""`roost security`: what weakens this machine, and its lasting secrets under a passphrase."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from cryptography import x509

from roost.cli.doctor import firewall_loaded
from roost.cli.fleet_inventory import inventory_path
from roost.cli.show import print_json
from roost.fleet.artifacts.from_site import site_variables
from roost.fleet.join.store import Store
from roost.fleet.nomad_api import NomadClient
from roost.hosts.collect import collect
from roost.hosts.findings import as_text, errors, warnings
from roost.hosts.preflight import is_ours
from roost.hosts.security import Ending, Running, Seen, SensitiveFile, audit, service_name
from roost.ops.errors import RoostError
from roost.ops.sealed import is_sealed, seal, unseal
from roost.ops.site import Site, load_site

app = typer.Typer(
    no_args_is_help=True, help="Find what weakens this machine; keep lasting secrets under a passphrase.",
    epilog="Example: sudo roost security audit",
)  # fmt: skip
SUDOERS = ("/etc/sudoers", "/etc/sudoers.d")
SSH_SETTINGS = ("/etc/ssh/sshd_config", "/etc/ssh/sshd_config.d")
MANAGEMENT = "management"
NOT_ROOT = 4


@app.command("audit")
def audit_verb(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at files of secrets, users of services, sudo, certificates, doors to the network.

    Ends with 0 when nothing is wrong, 1 with warnings, 2 with errors.

    Example: sudo roost security audit
    """
    site = load_site()
    if os.geteuid() != 0:
        raise RoostError("Only root may look at all this.", fix="Run the command with sudo.", exit_code=NOT_ROOT)
    found = audit(observe(site))
    code = 2 if errors(found) else 1 if warnings(found) else 0
    if as_json:
        print_json({"ok": code == 0, "findings": [asdict(finding) for finding in found]})
    else:
        print(as_text(found) if found else "Nothing weakens this machine, of what was looked at.")
        print(f"\n{len(errors(found))} errors, {len(warnings(found))} warnings.")
    raise typer.Exit(code)


def observe(site: Site) -> Seen:
    """Look at the machine; changes nothing."""
    variables = site_variables(site)
    uids = {name: int(str(variables[f"roost_{name}_uid"])) for name in ("agent", "engine", "monitoring", "search")}
    now = time.time()
    tokens: int | None = None
    with suppress(RoostError):
        listed = NomadClient.from_site(site).get("acl/tokens") or []
        tokens = sum(token["Type"] == MANAGEMENT for token in listed)
    folder = site.api_key_file.parent
    return Seen(
        files=list(_files(site, uids)),
        processes=list(_processes(variables)),
        sudoers=_texts(SUDOERS),
        certificates=list(_certificates(site)),
        open_tokens=Store(folder).count(now) if folder.is_dir() else 0,
        firewall=firewall_loaded(),
        management_tokens=tokens,
        weak_login=_weak_login(),
        now=now,
    )


def lasting(site: Site) -> list[Path]:
    """Return the secrets that only changes need: the authority's key and Nomad's management token."""
    return [p for p in (site.nomad_ca.with_name("ca-key.pem"), site.nomad_token_file) if p.exists()]


def _files(site: Site, uids: Mapping[str, int]) -> Iterator[SensitiveFile]:
    config = site.api_key_file.parent.parent
    once = lasting(site)
    paths = [
        *site.api_key_file.parent.iterdir(),
        *site.nomad_ca.parent.glob("*-key.pem"),
        *site.nomad_ca.parent.glob("*.p12"),
    ]
    paths += [config / "host.yaml", inventory_path(site), config / "nomad.d" / "nomad.hcl"]
    for path in sorted(set(paths)):
        if not path.is_file():
            continue
        info = path.stat()
        sealed = is_sealed(path.read_bytes()) if path in once else None
        yield SensitiveFile(str(path), stat.S_IMODE(info.st_mode), info.st_uid, sealed=sealed)
    for path in sorted((site.state_dir / "engine-tls").glob("key.pem")):
        info = path.stat()
        yield SensitiveFile(str(path), stat.S_IMODE(info.st_mode), info.st_uid, owners=(0, uids["engine"]))


def _processes(variables: Mapping[str, object]) -> Iterator[Running]:
    """Yield our processes that listen, by their service or program."""
    facts = collect()
    paths = [str(variables[f"roost_{name}_dir"]) for name in ("install", "state", "config")]
    uids = [int(str(variables[f"roost_{name}_uid"])) for name in ("agent", "engine", "monitoring", "search")]
    seen: set[int] = set()
    for listener in facts.listeners:
        if listener.pid in seen or not is_ours(listener, paths, uids):
            continue
        seen.add(listener.pid)
        name = service_name(listener.process, listener.command)
        yield Running(name, listener.command, _uid(listener.pid, listener.uid))


def _uid(pid: int, otherwise: int) -> int:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        return otherwise


def _certificates(site: Site) -> Iterator[Ending]:
    for path in sorted(site.nomad_ca.parent.glob("*.pem")):
        with suppress(OSError, ValueError):
            yield Ending(str(path), x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())


def _texts(places: tuple[str, ...]) -> dict[str, str]:
    paths = [p for top in map(Path, places) for p in ([top] if top.is_file() else sorted(top.glob("*")))]
    return {str(path): path.read_text(errors="replace") for path in paths if path.is_file()}


def _weak_login() -> list[str]:
    lines = [line.split("#")[0].strip() for text in _texts(SSH_SETTINGS).values() for line in text.splitlines()]
    root = [line for line in lines if line.lower().startswith("permitrootlogin")][:1]  # the first one counts
    return [line for line in root if line.split()[-1].lower() == "yes"]


def _chosen(site: Site) -> list[Path]:
    if os.geteuid() != 0:
        raise RoostError("Secrets are root's.", fix="Run the command with sudo.", exit_code=NOT_ROOT)
    found = lasting(site)
    if not found:
        raise RoostError("This machine holds no lasting secret.", fix="Run it where the fleet is set up from.")
    return found


@app.command("seal")
def seal_verb() -> None:
    """Encrypt the authority's key and Nomad's management token under a passphrase (ansible-vault's format).

    Nothing that runs needs them. ./bootstrap.sh and commands that change the fleet then need the passphrase: from
    ROOST_VAULT_PASSPHRASE_FILE, ROOST_VAULT_PASSPHRASE, or asked for at a terminal.

    Example: sudo roost security seal
    """
    for path in _chosen(load_site()):
        print(f"{path} {'is sealed now' if seal(path) else 'was sealed already'}.")


@app.command("unseal")
def unseal_verb() -> None:
    """Take the passphrase away again.

    Example: sudo roost security unseal
    """
    for path in _chosen(load_site()):
        print(f"{path} {'is readable for root now' if unseal(path) else 'was not sealed'}.")
