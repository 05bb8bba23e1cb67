"""A small program, and experiments that tried something on it."""

from __future__ import annotations

from runner.records import Experiment, Verdict

FILES = {
    "workload/model.py": b"WIDTH = 64\n\n\ndef f(a):\n    return a\n",
    "workload/train.py": b"RATE = 0.02  # peak\nSTEPS = 5\nWARM = 0\n",
}


def tried(number, verdict=Verdict.DISCARD, **changes):
    return Experiment(
        **{"number": number, "hypothesis": f"idea {number}", "proposer": "p", "verdict": verdict, **changes}
    )


BASELINE = tried(0, Verdict.KEEP, val_bpb=2.0, sigma_bpb=0.01)
