"""After Nomad's state was lost and a snapshot restored it knows what it knew, and both machines are there."""

from __future__ import annotations

import json

from testinfra.host import Host

testinfra_hosts = ["docker://fleet-a"]
TLS = "/etc/roost/tls"


def test_what_was_kept_is_there_again(host: Host) -> None:
    program = f"""
import pathlib, ssl, urllib.request
context = ssl.create_default_context(cafile="{TLS}/ca.pem")
context.load_cert_chain("{TLS}/cli.pem", "{TLS}/cli-key.pem")
token = pathlib.Path("/etc/roost/secrets/nomad-operator-token").read_text().strip()
wanted = urllib.request.Request("https://127.0.0.1:4646/v1/var/test/kept", headers={{"X-Nomad-Token": token}})
print(urllib.request.urlopen(wanted, context=context).read().decode())
"""
    answer = json.loads(host.check_output(f"python3 - <<'EOF'{program}EOF"))
    assert answer["Items"] == {"word": "remembered"}


def test_the_fleet_is_whole(host: Host) -> None:
    state = json.loads(host.check_output("roost fleet status --json"))
    assert state["healthy"]
    assert len(state["machines"]) == 2
