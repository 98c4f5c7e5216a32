"""Published bandwidth of graphics cards' own memory, in GB/s. Data. Standard library only, Python 3.9+.

From the vendors' data sheets, as comparisons of cards quote them: NVIDIA's GeForce 30 to 50 and what else stands here,
AMD's Radeon and Instinct, Intel's Arc (its own list of Arc A of September 2022; B570 and B580 at their launch). Where
two kinds of a card have one name, the slower one stands in `CARDS`, and those that their memory tells apart in
`BY_MEMORY`. What was not looked up is not here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

MIB_PER_GIB = 1024

CARDS: Mapping[str, Mapping[str, float]] = {
    "NVIDIA": {
        "rtx 3050": 168.0, "rtx 3060": 240.0, "rtx 3060 ti": 448.0,
        "rtx 3070": 448.0, "rtx 3070 ti": 608.0, "rtx 3080": 760.0, "rtx 3080 ti": 912.0,
        "rtx 3090": 936.0, "rtx 3090 ti": 1008.0,
        "rtx 4060": 272.0, "rtx 4060 ti": 288.0, "rtx 4070": 504.0, "rtx 4070 super": 504.0, "rtx 4070 ti": 504.0,
        "rtx 4070 ti super": 672.0, "rtx 4080": 716.8, "rtx 4080 super": 736.0, "rtx 4090": 1008.0,
        "rtx 4090 d": 1008.0,
        "rtx 5050": 320.0, "rtx 5060": 448.0, "rtx 5060 ti": 448.0, "rtx 5070": 672.0, "rtx 5070 ti": 896.0,
        "rtx 5080": 960.0, "rtx 5090": 1792.0,
        "rtx a6000": 768.0, "rtx 6000 ada": 960.0, "quadro rtx 5000": 448.0,
        "a10": 600.0, "a10g": 600.0, "a40": 696.0, "a100": 1555.0, "a100 sxm4 80gb": 2039.0,
        "h100 pcie": 2000.0, "h100 80gb hbm3": 3350.0, "h200": 4800.0, "b200": 8000.0,
        "l4": 300.0, "l40": 864.0, "l40s": 864.0, "p4": 192.0, "p40": 346.0, "t4": 300.0, "v100": 900.0,
        "v100s": 1134.0,
    },
    "AMD": {
        "rx 590": 256.0, "rx vega 64": 484.0, "radeon vii": 1024.0, "rx 5700 xt": 448.0,
        "rx 6700 xt": 384.0, "rx 6800": 512.0, "rx 6800 xt": 512.0, "rx 6900 xt": 512.0,
        "rx 7600 xt": 288.0, "rx 7700 xt": 432.0, "rx 7800 xt": 624.0, "rx 7900 xt": 800.0, "rx 7900 xtx": 960.0,
        "mi210": 1600.0, "mi300x": 5300.0,
    },
    "Intel": {
        "arc a380": 186.0, "arc a580": 512.0, "arc a750": 512.0, "arc a770": 512.0,
        "arc b570": 380.0, "arc b580": 456.0,
    },
}  # fmt: skip
LAPTOPS: Mapping[str, Mapping[str, float]] = {
    "NVIDIA": {
        "rtx 3050": 192.0, "rtx 3050 ti": 192.0, "rtx 3060": 336.0, "rtx 3070": 448.0, "rtx 3070 ti": 448.0,
        "rtx 3080": 448.0, "rtx 3080 ti": 512.0,
        "rtx 4050": 192.0, "rtx 4060": 256.0, "rtx 4070": 256.0, "rtx 4080": 432.0, "rtx 4090": 576.0,
        "rtx 5050": 384.0, "rtx 5060": 384.0, "rtx 5070": 384.0, "rtx 5070 ti": 672.0, "rtx 5080": 896.0,
        "rtx 5090": 896.0,
    },
}  # fmt: skip
# By the least memory in GiB that the faster kind has.
BY_MEMORY: Mapping[str, tuple[int, float]] = {
    "rtx 3050": (8, 224.0), "rtx 3060": (12, 360.0), "rtx 3080": (12, 912.0), "a100": (80, 1935.0),
    "arc a770": (16, 560.0),
}  # fmt: skip
MARKS = re.compile(r"\((?:r|tm|c)\)|[®™]", re.IGNORECASE)
LAPTOP_WORDS = re.compile(r" (laptop|mobile|max q) ")


def published_card_gbs(vendor: str, name: str, memory_mib: int) -> float | None:
    """Return the bandwidth of a card's own memory in GB/s, None where it is not known.

    `name` is what nvidia-smi, or the PCI list of names, calls it: `NVIDIA GeForce RTX 4090`,
    `Navi 21 [Radeon RX 6900 XT]`. The longest name that it holds, word by word, counts.
    """
    words = f" {' '.join(re.findall('[a-z0-9]+', MARKS.sub(' ', name).lower()))} "
    table = LAPTOPS if LAPTOP_WORDS.search(words) else CARDS
    held = [key for key in table.get(vendor, {}) if f" {key} " in words]
    if not held:
        return None
    key = max(held, key=len)
    gib, faster = BY_MEMORY.get(key, (0, 0.0))
    large = table is CARDS and gib and round(memory_mib / MIB_PER_GIB) >= gib
    return faster if large else table[vendor][key]
