"""The firewall's rules for each policy and zone; nft itself reads them in Molecule, on real hosts."""

from __future__ import annotations

import re

import pytest

from tests.unit.ansible.rendering import HOSTS, render

TEMPLATE = "etc/roost/firewall.nft.j2"
VARIANTS: dict[str, dict[str, object]] = {
    "ours": {},
    "overlay": {"firewall_overlay_interface": "wg0"},
    "deny": {
        "firewall_policy": "deny",
        "firewall_underlay_udp": [51820],
        "firewall_underlay_from": ["192.0.2.0/24", "2001:db8::/32"],
        "firewall_open": [{"port": 8088}, {"port": 9000, "protocol": "udp", "from": ["198.51.100.0/24"]}],
    },
    "public": {"firewall_policy": "deny", "api_listen_address": "192.0.2.11"},
}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("rules"), "firewall", TEMPLATE, VARIANTS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return render(tmp_path_factory.mktemp("alone"), "firewall", TEMPLATE, {"ours": {}}, hosts=1)


def lines(text: str, word: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if word in line and not line.lstrip().startswith("#")]


def test_by_default_only_our_ports_are_closed(rules: dict[str, str], alone: dict[str, str]) -> None:
    for text in (rules["ours"], alone["ours"]):
        assert "policy accept" in text
        assert "policy drop" not in text
        assert lines(text, "hook forward") == ["type filter hook forward priority filter - 10; policy accept;"]
        assert not lines(text, "jump"), "nothing is looked at that goes through"
        assert all("dport" in line for line in lines(text, " drop"))
    assert "4646" in lines(alone["ours"], "tcp dport")[0]
    assert "saddr" not in alone["ours"], "a machine alone lets nobody in"


def test_the_fleets_own_ports_answer_its_addresses_in_both_families(rules: dict[str, str]) -> None:
    for name in ("ours", "deny"):
        assert f"elements = {{ {HOSTS['one']}, {HOSTS['two']} }}" in rules[name]
        assert f"elements = {{ {HOSTS['three']} }}" in rules[name]
        assert len(lines(rules[name], "@fleet_ip")) == 4


def test_nothing_is_taken_away_while_rules_are_exchanged(rules: dict[str, str], alone: dict[str, str]) -> None:
    """Packets on their way got past a table that was deleted and made anew, in one transaction too."""
    for text in (*rules.values(), alone["ours"]):
        assert not lines(text, "delete")
        first, rest = text.split("flush table inet roost\n")
        declared = {f"set fleet_ip{family}" for family in "46"} | {"chain input", "chain forward", "chain containers"}
        assert {line.strip().rstrip(" {") for line in lines(first, " {") if "table" not in line} == declared
        assert {line.strip().rstrip(" {") for line in lines(rest, " {") if re.match("(set|chain) ", line)} <= declared


def test_with_an_overlay_they_answer_only_what_comes_through_it(rules: dict[str, str]) -> None:
    found = lines(rules["overlay"], "@fleet_ip")
    assert found
    assert all(line.startswith('iifname "wg0" ') for line in found)


def test_deny_closes_all_but_what_is_named(rules: dict[str, str]) -> None:
    text = rules["deny"]
    assert "hook input priority filter - 10; policy drop;" in text
    opened = [line for line in lines(text, "dport") if line.endswith("accept") and "@fleet" not in line]
    assert opened == [
        "udp sport 67 udp dport 68 accept",
        "udp sport 547 udp dport 546 accept",
        "ip saddr { 192.0.2.0/24 } tcp dport { 22 } accept",
        "ip6 saddr { 2001:db8::/32 } tcp dport { 22 } accept",
        "ip saddr { 192.0.2.0/24 } udp dport { 51820 } accept",
        "ip6 saddr { 2001:db8::/32 } udp dport { 51820 } accept",
        "tcp dport 8088 accept",
        "ip saddr { 198.51.100.0/24 } udp dport 9000 accept",
    ]
    # Our own ports are closed before anything of others could open them.
    assert text.index("} drop") < text.index("ct state established")


def test_deny_closes_what_docker_publishes(rules: dict[str, str]) -> None:
    text = rules["deny"]
    containers = text[text.rindex("chain containers") :]
    assert re.findall(r"proto-dst (\d+)", containers) == ["8088", "9000"]
    assert lines(containers, "drop") == ["drop"]
    assert "ct status dnat jump containers" in text


def test_the_api_is_open_to_all_where_it_was_given_an_address(rules: dict[str, str]) -> None:
    assert "tcp dport { 8443 } accept" in rules["public"]
    assert not [line for line in lines(rules["deny"], "8443") if line.endswith("accept") and "@fleet" not in line]
