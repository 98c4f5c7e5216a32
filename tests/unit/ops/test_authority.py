"""The authority on the controller and a node elsewhere: keys stay on the node, the authority says what is signed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from roost.ops.authority import Authority, Node
from roost.ops.errors import RoostError
from roost.ops.pki import LeafSpec

NODE = LeafSpec("node", ("client.global.nomad", "192.0.2.12"))
CLI = LeafSpec("cli", ("cli.global.nomad",))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path / "controller/tls", tmp_path / "controller/secrets")
    assert set(made.ensure()) >= {"ca", "gossip-key", "nomad-operator-token"}
    return made


@pytest.fixture
def node(tmp_path: Path) -> Node:
    for name in ("tls", "secrets"):
        (tmp_path / "node" / name).mkdir(parents=True)
    return Node(tmp_path / "node/tls", tmp_path / "node/secrets", [NODE, CLI])


def install(authority: Authority, node: Node, secrets: dict[str, str]) -> None:
    ca = authority.certificate()
    node.install(ca, authority.sign(node.leaves, node.requests(ca)), secrets)


def test_a_node_gets_certificates_and_its_keys_never_leave_it(authority: Authority, node: Node) -> None:
    install(authority, node, {"gossip-key": authority.secret("gossip-key")})
    assert node.lacks(authority.certificate()) == []
    assert node.changed(authority.certificate(), {"gossip-key": authority.secret("gossip-key")}) == []
    key = (node.tls_dir / "node-key.pem").read_text()
    assert key not in "".join(p.read_text() for p in authority.tls_dir.iterdir())
    for name in ("node-key.pem", "cli-key.pem", "cli.p12"):
        assert (node.tls_dir / name).stat().st_mode & 0o777 == 0o600, name
    assert not list(node.tls_dir.glob("*.new"))
    assert not (node.tls_dir / "ca-key.pem").exists()
    argv = ["openssl", "verify", "-x509_strict", "-CAfile", str(authority.tls_dir / "ca.pem")]
    assert subprocess.run([*argv, str(node.tls_dir / "node.pem")], check=False, capture_output=True).returncode == 0


def test_a_node_that_is_a_server_no_more_holds_no_secret_of_the_fleet(authority: Authority, node: Node) -> None:
    install(authority, node, {name: authority.secret(name) for name in ("gossip-key", "nomad-operator-token")})
    (node.secrets_dir / "somebody-elses").write_text("x\n")
    ca = authority.certificate()
    assert node.changed(ca, {"gossip-key": authority.secret("gossip-key")}) == ["nomad-operator-token"]
    install(authority, node, {})
    assert [path.name for path in node.secrets_dir.iterdir()] == ["somebody-elses"]
    assert node.changed(ca, {}) == []


def test_the_authority_s_own_secrets_are_never_withdrawn(authority: Authority) -> None:
    """A controller that is a machine of its own fleet, reached by SSH, and no server."""
    here = Node(authority.tls_dir, authority.secrets_dir, [NODE, CLI])
    install(authority, here, {})
    assert authority.secret("nomad-operator-token")
    assert here.changed(authority.certificate(), {}) == []


def test_a_machine_that_had_an_authority_of_its_own_holds_no_secret_of_the_fleet_it_joined(
    authority: Authority, node: Node
) -> None:
    Authority(node.tls_dir, node.secrets_dir).ensure()
    assert "nomad-operator-token" in node.changed(authority.certificate(), {})
    install(authority, node, {})
    assert not any(node.secrets_dir.iterdir())
    assert node.changed(authority.certificate(), {}) == []


def test_an_authority_s_key_that_cannot_be_read_counts_as_the_fleet_s(authority: Authority, node: Node) -> None:
    (node.tls_dir / "ca-key.pem").write_text("no key")
    (node.secrets_dir / "api-key").write_text("k")
    install(authority, node, {})
    assert (node.secrets_dir / "api-key").exists()


def test_only_what_is_lacking_is_asked_for(authority: Authority, node: Node) -> None:
    install(authority, node, {})
    (node.tls_dir / "cli.pem").unlink()
    assert list(node.requests(authority.certificate())) == ["cli"]


def test_a_node_is_signed_what_the_controller_says_and_nothing_else(authority: Authority, node: Node) -> None:
    ca = authority.certificate()
    requests = node.requests(ca)
    with pytest.raises(RoostError, match="may not have"):
        authority.sign([CLI], requests)
    other = LeafSpec("node", ("client.global.nomad", "192.0.2.99"))
    node.install(ca, authority.sign([other, CLI], requests), {})
    assert [spec.name for spec in node.lacks(ca)] == ["node"], "the request has no say in the names"


def test_a_certificate_for_another_key_is_refused(authority: Authority, node: Node) -> None:
    ca = authority.certificate()
    signed = authority.sign(node.leaves, node.requests(ca))
    node.requests(ca)  # new keys
    with pytest.raises(RoostError, match="not for the key"):
        node.install(ca, signed, {})


def test_another_authority_replaces_everything(authority: Authority, node: Node, tmp_path: Path) -> None:
    install(authority, node, {})
    other = Authority(tmp_path / "other/tls", tmp_path / "other/secrets")
    other.ensure()
    assert {spec.name for spec in node.lacks(other.certificate())} == {"node", "cli"}
    assert "ca" in node.changed(other.certificate(), {})
