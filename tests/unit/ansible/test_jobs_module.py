"""The module that applies jobs: a check before the certificate of a new address exists."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.support.ansible_module import REPOSITORY

WISH = SimpleNamespace(listen="192.0.2.1:8443")


@pytest.fixture
def jobs() -> ModuleType:
    """Return the module's code."""
    spec = importlib.util.spec_from_file_location("roost_jobs", REPOSITORY / "ansible/plugins/modules/roost_jobs.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_check_knows_that_the_pair_will_be_made(jobs: ModuleType, tmp_path: Path) -> None:
    params = {"tls_dir": str(tmp_path), "listen_cert": "", "listen_key": ""}
    assert jobs.tls_pair(params, WISH, dry_run=True) == jobs.TO_BE_MADE
    with pytest.raises(FileNotFoundError):
        jobs.tls_pair(params, WISH, dry_run=False)
    (tmp_path / "api.pem").write_text("certificate")
    (tmp_path / "api-key.pem").write_text("key")
    assert jobs.tls_pair(params, WISH, dry_run=True) == ("certificate", "key")
