"""SearXNG on a host: its image under a name that no registry has, as users load one, and a search engine for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hosts.docker import call, docker
from tests.hosts.host import CLONE, HOST_CACHE, Host, wait_until
from tests.support.searxng import IMAGE_ENVIRONMENT, searxng_root

NAME = "searxng.example/searxng:local"
PAGES_PORT = 8470
# Roost's own image of it is found by that name there, which in the tests does not say what is in it.
SAVED = f"{HOST_CACHE}/artifacts/image-search-*"


@contextmanager
def searxng_loaded(host: Host, folder: Path) -> Iterator[str]:
    """Have the image in the host's Docker for the length of a `with` block; yields its name.

    It is made out of Roost's base image there, which has Python, and flattened: nothing of it has the label of Roost's
    own images. `folder` is an empty one.
    """
    host.exec(f"rm -f {SAVED}")
    try:
        make(host, folder)
        yield NAME
    finally:
        host.exec(f"docker image rm {NAME}; rm -f {SAVED} /root/searxng.tar", check=False)


def make(host: Host, folder: Path) -> None:
    """Put the program over the base image's root, and import that as an image."""
    base = host.exec(
        "docker image ls --filter label=org.roost.image=base --format '{{.Repository}}:{{.Tag}}'"
    ).out.split()[0]
    version = "import sys; print(*sys.version_info[:2], sep='.')"
    python = host.exec(f'docker run --rm {base} python3 -c "{version}"').out.strip()
    packed, root = folder / "searxng.tar", searxng_root(folder, python)
    call(["tar", "-C", str(root), "--numeric-owner", "--owner=0", "--group=0", "-cf", str(packed), "."])
    docker("cp", str(packed), f"{host.name}:/root/searxng.tar")
    changes = " ".join(f"--change 'ENV {name}={value}'" for name, value in IMAGE_ENVIRONMENT.items())
    host.exec(
        f"id=$(docker create {base}) && docker cp - $id:/ </root/searxng.tar && "
        f"docker export $id | docker import {changes} - {NAME} && docker rm $id"
    )


@contextmanager
def pages_served(host: Host) -> Iterator[str]:
    """Run a search engine of one page on the host for the length of a `with` block; yields its address there."""
    host.spawn(f"exec python3 {CLONE}/tests/hosts/pages.py {PAGES_PORT}")
    try:
        wait_until("the pages come", lambda: f":{PAGES_PORT} " in host.exec("ss -Hltn").out, 20)
        yield f"http://127.0.0.1:{PAGES_PORT}"
    finally:
        host.exec("pkill -f '[h]osts/pages.py'", check=False)
