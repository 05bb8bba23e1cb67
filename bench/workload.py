"""Where the time of a training step goes: tokens/s, MFU, compile seconds, and the parts of a step.

    python -m bench.workload                          on a CPU, with the sizes cpu
    python -m bench.workload --profile cuda_24gb      on a GPU

Tokens are random, since no part of a step depends on what they say. Every part is timed to its end, so on a GPU
the parts add up to a little more than a step, in which they overlap. MFU is relative to the published bfloat16
rate of a card that `workload/train.py` knows, and otherwise to what a large product of matrices reaches here.
Needs torch; no engine and no data.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time

import numpy as np
import torch

from workload.data import TrainStream
from workload.train import PEAK_FLOPS_PER_SECOND, Trainer, keep_freed_memory

SHAPES = {"cpu": (2048, 128), "cuda": (8192, 2048)}  # vocabulary and context of runner/profiles/
MATRIX_SIZE = {"cpu": 1024, "cuda": 8192}


class Parts:
    """Seconds of each part of a step, measured around calls that stay what they are."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    def now(self) -> float:
        """The time at which everything asked so far is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def timed(self, name: str, call):
        """The same call, which adds up its seconds for the current step."""

        def measured(*arguments, **options):
            started = self.now()
            result = call(*arguments, **options)
            self.seconds[name][-1] += self.now() - started
            return result

        self.seconds[name] = []
        return measured

    def begin_step(self) -> None:
        """Start a new sum for every part."""
        for values in self.seconds.values():
            values.append(0.0)


def random_stream(vocab_size: int, context_length: int) -> TrainStream:
    """Shards of random tokens."""
    rng = np.random.default_rng(0)
    shards = [rng.integers(0, vocab_size, 64 * context_length, dtype="<u2") for _ in range(4)]
    return TrainStream(shards=shards, vocab_size=vocab_size, context_length=context_length)


def matrix_rate(device: torch.device) -> float:
    """Operations per second of a large product of matrices, the best of some."""
    size, parts = MATRIX_SIZE[device.type], Parts(device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(6):
        started = parts.now()
        a @ b
        best = min(best, parts.now() - started)
    return 2 * size**3 / best


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--profile", default=device.type, help="module of workload/sizes/")
    parser.add_argument("--steps", type=int, default=20, help="steps of each measurement")
    options = parser.parse_args()
    if device.type == "cpu":
        torch.set_num_threads(1)
        keep_freed_memory()
    sizes = importlib.import_module(f"workload.sizes.{options.profile}")
    started = time.perf_counter()
    trainer = Trainer(sizes, random_stream(*SHAPES[device.type]), 0, device)
    parts = Parts(device)
    ready = parts.now() - started

    def step() -> None:
        trainer.gradients()
        trainer.update(0.1)

    started = time.perf_counter()
    step()
    first = parts.now() - started
    step()
    whole = []
    for _ in range(options.steps):
        started = parts.now()
        step()
        whole.append(parts.now() - started)

    # `gradients` calls these three, and `update` does the rest.
    trainer.crops.next = parts.timed("data", trainer.crops.next)
    trainer.loss = parts.timed("forward", trainer.loss)
    torch.Tensor.backward = parts.timed("backward", torch.Tensor.backward)
    trainer.update = parts.timed("optimizer", trainer.update)
    for _ in range(options.steps):
        parts.begin_step()
        step()

    seconds = statistics.median(whole)
    rate = trainer.tokens_per_step / seconds
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU, one thread"
    published = next((peak for part, peak in PEAK_FLOPS_PER_SECOND.items() if part in name), None)
    reached = matrix_rate(device)
    model = trainer.model
    print(f"{options.profile} on {name}: {sum(p.numel() for p in model.parameters()):,} parameters")
    print(f"attention kernel      {model.blocks[0].attention.kernel}")
    print(f"tokens/s              {rate:,.0f}")
    print(f"MFU                   {100 * rate * model.flops_per_token() / (published or reached):.1f} %")
    print(f"a product of matrices {reached / 1e12:.3f} TFLOP/s")
    print(f"model and kernel      {ready:.1f} s")
    print(f"compiling             {max(0.0, first - seconds):.1f} s (first step without the time of a later one)")
    print(f"step                  {1e3 * seconds:.1f} ms")
    for part, values in parts.seconds.items():
        share = statistics.median(values) / seconds
        print(f"  {part:<19} {1e3 * statistics.median(values):.1f} ms ({share:.0%})")


if __name__ == "__main__":
    main()
