"""What a real Nomad says where a server is taken out of Raft."""

from __future__ import annotations

from pathlib import Path

import pytest

from roost.fleet.rolling.servers import remove_peer, servers
from roost.ops.errors import RoostError
from tests.support.nomad_tls import nomad_server


def test_only_one_that_is_no_member_is_gone_already(tmp_path: Path) -> None:
    with nomad_server(tmp_path) as nomad:
        remove_peer(nomad, "00000000-0000-0000-0000-000000000000", 0)
        (only,) = servers(nomad)
        with pytest.raises(RoostError, match=f"{only.id} was not taken"):
            remove_peer(nomad, only.id, 0)
        assert servers(nomad) == [only]
