"""Functions of the stand-in."""

import numpy as np

from torch import from_numpy


def cross_entropy(logits, targets, *, reduction):  # (N, V), (N,) -> (N,)
    """Losses in nats; `reduction` must be "none"."""
    assert reduction == "none"
    logits = np.asarray(logits)
    top = logits.max(-1)  # (N,)
    log_sums = top + np.log(np.exp(logits - top[:, None]).sum(-1))
    return from_numpy(log_sums - logits[np.arange(len(logits)), np.asarray(targets)])
