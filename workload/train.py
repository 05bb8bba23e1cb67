"""One training run under a wall-clock deadline: `python -m workload.train`.

The environment names the data, the output folder, the seed, the deadline and the sizes (`DATA_DIR`,
`OUT_DIR`, `SEED`, `DEADLINE_SECONDS`, `PROFILE`). It is not known beforehand how many steps fit, so every
schedule follows the share of the time that is spent, not a count of steps.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from workload import STARTED_AT
from workload.attention import fastest
from workload.checkpoint import publish
from workload.data import Crops, TrainStream, open_stream
from workload.model import GPT, GPTConfig, save
from workload.optim import build_optimizers

WARMUP_FRACTION = 0.0  # share of the time in which the learning rate rises; Muon needs hardly any
WARMDOWN_FRACTION = 0.5  # share of the time, at the end, in which it falls
FINAL_LEARNING_RATE_FRACTION = 0.0  # of the peak, at the deadline
CHECKPOINT_FRACTION = 0.3  # of the time between checkpoints: a stalled run still leaves one of 90 %
LOG_FRACTION = 0.025  # of the time between two printed lines
SETTLING_STEPS = 10  # first steps left out of the speed in the summary: compilation, caches
MALLOC_KEPT_BYTES = 2**30  # more than all activations of a CPU step
PEAK_FLOPS_PER_SECOND = {  # bfloat16 without sparsity, by a part of the card's name; for MFU only
    "B200": 2250e12, "H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12,
    "5090": 209e12, "4090": 165e12, "4080": 98e12, "3090": 71e12,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The figures of a run; `tokens_per_second` is that of the settled part."""

    model: GPT
    steps: int
    tokens: int
    tokens_per_second: float
    losses: list[float]  # mean training loss of every step, nats per token


def learning_rate_factor(progress: float) -> float:
    """Factor on every peak learning rate: a straight rise, a plateau, a straight fall.

    Args:
        progress: share of the time that is spent, from 0 to 1.
    """
    rise = progress / WARMUP_FRACTION if progress < WARMUP_FRACTION else 1.0
    fall = min(1.0, max(0.0, 1.0 - progress) / WARMDOWN_FRACTION) if WARMDOWN_FRACTION > 0 else 1.0
    return min(rise, FINAL_LEARNING_RATE_FRACTION + (1.0 - FINAL_LEARNING_RATE_FRACTION) * fall)


class Trainer:
    """Model, data, and optimizers of one run; `gradients` and `update` make a step."""

    def __init__(self, sizes: ModuleType, stream: TrainStream, seed: int, device: torch.device) -> None:
        """Build a model from scratch.

        Args:
            sizes: a module of `workload.sizes`.
            stream: the training tokens.
            seed: of the weights and of the order of the data.
            device: where to compute; on CUDA the model is compiled and uses bfloat16.
        """
        torch.manual_seed(seed)
        torch.set_float32_matmul_precision("high")
        config = config_of(sizes, stream)
        model = GPT(config).to(device)
        if device.type == "cuda":
            model.store_embeddings_as(torch.bfloat16)
            model.use_kernel(choose_kernel(config, device))
        self.model, self.device = model, device
        self.optimizers = build_optimizers(model, sizes.RATE_WIDTH)
        # Compiling costs more than a short CPU run gains by it.
        self.loss = torch.compile(model.loss, dynamic=False) if device.type == "cuda" else model.loss

        rows = min(sizes.FORWARD_ROWS, sizes.BATCH_ROWS)
        self.passes = round(sizes.BATCH_ROWS / rows)  # of forward and backward, per step
        self.tokens_per_step = self.passes * rows * config.context_length
        self.crops = Crops(stream, rows, seed, device)
        self.batch = self.crops.next()

    def gradients(self) -> Tensor:
        """Forward and backward over one batch; returns the mean loss, which the GPU may still compute."""
        total = torch.zeros((), device=self.device)
        for _ in range(self.passes):
            inputs, targets = self.batch  # (B, T), (B, T)
            loss = self.loss(inputs, targets) / self.passes
            loss.backward()
            total += loss.detach()
            self.batch = self.crops.next()  # prepared while the GPU is busy
        return total

    def update(self, progress: float) -> None:
        """Take a step against the gradients; `progress` is the share of the time that is spent."""
        for optimizer in self.optimizers:
            optimizer.step(learning_rate_factor(progress), max(0.0, 1.0 - progress))
        self.model.zero_grad()


def config_of(sizes: ModuleType, stream: TrainStream) -> GPTConfig:
    """The shape of the model for some sizes and data."""
    return GPTConfig(
        vocab_size=stream.vocab_size,
        context_length=stream.context_length,
        num_layers=sizes.NUM_LAYERS,
        model_width=sizes.MODEL_WIDTH,
        num_heads=sizes.NUM_HEADS,
        head_dim=sizes.HEAD_DIM,
        windows=sizes.WINDOWS,
        value_embeddings=sizes.VALUE_EMBEDDINGS,
        logit_softcap=sizes.LOGIT_SOFTCAP,
    )


def choose_kernel(config: GPTConfig, device: torch.device) -> str:
    """Name of the fastest attention kernel for the windows of a model."""
    windows = sorted({config.window(layer) for layer in range(config.num_layers)})
    return fastest(config.context_length, config.num_heads, config.head_dim, windows, device)


def train(trainer: Trainer, *, progress: Callable[[int], float], checkpoint: Callable[[GPT], None]) -> Summary:
    """Train until the time is over.

    Args:
        progress: share of the run that is over after so many steps; the run ends when it reaches 1.
        checkpoint: called now and then with the model, and once at the end.

    Raises:
        FloatingPointError: the loss is not finite any more; no later step could repair it.
    """
    tokens_per_step = trainer.tokens_per_step
    losses: list[float] = []
    printed, logged_steps, logged_at = 0.0, 0, time.monotonic()
    published = 0.0
    settled_steps, settled_at = 0, logged_at
    while (done := progress(len(losses))) < 1.0:
        loss = trainer.gradients()
        trainer.update(done)
        losses.append(loss.item())  # waits for the GPU: the clock must see the work that is done
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"loss is {losses[-1]} at step {len(losses)}")

        step, now = len(losses), time.monotonic()
        if step == SETTLING_STEPS:
            settled_steps, settled_at = step, now
        if step == 1 or done - printed >= LOG_FRACTION:
            recent = losses[logged_steps:]
            speed = len(recent) * tokens_per_step / (now - logged_at)
            print(
                f"step {step} loss {sum(recent) / len(recent):.3f} tokens/s {speed:.0f} "
                f"elapsed {now - STARTED_AT:.1f}",
                flush=True,
            )
            printed, logged_steps, logged_at = done, step, now
        if done - published >= CHECKPOINT_FRACTION:
            checkpoint(trainer.model)
            published = done

    seconds = max(time.monotonic() - settled_at, 1e-9)
    checkpoint(trainer.model)
    return Summary(
        model=trainer.model,
        steps=len(losses),
        tokens=len(losses) * tokens_per_step,
        tokens_per_second=(len(losses) - settled_steps) * tokens_per_step / seconds,
        losses=losses,
    )


def keep_freed_memory() -> None:
    """Tell the C library to keep freed memory instead of returning it to the kernel.

    Without this every large activation is mapped and zeroed anew at each step, a third of a CPU step.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of <malloc.h>
    libc = ctypes.CDLL(None)
    libc.mallopt(trim_threshold, MALLOC_KEPT_BYTES)
    libc.mallopt(mmap_threshold, MALLOC_KEPT_BYTES)


def wall_clock_progress(usable_seconds: float) -> Callable[[int], float]:
    """Share of the usable time that has passed since the program started, whatever the step."""
    return lambda step: (time.monotonic() - STARTED_AT) / usable_seconds


def main() -> None:
    """Read the environment, train, and say what was done."""
    sizes = importlib.import_module(f"workload.sizes.{os.environ['PROFILE']}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 0):
        raise SystemExit(f"error: {torch.cuda.get_device_name(device)} has no bfloat16; use Ampere or newer")
    keep_freed_memory()
    trainer = Trainer(sizes, open_stream(Path(os.environ["DATA_DIR"])), int(os.environ["SEED"]), device)
    summary = train(
        trainer,
        progress=wall_clock_progress(float(os.environ["DEADLINE_SECONDS"]) - sizes.CLOSING_SECONDS),
        checkpoint=lambda model: publish(lambda path: save(model, path)),
    )
    parameters = sum(p.numel() for p in summary.model.parameters())
    print(
        f"done: steps {summary.steps} tokens {summary.tokens} tokens/s {summary.tokens_per_second:.0f} "
        f"parameters {parameters} elapsed {time.monotonic() - STARTED_AT:.1f}",
        flush=True,
    )
    if device.type == "cuda":
        peak_bytes, name = torch.cuda.max_memory_allocated(), torch.cuda.get_device_name()
        line = f"done: peak memory {peak_bytes / 2**30:.1f} GiB"
        if peak := next((peak for part, peak in PEAK_FLOPS_PER_SECOND.items() if part in name), None):
            mfu = summary.tokens_per_second * summary.model.flops_per_token() / peak
            line += f" mfu {100 * mfu:.1f} %"
        print(line, flush=True)


if __name__ == "__main__":
    main()
