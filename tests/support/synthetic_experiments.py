"""Experiments without a ledger, and hypotheses that no terminal, file or picture may interpret."""

from __future__ import annotations

import random

from runner.records import Experiment, Phase, RunEnd, RunRecord, Verdict

HOSTILE = [
    '"never closed',
    "=HYPERLINK(\"http://evil\")",
    "@SUM(A1)",
    "-2+3",
    "tab\there\nand a line\r\nand another\u2028one",
    "[bold red]markup[/bold red] [/]",
    r"$\frac{1}{0$ $$",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "日本語 👩‍🔬 עברית \u202egnirts",
    "\ud800",
    "",
]  # fmt: skip


def experiment(number: int, verdict: str | None = "discard", bpb: float | None = 1.9, **more) -> Experiment:
    defaults = {"hypothesis": f"idea {number}", "proposer": "optuna", "sigma_bpb": 0.01}
    return Experiment(
        number=number,
        verdict=None if verdict is None else Verdict(verdict),
        val_bpb=bpb,
        **{**defaults, **more},
    )


def run(phase: Phase = Phase.TRAIN, end: RunEnd = RunEnd.DEADLINE, **more) -> RunRecord:
    defaults = {"seed": 1, "exit_code": None, "wall_seconds": 20.0, "cpu_seconds": 19.0}
    return RunRecord(phase=phase, end=end, **{**defaults, **more})


def night(num_experiments: int, seed: int = 0) -> list[Experiment]:
    chance = random.Random(seed)
    best, made = 2.05, [experiment(0, "keep", 2.05, hypothesis="baseline", kept_commit="0" * 40)]
    for number in range(1, num_experiments + 1):
        draw = chance.random()
        if draw < 0.1:
            made.append(experiment(number, "crash", None))
        elif draw < 0.3:
            best -= 0.03 * chance.random() + 0.02
            made.append(experiment(number, "keep", best, hypothesis=f"keep {number} " + "word " * 9))
        else:
            made.append(experiment(number, "discard", best + 0.1 * chance.random()))
    return made
