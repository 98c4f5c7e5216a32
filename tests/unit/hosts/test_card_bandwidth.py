"""What is published of cards' memory: names as the tools write them."""

from __future__ import annotations

import pytest

from roost.hosts.card_bandwidth import BY_MEMORY, CARDS, LAPTOPS, published_card_gbs


@pytest.mark.parametrize(
    ("vendor", "name", "gib", "gbs"),
    [
        ("NVIDIA", "NVIDIA GeForce RTX 4090", 24, 1008.0),
        ("NVIDIA", "NVIDIA GeForce RTX 4090 Laptop GPU", 16, 576.0),
        ("NVIDIA", "GA104M [GeForce RTX 3070 Mobile / Max-Q]", 8, 448.0),
        ("NVIDIA", "NVIDIA GeForce RTX 4070 Ti SUPER", 16, 672.0),
        ("NVIDIA", "NVIDIA GeForce RTX 3060", 12, 360.0),
        ("NVIDIA", "NVIDIA GeForce RTX 3060", 8, 240.0),
        ("NVIDIA", "NVIDIA A100-SXM4-80GB", 80, 2039.0),
        ("NVIDIA", "NVIDIA A100-PCIE-40GB", 40, 1555.0),
        ("NVIDIA", "NVIDIA A100 80GB PCIe", 80, 1935.0),
        ("NVIDIA", "NVIDIA H100 80GB HBM3", 80, 3350.0),
        ("NVIDIA", "Tesla T4", 15, 300.0),
        ("AMD", "Navi 21 [Radeon RX 6900 XT]", 16, 512.0),
        ("AMD", "Navi 31 [Radeon RX 7900 XT/7900 XTX/7900M]", 24, 800.0),
        ("Intel", "Intel(R) Arc(TM) A770 Graphics", 16, 560.0),
        ("Intel", "DG2 [Arc A770]", 8, 512.0),
        ("NVIDIA", "NVIDIA GeForce GTX 750", 2, None),
        ("NVIDIA", "NVIDIA A100X", 80, None),
        ("AMD", "NVIDIA GeForce RTX 4090", 24, None),
        ("Unknown", "Tesla T4", 15, None),
        ("NVIDIA", "", 0, None),
    ],
)
def test_cards_by_name_and_memory(vendor: str, name: str, gib: int, gbs: float | None) -> None:
    assert published_card_gbs(vendor, name, gib * 1024) == gbs


def test_every_entry_is_found_by_its_own_name_and_is_plausible() -> None:
    for table, ending in ((CARDS, ""), (LAPTOPS, " Laptop GPU")):
        for vendor, cards in table.items():
            for name, published in cards.items():
                assert 100 < published < 10_000, name
                assert published_card_gbs(vendor, f"{vendor} {name}{ending}", 1024) == published
    for name, (gib, faster) in BY_MEMORY.items():
        (vendor,) = (v for v, cards in CARDS.items() if name in cards)
        assert published_card_gbs(vendor, name, gib * 1024 - 200) == faster > CARDS[vendor][name]
