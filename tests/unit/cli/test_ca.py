"""`roost ca export`: what it writes is what real TLS clients need, no more, and never the authority's key."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from roost.ops.pki import LeafSpec, ensure_pki
from tests.support.fakes import WORDS, fake_engine
from tests.support.gateway import API_KEY, service, write_keys
from tests.support.net import eventually, free_port
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import Installation


@pytest.fixture
def authority(site: Installation, tmp_path: Path) -> Path:
    """Return the folder of a real authority, which the site file names."""
    tls = tmp_path / "fleet-tls"
    tls.mkdir()
    ensure_pki(tls, [LeafSpec("api", ("roost.test", "127.0.0.1"))])
    document = json.loads(site.site_file.read_text())
    site.site_file.write_text(json.dumps(document | {"nomad_ca": str(tls / "ca.pem")}))
    return tls


@pytest.fixture
async def address(authority: Path, tmp_path: Path) -> AsyncIterator[str]:
    """Run a gateway with TLS; return its base URL."""
    (tmp_path / "engine-key").write_text("engine-key")
    port = free_port()
    async with fake_engine() as engine:
        environment = {
            "ROOST_API_KEYS_FILE": str(write_keys(tmp_path)),
            "ROOST_ENGINE_KEY_FILE": str(tmp_path / "engine-key"),
            "ROOST_STATIC_ENDPOINTS": engine.url,
            "ROOST_LISTEN": f"127.0.0.1:{port}",
            "ROOST_TLS_CERT": str(authority / "api.pem"),
            "ROOST_TLS_KEY": str(authority / "api-key.pem"),
            "ROOST_PROBE_UNREADY_EVERY_S": "0.05",
        }
        with service(tmp_path, environment) as running:
            await eventually(lambda: '"state": "ready"' in running.log.read_text(), 15, "the model")
            yield f"https://127.0.0.1:{port}"


async def test_clients_that_have_it_are_answered_and_others_hang_up(address: str, roost: Run, tmp_path: Path) -> None:
    out = tmp_path / "roost-ca.pem"
    assert roost("ca", "export", "--out", str(out)).exit_code == 0
    context = ssl.create_default_context(cafile=str(out))

    def ask() -> str | None:
        with openai.DefaultHttpxClient(verify=context, trust_env=False) as http:
            client = openai.OpenAI(base_url=f"{address}/v1", api_key=API_KEY, http_client=http, max_retries=0)
            answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "x"}])
            return answer.choices[0].message.content

    assert await asyncio.to_thread(ask) == "".join(WORDS)
    curl = shutil.which("curl")
    if curl:
        argv = [curl, "-sS", "--noproxy", "*", "--cacert", str(out), f"{address}/healthz"]
        done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["status"] == "ok"
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        await asyncio.to_thread(httpx.get, f"{address}/healthz", trust_env=False)


def test_it_says_the_fingerprint_that_openssl_says(authority: Path, roost: Run) -> None:
    argv = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(authority / "ca.pem")]
    theirs = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip().partition("=")[2]
    done = roost("ca", "export")
    assert theirs in done.stderr
    assert done.stdout.startswith(ssl.PEM_HEADER)
    assert "PRIVATE" not in done.output
    assert json.loads(roost("ca", "export", "--json").stdout)["sha256"] == theirs


def test_a_key_beside_the_certificate_does_not_leave(authority: Path, roost: Run) -> None:
    both = (authority / "ca-key.pem").read_text() + (authority / "ca.pem").read_text()
    (authority / "ca.pem").write_text(both)
    assert "PRIVATE" not in roost("ca", "export").output


def test_help_says_how_clients_use_it(roost: Run) -> None:
    said = roost("ca", "export", "--help").output
    for client in ("--cacert", "OpenAI(", "update-ca-certificates", "Firefox", "certutil"):
        assert client in said


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_without_a_certificate_there_is_a_sentence(authority: Path, roost: Run, content: str | None) -> None:
    (authority / "ca.pem").unlink()
    if content is not None:
        (authority / "ca.pem").write_text(content)
    done = roost("ca", "export")
    assert done.exception is not None
    assert "There is no certificate" in str(done.exception)
