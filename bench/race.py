"""Training programs against each other: the same data, seeds, and seconds, trained in turn on one core.

    python -m bench.race --data DATA main .      (git revisions, and folders that have a workload/)

Each round trains every program once and scores it on the validation rows through `workload.model.load`. Printed
are bpb and tokens/s of every run, and for every program the mean difference and ratio to the first one, with its
standard error over the rounds. Needs torch; no engine. DATA is a prepared data set. Nothing is audited: for
programs that you trust.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CPU_TIME = "import time; time.monotonic = time.process_time; "
TRAIN = "import runpy, torch; runpy.run_module('workload.train', run_name='__main__', alter_sys=True)"
SCORE = """
import sys, math, numpy as np, torch, torch.nn.functional as F
from pathlib import Path
from workload.model import load
data, rows_per_batch = Path(sys.argv[1]), 64
rows = np.load(data / "val" / "rows.npy")[: int(sys.argv[3])].astype(np.int64)
sizes = np.load(data / "tokenizer" / "token_bytes.npy").astype(np.int64)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model, nats = load(Path(sys.argv[2]), device), 0.0
with torch.inference_mode():
    for start in range(0, len(rows), rows_per_batch):
        batch = torch.from_numpy(rows[start : start + rows_per_batch]).to(device)
        logits = model(batch[:, :-1]).float().flatten(0, 1)
        losses = F.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none")
        nats += losses[torch.from_numpy(sizes > 0).to(device)[batch[:, 1:].flatten()]].double().sum().item()
print(nats / math.log(2) / sizes[rows[:, 1:]].sum())
"""


def folder_of(name: str, scratch: Path) -> Path:
    """The folder that has a program's `workload/`: itself, or that of a git revision."""
    if (ROOT / name / "workload").is_dir():
        return (ROOT / name).resolve()
    target = scratch / name.replace("/", "_")
    target.mkdir()
    archive = subprocess.run(["git", "archive", name, "workload"], cwd=ROOT, capture_output=True, check=True)
    subprocess.run(["tar", "-x"], cwd=target, input=archive.stdout, check=True)
    return target


def python(program: str, folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """Run a program in a process of its own, on what `folder` has; returns what it prints."""
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(done.stdout + done.stderr)
    return done.stdout


def run(folder: Path, data: Path, options: argparse.Namespace, seed: int) -> tuple[float, float]:
    """Train and score once; returns bpb and tokens/s."""
    with tempfile.TemporaryDirectory() as out:
        environment = {
            "DATA_DIR": str(data / "train"),
            "OUT_DIR": out,
            "SEED": str(seed),
            "DEADLINE_SECONDS": str(options.seconds),
            "PROFILE": options.profile,
            "OMP_NUM_THREADS": "1",
        }
        log = python(CPU_TIME * options.cpu_time + TRAIN, folder, environment)
        scored = python(SCORE, folder, {"OMP_NUM_THREADS": "1"}, str(data), f"{out}/checkpoint", str(options.rows))
        bpb = float(scored)
    return bpb, float(re.findall(r"^done: .*tokens/s ([\d.]+)", log, re.MULTILINE)[-1])


def error_of(values: list[float]) -> float:
    """Standard error of the mean."""
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def main() -> None:
    """Run the rounds, and print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("programs", nargs="+", help="git revisions, or folders that have a workload/")
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--profile", default="cpu", help="PROFILE of the programs")
    parser.add_argument("--seconds", type=float, default=20.0, help="deadline of a training")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor: for a busy machine")
    parser.add_argument("--rows", type=int, default=2048, help="validation rows, at most")
    parser.add_argument("--rounds", type=int, default=5, help="trainings of every program")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: folder_of(name, Path(scratch)) for name in options.programs}
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in folders}
        for seed in range(options.rounds):
            for name, folder in folders.items():
                found[name].append(run(folder, options.data.resolve(), options, seed))
                bpb, speed = found[name][-1]
                print(f"seed {seed} {name}: {bpb:.4f} bpb {speed:,.0f} tokens/s", flush=True)
    first, *others = found
    mean = statistics.fmean(bpb for bpb, _ in found[first])
    print(f"{first}: {mean:.4f} bpb {statistics.fmean(speed for _, speed in found[first]):,.0f} tokens/s")
    for name in others:
        pairs = list(zip(found[name], found[first], strict=True))
        differences = [mine[0] - other[0] for mine, other in pairs]
        ratios = [mine[1] / other[1] for mine, other in pairs]
        print(
            f"{name} against {first}: {statistics.fmean(differences):+.4f} ± {error_of(differences):.4f} bpb, "
            f"tokens/s × {statistics.fmean(ratios):.3f} ± {error_of(ratios):.3f}"
        )


if __name__ == "__main__":
    main()
