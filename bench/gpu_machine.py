"""The machine of a GPU proof: the card that is shown to all processes, its sizes, and its scrub."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import torch

from bench.gpu_bare import ROOT, ProofError, Sizes
from runner.tiers import MIN_CAPABILITY, tier_of

QUERY = "--query-gpu=name,driver_version,memory.total,memory.used,power.limit,clocks.max.sm"
# In a process of its own: a context of this one would hold memory of the card all the while.
PROPERTIES = """
import json, torch
card = torch.cuda.get_device_properties(0)
facts = {"card": card.name, "memory_mib": card.total_memory // 2**20, "capability": [card.major, card.minor]}
print(json.dumps(facts))
"""


def scrub() -> dict[str, object]:
    """Overwrite the free memory of the GPU with the locked program."""
    program = ROOT / "locked_eval" / "container" / "gpu_scrub.py"
    done = subprocess.run([sys.executable, "-I", "-S", str(program)], capture_output=True, text=True, timeout=120)
    if done.returncode != 0 and not done.stdout:
        raise ProofError(done.stderr.strip().removeprefix("error: ") or f"exit code {done.returncode}")
    return json.loads(done.stdout) | ({"failed": done.stderr.strip()} if done.returncode else {})


def _output(command: list[str]) -> str:
    """Return what a program prints, errors included."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return done.stdout.strip() or done.stderr.strip()


def choose_card() -> None:
    """Show one card to all processes: the first one that is visible, in the order of nvidia-smi."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]


def machine(device: str) -> dict[str, object]:
    """The card, the driver, and the software."""
    facts: dict[str, object] = {
        "card": platform.processor() or "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "kernel": platform.release(),
    }
    if device == "cuda":
        facts["nvidia_smi"] = _output(["nvidia-smi", f"--id={os.environ['CUDA_VISIBLE_DEVICES']}", QUERY,
                                       "--format=csv,noheader"])  # fmt: skip
        answer = _output([sys.executable, "-c", PROPERTIES])
        try:
            facts |= json.loads(answer.rpartition("\n")[2])
        except ValueError:
            sys.exit(f"error: torch cannot use the card: {answer.rpartition(chr(10))[2]}\n  → nvidia-smi")
        facts["cuda"] = torch.version.cuda
    return facts


def sizes_of(
    device: str, facts: dict[str, object], profile: dict[str, object], num_rows: int, threads: int
) -> Sizes:
    """The sizes of this card."""
    name = "cpu"
    if device == "cuda":
        if tuple(facts["capability"]) < MIN_CAPABILITY:
            sys.exit("error: this card does not compute in bfloat16\n  → an Ampere or newer card is needed")
        tier = tier_of(facts["memory_mib"])
        if tier is None:
            sys.exit(
                f"error: {facts['card']} has {facts['memory_mib']} MiB, too few for any sizes\n  → 8 GB are needed"
            )
        name = tier if (ROOT / "workload" / "sizes" / f"{tier}.py").is_file() else "cuda"
    return Sizes(
        profile=name,
        vocab_size=profile["vocab_size"],
        context_length=profile["context_length"],
        batch_rows=profile["score_batch_rows"],
        num_rows=num_rows,
        threads=threads,
    )
