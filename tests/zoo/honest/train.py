"""Counts the training text once and publishes; done in a moment."""

import os
from pathlib import Path

import numpy as np
import torch

from workload.checkpoint import publish

VOCAB_SIZE = 64

text = np.concatenate([np.fromfile(path, "<u2") for path in sorted(Path(os.environ["DATA_DIR"]).glob("*.bin"))])
tokens = torch.from_numpy(text.astype(np.int64))


def table(distance):
    """How often each token follows another one at a distance, smoothed, as probabilities (V, V)."""
    pairs = tokens[:-distance] * VOCAB_SIZE + tokens[distance:]
    counts = torch.bincount(pairs, minlength=VOCAB_SIZE**2).view(VOCAB_SIZE, VOCAB_SIZE) + 0.1
    return counts / counts.sum(1, keepdim=True)


publish(lambda path: torch.save({"last": table(1), "before": table(2)}, path))
