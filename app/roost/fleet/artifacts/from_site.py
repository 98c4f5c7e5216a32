"""The choices for artifacts of an installed Roost: its variables, its folders."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import roost
from roost.fleet.artifacts.apt import architecture
from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.ensure import Workshop
from roost.fleet.artifacts.plan import Choices
from roost.ops.site import Site
from roost.ops.variables import is_on, load_variables

HOST_FILE = "host.yaml"


def release_dir() -> Path:
    """Return the folder of the release this code runs from."""
    return Path(roost.__file__).resolve().parents[2]


def site_variables(site: Site) -> dict[str, object]:
    """Return the variables of an installation: the release's defaults and the operator's overrides."""
    return load_variables(release_dir(), site.api_key_file.parent.parent / HOST_FILE)


def site_choices(site: Site, variables: dict[str, object]) -> Choices:
    """Return what an installation's artifacts are made from; an offline folder that is gone does not count."""
    searches = is_on(variables["web_search"]) and has_api(site)
    offline = Path(str(variables["roost_offline_dir"])) if variables["roost_offline_dir"] else None
    return Choices.model_validate(
        {
            "runtime": site.runtime,
            "release_dir": release_dir(),
            "cache_dir": site.cache_dir,
            "artifacts_dir": site.artifacts_dir,
            "offline_dir": offline if offline is not None and offline.is_dir() else None,
            "extra_ca_bundle": variables["extra_ca_bundle"] or None,
            "mirror": variables["debian_mirror"],
            "base_suite": variables["images_base_suite"],
            "base_packages": variables["images_base_packages"],
            "engine_name": variables["engine"],
            "engine_suite": variables["engine_suite"],
            "engine_packages": variables["engine_packages"],
            "engine_gpu_packages": variables["engine_gpu_packages"],
            "engine_gpus": site.engine_gpus,
            "monitoring_suite": variables["monitoring_suite"],
            "monitoring_packages": variables["monitoring_packages"] if is_on(variables["monitoring"]) else (),
            "web_search_image": variables["web_search_image"] if searches else "",
            "keep_previous": variables["images_keep_previous"],
            "arch": architecture(),
        }
    )


def has_api(site: Site) -> bool:
    """Say whether the API and what belongs beside it run on this machine: it is alone, or a fleet's first."""
    return site.fleet in {"", socket.gethostname()}


def site_docker(site: Site) -> Docker:
    """Return the Docker of an installation; DOCKER_HOST of the caller wins."""
    environment = dict(os.environ)
    if site.docker_host:
        environment.setdefault("DOCKER_HOST", site.docker_host)
    return Docker(environment)


def site_workshop(site: Site, notify: Callable[[str], None]) -> Workshop:
    """Return the workshop of an installation."""
    return Workshop(site_choices(site, site_variables(site)), site_docker(site), notify)
