"""What a machine can go back to holds the secrets that its turn takes away: it may have been a server until then."""

from __future__ import annotations

import yaml

from roost.ops.pki import SECRET_MAKERS
from tests.unit.ansible.rendering import ROOT


def test_secrets_that_a_turn_withdraws_come_back_with_the_rest() -> None:
    kept = yaml.safe_load((ROOT / "ansible/roles/keep/vars/main.yml").read_text())["keep_files"]
    assert {f"{{{{ roost_secrets_dir }}}}/{name}" for name in SECRET_MAKERS} <= set(kept)
