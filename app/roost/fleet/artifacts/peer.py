"""What another machine of the fleet has already made of this machine's artifacts, brought into the cache."""

from __future__ import annotations

from collections.abc import Mapping

from roost.fleet.artifacts.apt import cached_deb
from roost.fleet.artifacts.ensure import Workshop, known_plan
from roost.fleet.artifacts.images import archive_name
from roost.fleet.artifacts.plan import AGENT, BASE
from roost.fleet.artifacts.registry import pull
from roost.fleet.sharing import Peer


def bring(workshop: Workshop, peer: Peer, registry: str = "", digests: Mapping[str, str] | None = None) -> int:
    """Fetch from `peer` the decisions on versions, then the images or packages that are missing here; count them.

    Images whose digest is known are pulled from the registry; the others come as files, of which the agent's holds its
    base as well.
    """
    choices = workshop.choices
    unknown = [wanted for wanted in choices.wanted if workshop.book.find(wanted)[0] is None]
    came = peer.bring(choices.cache_dir, [f"artifacts/resolved-{w.key}.json" for w in unknown], workshop.notify)
    plan = known_plan(workshop)
    names: list[str] = []
    if choices.runtime == "docker":
        here = {image.reference for image in workshop.docker.images_or_none()}
        if registry:
            pulled = pull(
                workshop.docker, registry, digests or {}, [r for r in map(plan.reference, plan.tags) if r not in here]
            )
            workshop.notify(f"{len(pulled)} images were pulled from {registry}")
            here |= set(pulled)
            came += len(pulled)
        missing = [name for name in plan.tags if name != BASE and plan.reference(name) not in here]
        if plan.reference(BASE) not in here and AGENT not in missing:
            missing.append(BASE)
        files = [f"artifacts/{archive_name(name, plan.tags[name])}" for name in missing]
        names = [name for file in files for name in (f"{file}.sha256", file)]
    elif plan.engine is not None:
        names = [str(cached_deb(workshop.debs, p).relative_to(choices.cache_dir)) for p in plan.engine.packages]
    return came + peer.bring(choices.cache_dir, names, workshop.notify)
