"""Training data: random crops of one memory-mapped token stream.

The stream is longer than a run can read, so crops are drawn with replacement; no epoch is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TrainStream:
    """The tokens of `train.bin` with what `meta.json` says of them."""

    tokens: np.ndarray  # (num_tokens,) uint16
    vocab_size: int
    context_length: int


def open_stream(data_dir: Path) -> TrainStream:
    """Map `train.bin` and read `meta.json`."""
    meta = json.loads((data_dir / "meta.json").read_text("utf-8"))
    return TrainStream(
        tokens=np.memmap(data_dir / "train.bin", dtype="<u2", mode="r"),
        vocab_size=meta["vocab_size"],
        context_length=meta["context_length"],
    )


class Crops:
    """Endless batches of random crops, the same ones for the same seed."""

    def __init__(self, stream: TrainStream, rows: int, seed: int, device: torch.device) -> None:
        self.stream = stream
        self.rows = rows
        self.device = device
        self.rng = np.random.default_rng(seed)
        self.window = np.arange(stream.context_length + 1)  # (T + 1,): inputs and targets overlap by T - 1

    def next(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the next batch, each (B, T) int64 on the device."""
        num_starts = len(self.stream.tokens) - self.stream.context_length
        starts = self.rng.integers(0, num_starts, size=self.rows)  # (B,)
        crops = self.stream.tokens[starts[:, None] + self.window]  # (B, T + 1) uint16
        batch = torch.from_numpy(crops.astype(np.int64))  # (B, T + 1)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)  # copies while the GPU computes
        return batch[:, :-1], batch[:, 1:]
