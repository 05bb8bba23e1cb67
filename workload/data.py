"""Training data: random crops of memory-mapped shards.

The shards are longer than a run can read, so crops are drawn with replacement; no epoch is kept.
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
    """The tokens of all shards with what `meta.json` says of them."""

    shards: list[np.ndarray]  # (num_tokens,) uint16 each, all longer than the context
    vocab_size: int
    context_length: int


def open_stream(data_dir: Path) -> TrainStream:
    """Map the shards in the order of their names and read `meta.json`."""
    meta = json.loads((data_dir / "meta.json").read_text("utf-8"))
    return TrainStream(
        shards=[np.memmap(path, dtype="<u2", mode="r") for path in sorted(data_dir.glob("shard-*.bin"))],
        vocab_size=meta["vocab_size"],
        context_length=meta["context_length"],
    )


class Crops:
    """Endless batches of random crops, the same ones for the same seed; none crosses the end of a shard."""

    def __init__(self, stream: TrainStream, rows: int, seed: int, device: torch.device) -> None:
        self.rows = rows
        self.device = device
        self.rng = np.random.default_rng(seed)
        self.shards = [np.asarray(shard) for shard in stream.shards]  # slicing a memmap takes four times as long
        self.crop_tokens = stream.context_length + 1  # inputs and targets overlap by T - 1
        num_starts = [len(shard) - stream.context_length for shard in self.shards]
        self.ends = np.cumsum(num_starts)  # (S,): starts are counted through all shards
        self.begins = self.ends - num_starts

    def next(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the next batch, each (B, T) int64 on the device."""
        starts = self.rng.integers(0, self.ends[-1], size=self.rows)  # (B,)
        owners = np.searchsorted(self.ends, starts, side="right")  # (B,) index of each one's shard
        crops = np.empty((self.rows, self.crop_tokens), np.int64)
        for crop, owner, start in zip(crops, owners, starts - self.begins[owners], strict=True):
            crop[:] = self.shards[owner][start : start + self.crop_tokens]
        batch = torch.from_numpy(crops)  # (B, T + 1)
        if self.device.type == "cuda":
            batch = batch.pin_memory().to(self.device, non_blocking=True)  # copies while the GPU computes
        return batch[:, :-1], batch[:, 1:]
