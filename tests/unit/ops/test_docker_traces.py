"""Docker's rules go, everyone else's stay."""

from __future__ import annotations

from roost.ops.docker_traces import without_docker

SAVED = """\
*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
COMMIT
*filter
:FORWARD DROP [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
:MY-DOCKERFILE-CHAIN - [0:0]
-A INPUT -p tcp --dport 22 -j ACCEPT
-A FORWARD -j DOCKER-USER
COMMIT
"""


def test_only_dockers_lines_go() -> None:
    assert without_docker(SAVED).splitlines() == [
        "*nat",
        ":PREROUTING ACCEPT [0:0]",
        "-A POSTROUTING -s 10.8.0.0/24 -o eth0 -j MASQUERADE",
        "COMMIT",
        "*filter",
        ":FORWARD DROP [0:0]",
        ":MY-DOCKERFILE-CHAIN - [0:0]",
        "-A INPUT -p tcp --dport 22 -j ACCEPT",
        "COMMIT",
    ]


def test_rules_of_others_are_untouched() -> None:
    mine = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n"
    assert without_docker(mine) == mine
