"""Real images, in the Docker that DOCKER_HOST names, from downloads in the shared cache."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from roost.fleet.artifacts.docker import Docker
from roost.fleet.artifacts.ensure import Outcome, ensure
from roost.fleet.artifacts.images import archive_name
from roost.fleet.artifacts.plan import AGENT, BASE, ENGINE
from tests.support.artifacts import NO_OP_SECONDS, Bench, cache_folder, make_bench, without_programs


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bench, Outcome]]:
    """Make the images; afterwards remove those that were not there before."""
    bench = make_bench(tmp_path_factory.mktemp("docker"), "docker")
    before = {image.reference for image in Docker().images()}
    yield bench, ensure(bench.workshop())
    Docker().remove([image.reference for image in Docker().images() if image.reference not in before])


def contained(image: str, program: str, *words: str) -> str:
    """Run a program in a container as the jobs do: read-only, no capabilities, no network."""
    options = ["--rm", "--read-only", "--network", "none", "--cap-drop", "all", "--entrypoint", program]
    done = subprocess.run(["docker", "run", *options, image, *words], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_the_engines_image_runs_its_server(docker: tuple[Bench, Outcome]) -> None:
    image = docker[1].images["llama_server"]
    assert "version:" in contained(image, "/usr/bin/llama-server", "--version")
    assert "GNU Wget" in contained(image, "/usr/bin/wget", "--version")  # its health check


def test_the_agents_image_runs_read_only_as_its_own_user(docker: tuple[Bench, Outcome]) -> None:
    code = (
        "import os, roost.cli.serve as serve, roost.cli.healthcheck;"
        "print(os.getuid(), serve.__file__, serve.__cached__, os.path.exists(serve.__cached__))"
    )
    printed = contained(docker[1].images["agent"], "python3", "-c", code).split()
    assert printed[0] == "8361"
    assert printed[1].startswith("/opt/roost/app/roost/")
    assert printed[3] == "True"  # byte code is there: a read-only root could not write it


def test_images_say_what_they_are(docker: tuple[Bench, Outcome]) -> None:
    for name, label in (("agent", AGENT), ("llama_server", ENGINE), ("base", BASE)):
        image = docker[1].images[name]
        form = '{{index .Config.Labels "org.roost.image"}} {{index .Config.Labels "org.opencontainers.image.version"}}'
        assert Docker().call("image", "inspect", "--format", form, image).split() == [label, image.rsplit(":")[-1]]


def test_no_certificate_beyond_debians_own_is_in_the_images(docker: tuple[Bench, Outcome]) -> None:
    code = (
        "import pathlib; debian = pathlib.Path('/usr/share/ca-certificates');"
        "own = {p.read_text().strip() for p in debian.rglob('*.crt')};"
        "bundle = pathlib.Path('/etc/ssl/certs/ca-certificates.crt').read_text();"
        "mark = '-----END CERTIFICATE-----';"
        "found = {(part + mark).strip() for part in bundle.split(mark) if 'BEGIN' in part};"
        "print(len(found), len(found - own), len(list(pathlib.Path('/usr/local/share').rglob('*.crt'))))"
    )
    count, foreign, local_ones = contained(docker[1].images["agent"], "python3", "-c", code).split()
    assert int(count) > 50
    assert (foreign, local_ones) == ("0", "0")


def test_the_second_time_no_image_is_made_and_nothing_fetched(
    docker: tuple[Bench, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, first = docker
    bench.said.clear()
    with without_programs(monkeypatch, tmp_path / "bin", "apt-get", "dpkg-deb", "debootstrap"):
        begin = time.monotonic()
        again = ensure(bench.workshop())
    # Docker's own programs do the work, beside whatever else runs.
    assert time.monotonic() - begin < 5 * NO_OP_SECONDS
    assert (again.changed, again.built, again.images) == (False, [], first.images)
    assert bench.said == []


def test_a_damaged_image_in_the_cache_is_made_again(docker: tuple[Bench, Outcome], tmp_path: Path) -> None:
    bench, first = docker
    image = first.images["llama_server"]
    tag = image.rsplit(":")[-1]
    own = tmp_path / "cache"
    (own / "artifacts").mkdir(parents=True)
    for path in [*(cache_folder() / "artifacts").glob("resolved-*.json")]:
        (own / "artifacts" / path.name).write_bytes(path.read_bytes())
    (own / "debs").symlink_to(cache_folder() / "debs")
    archive = own / "artifacts" / archive_name(ENGINE, tag)
    archive.write_text("cut short")
    archive.with_name(f"{archive.name}.sha256").write_text("0" * 64)
    Docker().remove([image])
    bench.said.clear()
    made = ensure(bench.workshop(cache_dir=own))
    assert made.built == [image]
    assert any("damaged" in line for line in bench.said)
    assert archive.stat().st_size > 1 << 20
