"""Sizes where the host names no tier: those of an 80 GB card."""

from workload.sizes.cuda_80gb import *  # noqa: F403
