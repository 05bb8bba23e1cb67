"""One training run under a wall-clock deadline: `python -m workload.train`.

The environment names the data, the output folder, the seed, the deadline and the sizes (`DATA_DIR`,
`OUT_DIR`, `SEED`, `DEADLINE_SECONDS`, `PROFILE`). Nobody knows beforehand how many steps fit, so every
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
import torch.nn.functional as F

from workload import STARTED_AT
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
PEAK_FLOPS_PER_SECOND = 989e12  # H100 and H200, bfloat16 without sparsity; for MFU only


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did; `tokens_per_second` is that of the settled part."""

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


def train(
    *,
    sizes: ModuleType,
    stream: TrainStream,
    seed: int,
    device: torch.device,
    progress: Callable[[int], float],
    checkpoint: Callable[[GPT], None],
) -> Summary:
    """Train one model from scratch.

    Args:
        sizes: a module of `workload.sizes`.
        stream: the training tokens.
        seed: of the weights and of the order of the data.
        device: where to compute; on CUDA the model is compiled and uses bfloat16.
        progress: share of the run that is over after so many steps; the run ends when it reaches 1.
        checkpoint: called now and then with the model, and once at the end.

    Raises:
        FloatingPointError: the loss is not finite any more; no later step could repair it.
    """
    torch.manual_seed(seed)
    torch.set_float32_matmul_precision("high")
    config = GPTConfig(
        vocab_size=stream.vocab_size,
        context_length=stream.context_length,
        num_layers=sizes.NUM_LAYERS,
        model_width=sizes.MODEL_WIDTH,
        num_heads=sizes.NUM_HEADS,
        head_dim=sizes.HEAD_DIM,
    )
    model = GPT(config).to(device)
    optimizers = build_optimizers(model)
    # Compiling costs more than a short CPU run gains by it.
    forward = torch.compile(model, dynamic=False) if device.type == "cuda" else model

    rows = min(sizes.FORWARD_ROWS, sizes.BATCH_ROWS)
    passes = round(sizes.BATCH_ROWS / rows)  # of forward and backward, per step
    tokens_per_step = passes * rows * config.context_length
    crops = Crops(stream, rows, seed, device)
    batch = crops.next()

    losses: list[float] = []
    printed, logged_steps, logged_at = 0.0, 0, time.monotonic()
    published = 0.0
    settled_steps, settled_at = 0, logged_at
    while (done := progress(len(losses))) < 1.0:
        total = torch.zeros((), device=device)
        for _ in range(passes):
            inputs, targets = batch  # (B, T), (B, T)
            logits = forward(inputs)  # (B, T, V)
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten()) / passes
            loss.backward()
            total += loss.detach()
            batch = crops.next()  # prepared while the GPU is busy
        for optimizer in optimizers:
            optimizer.step(learning_rate_factor(done))
        model.zero_grad()

        losses.append(total.item())  # waits for the GPU: the clock must see the work that is done
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
            checkpoint(model)
            published = done

    seconds = max(time.monotonic() - settled_at, 1e-9)
    checkpoint(model)
    return Summary(
        model=model,
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
    keep_freed_memory()
    summary = train(
        sizes=sizes,
        stream=open_stream(Path(os.environ["DATA_DIR"])),
        seed=int(os.environ["SEED"]),
        device=device,
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
        mfu = summary.tokens_per_second * summary.model.flops_per_token() / PEAK_FLOPS_PER_SECOND
        peak_bytes = torch.cuda.max_memory_allocated()
        print(f"done: peak memory {peak_bytes / 2**30:.1f} GiB mfu {100 * mfu:.1f} %", flush=True)


if __name__ == "__main__":
    main()
