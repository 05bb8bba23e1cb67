"""Sizes by card: the tier of a GPU, from its memory. Standard library only: the GPU proof runs without packages.

A tier is a module of `workload/sizes/`. The profile `cuda` alone means the sizes of an 80 GB card.
"""

from __future__ import annotations

TIERS = {
    "cuda_8gb": 8,
    "cuda_12gb": 12,
    "cuda_16gb": 16,
    "cuda_24gb": 24,
    "cuda_40gb": 40,
    "cuda_80gb": 80,
    "cuda_140gb": 140,
}
"""The least size of a card in GB, as it is sold."""
REPORTED_SHARE = 0.92
"""Share of that size that a driver reports at least, in GiB; the rest goes to error correction and the driver."""
MIN_CAPABILITY = (8, 0)
"""Ampere: the first cards that compute in bfloat16."""


def tier_of(memory_mib: int) -> str | None:
    """The largest tier that fits a card; None where even the smallest does not."""
    fitting = [name for name, size in TIERS.items() if memory_mib >= REPORTED_SHARE * size * 1024]
    return fitting[-1] if fitting else None
