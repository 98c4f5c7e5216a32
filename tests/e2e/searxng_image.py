"""An image of SearXNG on a host, under a name that no registry has: as users load one where none is reachable."""

from __future__ import annotations

from pathlib import Path

from tests.hosts.docker import call, docker
from tests.hosts.host import Host
from tests.support.searxng import IMAGE_ENVIRONMENT, searxng_root

NAME = "searxng.example/searxng:local"


def load_searxng(host: Host, folder: Path) -> None:
    """Make the image out of Roost's base image there, which has Python, and hand it to the host's Docker.

    What it is made of is flattened: nothing of it has the label of Roost's own images.
    """
    base = host.exec(
        "docker image ls --filter label=org.roost.image=base --format '{{.Repository}}:{{.Tag}}'"
    ).out.split()[0]
    version = "import sys; print(*sys.version_info[:2], sep='.')"
    python = host.exec(f'docker run --rm {base} python3 -c "{version}"').out.strip()
    packed = folder / "searxng.tar"
    call(
        [
            "tar",
            "-C",
            str(searxng_root(folder, python)),
            "--numeric-owner",
            "--owner=0",
            "--group=0",
            "-cf",
            str(packed),
            ".",
        ]
    )
    docker("cp", str(packed), f"{host.name}:/root/searxng.tar")
    changes = " ".join(f"--change 'ENV {name}={value}'" for name, value in IMAGE_ENVIRONMENT.items())
    host.exec(
        f"id=$(docker create {base}) && docker cp - $id:/ </root/searxng.tar && "
        f"docker export $id | docker import {changes} - {NAME} && docker rm $id && rm /root/searxng.tar"
    )
