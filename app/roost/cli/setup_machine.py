"""The machine that `roost setup` is about: what it has, what can be had there, and what is written down of it."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter, ValidationError

from roost.cli.images import progress
from roost.cli.plan import gpu_vendors, present_dirs, reserved_memory_mib
from roost.fleet.artifacts.from_site import HOST_FILE, release_dir
from roost.fleet.capacity import capacity_of
from roost.fleet.figures import host_figures
from roost.fleet.host_plan import from_hub_of, host_planner
from roost.fleet.place.wishes import SHAPES
from roost.fleet.plan import Placed
from roost.fleet.plan_file import NAME as PLAN_FILE
from roost.fleet.plan_file import read_plan
from roost.fleet.setup import VARIABLE, Asked, Offer, Planner, Proposal, propose, wished_slots
from roost.hosts.bandwidth import Bandwidth
from roost.hosts.collector_zip import pack
from roost.hosts.facts import HostFacts
from roost.hosts.report import Report
from roost.hosts.report import look as look_at_host
from roost.hosts.tiers import Tier
from roost.models.catalogue import Catalogue, load_catalogue
from roost.models.choose import Seen, rank
from roost.models.model_slots import ModelSlot, parse_slots
from roost.models.obtainable import Obtainable, Reach, files_here
from roost.models.path_slots import with_paths
from roost.models.present import found_models
from roost.ops.errors import RoostError
from roost.ops.host_file import load
from roost.ops.kept_file import read_text
from roost.ops.run import run
from roost.ops.site import Site, load_site
from roost.ops.variables import load_variables, resolve

ASK_HOST_TIMEOUT_S = 120.0
MOST_OPTIONS = 12
ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Option:
    """Another model for a slot: as it would be offered, or why it is not possible."""

    model: str
    offer: Offer | None
    problem: str = ""


@dataclass
class Machine:
    """One machine. `file` keeps its operator's variables, `text` is what it says now.

    `left_out` says of models why they cannot be had; `defaults` are the slots of group_vars.
    """

    name: str
    facts: HostFacts
    tier: Tier
    bandwidth: Bandwidth | None
    catalogue: Catalogue
    obtainable: Obtainable
    planner: Planner
    file: Path
    text: str
    slots: tuple[ModelSlot, ...]
    optional: frozenset[str]
    defaults: tuple[ModelSlot, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    hub_words: str = ""
    inventory: Path | None = None
    installed: Site | None = None

    @property
    def is_here(self) -> bool:
        """Say whether it is this machine, and no other host of an inventory."""
        return self.inventory is None

    @property
    def site(self) -> Site:
        """Return the installation on this machine."""
        if self.installed is None:
            raise AssertionError(self.name)  # asked for this machine only
        return self.installed

    @property
    def apply_command(self) -> str:
        """Return what makes the file's words so."""
        if self.is_here:
            return "./bootstrap.sh"
        return f"`ansible-playbook -i {self.inventory} playbook.yaml --limit {self.name}`"

    def propose(self, slots: Sequence[ModelSlot], optional: Collection[str]) -> Proposal:
        """Place the slots.

        Raises:
            RoostError: a slot names what there is not.
        """
        return propose(self.planner(slots, optional), slots, self.catalogue, self.obtainable)

    def options(self, slot: ModelSlot, slots: Sequence[ModelSlot], optional: Collection[str]) -> list[Option]:
        """Return the models that suit a slot, best first, each as it would be offered beside the other slots."""
        ranked = rank(slot.role, [_seen(name, self.catalogue) for name in self.catalogue.entries])
        return [self._option(one.reference, slot, slots, optional) for one in ranked[:MOST_OPTIONS]]

    def _option(self, name: str, slot: ModelSlot, slots: Sequence[ModelSlot], optional: Collection[str]) -> Option:
        why = self.obtainable.why_not(self.catalogue.listed(name))
        if why is not None:
            return Option(name, None, f"{why.reason}; {why.remedy}")
        named = slot.model_copy(update={"model": name, "path": "", "context_size": 0})
        proposal = self.propose([named if s.slot == slot.slot else s for s in slots], set(optional) - {slot.slot})
        offer = proposal.offer(slot.slot)
        if offer is not None:
            return Option(offer.model, offer)
        reasons = [f"{r.reason}. {r.remedy}" for r in proposal.refused if r.slot == slot.slot]
        return Option(name, None, reasons[0] if reasons else "it does not fit beside the others")

    def answer(self) -> object:
        """Return the question and answer with which the run ended."""
        return json.loads((self.site.state_dir / "last-verify.json").read_text())


def _seen(name: str, catalogue: Catalogue) -> Seen:
    entry = catalogue.entries[name]
    return Seen(
        name, entry.title, entry.architecture, has_projector=entry.projector is not None,
        parameters=entry.parameters.total, roles=dict(entry.roles),
    )  # fmt: skip


def file_of(host: str, inventory: Path | None) -> Path:
    """Return the file of the operator's variables: of this machine, or of a host of an inventory.

    Raises:
        RoostError: nothing is installed here, or there is no such inventory.
    """
    if inventory is None:
        return _config_dir(load_site()) / HOST_FILE
    if not inventory.exists():
        raise RoostError(f"There is no inventory {inventory}.", fix="Name its folder or its file.", exit_code=2)
    folder = (inventory if inventory.is_dir() else inventory.parent) / "host_vars"
    if (folder / host).is_dir():
        return folder / host / "roost.yaml"
    there = [folder / f"{host}{ending}" for ending in ENDINGS if (folder / f"{host}{ending}").exists()]
    return there[0] if there else folder / f"{host}{ENDINGS[0]}"


def planner_for(
    report: Report, catalogue: Catalogue, reach: Reach, variables: dict[str, object], site: Site | None
) -> tuple[Planner, tuple[str, ...]]:
    """Return what places slots on this machine, and the slots that a machine of its size has.

    What runs does not hold it back, as it does the playbook: here the user decides.
    """
    host = capacity_of(
        report.facts,
        report.bandwidth,
        running=_running(site),
        vendors=gpu_vendors(variables),
        others_mib=reserved_memory_mib(variables),
    )
    names = [gpu.name for gpu in report.facts.gpus]
    figures = host_figures(catalogue, site.models_dir if site else None, site.state_dir if site else None, names)
    return host_planner(host, catalogue, reach, figures=figures), SHAPES[host.tier]


def _running(site: Site | None) -> tuple[Placed, ...]:
    """Return the model servers of ours: the graphics memory that they hold may be planned with."""
    plan = read_plan(site.state_dir / PLAN_FILE) if site else None
    return plan.placed if plan else ()


def need_root(file: Path) -> None:
    """See beforehand that the file may be written.

    Raises:
        RoostError: this user may not.
    """
    folder = file.parent
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        raise RoostError(f"{file} may not be written by this user.", fix="Run it with sudo.", exit_code=4)


def _config_dir(site: Site) -> Path:
    return site.api_key_file.parent.parent


@dataclass(frozen=True)
class Subject:
    """What is looked at: a machine's report, its variables, and the installation where it is this machine."""

    name: str
    report: Report
    variables: dict[str, object]
    site: Site | None


def look(asked: Asked, *, host: str = "", inventory: Path | None = None, quiet: bool = False) -> Machine:
    """Look at the machine and at what is to be had for it.

    Raises:
        RoostError: nothing is installed here, the host cannot be asked, a file is not valid, or an option is not.
    """
    file = file_of(host, inventory)
    text = read_text(file)
    said = load(text, file)
    tell = progress(quiet=quiet)
    subject = _here(file) if inventory is None else _there(host, inventory, tell)
    variables, report = subject.variables, subject.report
    default = load_variables(release_dir(), Path(os.devnull))
    custom = variables.get("models_custom") or {}
    catalogue = load_catalogue(release_dir() / "group_vars" / "models.yaml", custom=_mapping(custom))
    # of an inventory, its groups may name slots too
    own = said.get(VARIABLE) or (variables[VARIABLE] if variables[VARIABLE] != default[VARIABLE] else None)
    mine = None if own is None else parse_slots(own)
    if subject.site is not None:  # files of this machine can be looked at
        paths = [slot.path for slot in mine or () if slot.path]
        paths += [model for model in asked.models.values() if model and model.startswith("/")]
        catalogue = with_paths(catalogue, paths, subject.site.models_dir)
    if subject.site is not None:
        lies_here = found_models(catalogue, subject.site.models_dir, present_dirs(variables), dry_run=True)
        catalogue = lies_here.beside(catalogue)
    reach, hub_words = _reach(subject, catalogue, tell)
    obtainable = Obtainable(catalogue, reach)
    planner, shape = planner_for(report, catalogue, reach, variables, subject.site)
    defaults = tuple(parse_slots(default[VARIABLE]))
    slots, optional = wished_slots(mine, defaults, shape, asked)
    left_out = {m.reference: f"{w.reason}; {w.remedy}" for m in catalogue.all() if (w := obtainable.why_not(m))}
    return Machine(
        name=subject.name, facts=report.facts, tier=report.tier, bandwidth=report.bandwidth, catalogue=catalogue,
        obtainable=obtainable, planner=planner, file=file, text=text, slots=slots, optional=optional,
        defaults=defaults, left_out=left_out, hub_words=hub_words, inventory=inventory, installed=subject.site,
    )  # fmt: skip


def _mapping(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _here(file: Path) -> Subject:
    site = load_site()
    report = look_at_host(
        [site.models_dir, site.cache_dir],
        manifest=site.state_dir / "manifest",
        bandwidth_file=site.bandwidth_file,
        measure_once=True,
    )
    return Subject(report.facts.hostname, report, load_variables(release_dir(), file), site)


def _there(host: str, inventory: Path, tell: Callable[[str], None]) -> Subject:
    """Ask a host of an inventory: Ansible brings the collector there, which needs no more than Python."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(release_dir() / "ansible.cfg"), "LC_ALL": "C.UTF-8"}
    bin_dir = Path(sys.executable).parent
    where = ["-i", str(inventory)]
    tell(f"Reading the variables of {host}")
    words: list[str | Path] = [
        bin_dir / "ansible-inventory",
        *where,
        "--host",
        host,
        "--playbook-dir",
        str(release_dir()),
    ]
    fix = f"See that {host} is in {inventory}, and that `ansible -i {inventory} {host} -m ping` works."
    variables = json.loads(run(words, env=environment, timeout_s=ASK_HOST_TIMEOUT_S, fix=fix))
    known = {"playbook_dir": str(release_dir()), "ansible_playbook_python": sys.executable}
    variables = resolve({**known, **variables})
    tell(f"Asking {host} what it has")
    with TemporaryDirectory(prefix="roost-setup-") as folder:
        program = Path(folder) / "collect.pyz"
        program.write_bytes(pack())
        paths = [str(variables.get(name, "/")) for name in ("roost_models_dir", "roost_cache_dir")]
        command = " ".join([str(program), *(f"--path {shlex.quote(path)}" for path in paths), "--probe"])
        task = ["-m", "ansible.builtin.script", "-a", f"executable=python3 {command}"]
        said = run([bin_dir / "ansible", *where, host, *task], env=environment, timeout_s=ASK_HOST_TIMEOUT_S, fix=fix)
    return Subject(host, report_of(said, host), variables, None)


def report_of(said: str, host: str) -> Report:
    """Read the collector's report in what Ansible's ad-hoc command prints: `HOST | CHANGED => {"stdout": …}`.

    Raises:
        RoostError: it is no report.
    """
    try:
        answer = json.loads(said[said.index("{") : said.rindex("}") + 1])
        document = json.loads(answer["stdout"])
        return TypeAdapter(Report).validate_python({name: document[name] for name in ("facts", "tier", "bandwidth")})
    except (ValueError, KeyError, TypeError, ValidationError) as error:
        raise RoostError(
            f"{host} did not say what it has: {said.strip()[-500:]}", fix="See that it has Python 3.9 or newer."
        ) from error


def _reach(subject: Subject, catalogue: Catalogue, tell: Callable[[str], None]) -> tuple[Reach, str]:
    """Return what can be had, and a line on the model hub; a hub is asked only where a model needs one.

    A proposal is looked at before it is carried out, so that `models_from_hub: auto` is a yes here.
    """
    offline = str(subject.variables.get("roost_offline_dir") or "")
    here = frozenset[str]()
    if subject.site is not None:
        here = files_here(subject.site.models_dir, subject.site.cache_dir, catalogue)
    reach = Reach(here, Path(offline) if offline else None)
    source = Obtainable(catalogue, reach).hub_source()
    if source is None:
        return reach, f"not asked: the offline folder {offline} is used" if offline else ""
    if from_hub_of(subject.variables["models_from_hub"]) == "no":
        return replace(reach, hub_problem="models_from_hub is no."), "not asked: models_from_hub is no"
    from roost.models.hub import default_hub, why_silent  # takes a second; only who needs a hub asks one

    bundle = str(subject.variables.get("extra_ca_bundle") or "")
    hub = default_hub(Path(bundle) if bundle else None)
    tell("Asking the model hub whether it is there")
    problem = why_silent(source, hub)
    words = f"{problem} Models that only a hub has are left out." if problem else f"{hub.endpoint} answers"
    return replace(reach, hub_problem=problem), words
