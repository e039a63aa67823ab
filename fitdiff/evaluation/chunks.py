"""How many people are looked at together where nothing but memory decides."""

from __future__ import annotations

TEXELS_AT_ONCE = 2**19
MOST_PEOPLE = 32


def chunks(n: int, resolution: int = 1) -> list[range]:
    """0 ... n - 1 in runs whose maps an autoencoder passes at once: 32 people at 64² texels, 8 at 256², 2 at 512².

    One feature map of the paper's autoencoder at full resolution is 400 MB a person at 512².

    Args:
        n: people. resolution: R, side of their maps, if these are passed.
    """
    size = max(1, min(MOST_PEOPLE, TEXELS_AT_ONCE // resolution**2))
    return [range(start, min(start + size, n)) for start in range(0, n, size)]
