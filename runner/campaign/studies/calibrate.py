"""Honest A/A runs on this machine: how much equal programs differ, and what audits of honest claims show.

Programs are measured under common seeds, two or more trials under each. That splits their noise into the part that
a seed gives all programs in common and the rest (`pairing.seed_share`). A program measured twice under one seed
repeats itself at least as well as two programs agree, so that its share is an upper limit for others; further
programs show what they share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.campaign.campaign import Controller
from runner.campaign.measurement import TrialBook
from runner.campaign.studies.interleave import Bench, in_turn
from runner.decision import keep_rule, pairing
from runner.decision.pairing import SeedShare
from runner.errors import BaselineError, Interrupted
from runner.records import AuditPolicy, AuditRecord
from runner.storage.files import replace_file

DEPENDENCE_MARGIN = 2.0
"""A limit lies this many times above the largest dependence that an honest run showed."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The figures of honest runs; the first four are settings, see `docs/commands.md`."""

    noise_prior_bpb: float
    seed_share: tuple[float, float]  # ends of its central 90 %
    honest_dependence: float
    honest_exceedances: tuple[float, ...]
    noise: SeedShare
    programs: tuple[str, ...]
    scores_bpb: tuple[tuple[float, ...], ...]  # as claimed: a row for each program, a column for each seed
    audits: tuple[AuditRecord, ...]


def calibrate(
    controller: Controller, commits: Sequence[str], num_seeds: int, *, stopping: Callable[[], bool]
) -> Calibration:
    """Train, score and audit programs under common seeds; a single one twice under each.

    The limits of the audit are only ever raised: a small number of runs of one program cannot show that
    another honest one will be as quiet.

    Args:
        commits: whose `workload/` are run; taken as honest.

    Raises:
        BaselineError: one does not run, or its claims cannot be audited.
        EngineError: the infrastructure failed.
        Interrupted: `stopping()` became true between two runs.
    """
    names = [commit[:10] for commit in commits]
    trees = [controller.repository.read_workload(commit) for commit in commits]
    if len(commits) == 1:
        names, trees = [*names, f"{names[0]} again"], trees * 2
    scores: dict[str, list[float]] = {name: [] for name in names}
    audits: list[AuditRecord] = []
    with Bench(controller.evaluator, dict(zip(names, trees, strict=True)), None, None) as bench:
        for number, seed, name in in_turn(names, num_seeds):
            if stopping():
                raise Interrupted("stopped between two runs; nothing was written", "run it again; it starts over")
            controller.observer.note(f"seed {number} of {num_seeds}: {name}")
            trial = bench.measure(name, seed, TrialBook(), AuditPolicy(audit=True))
            audit = trial.audit
            # Audits that the present limits refuse count as well: that is what a calibration is for.
            if audit is None or audit.num_positions == 0:
                reason = trial.reason or "no audit"
                raise BaselineError(
                    f"the workload of {name} cannot be measured: {reason}", "correct workload/ and commit it"
                )
            audits.append(audit)
            scores[name].append(audit.claimed_bpb)
    return summarize(controller, scores, audits, repeated=len(commits) == 1)


def summarize(
    controller: Controller, scores: dict[str, list[float]], audits: Sequence[AuditRecord], *, repeated: bool
) -> Calibration:
    """The settings that fit these runs.

    Args:
        repeated: whether the programs are one and the same.
    """
    config, noise = controller.config, pairing.seed_share(list(scores.values()))
    freedom = len(next(iter(scores.values()))) - 1  # what programs share is seen once for each seed
    positions = sum(audit.num_positions for audit in audits)
    seen = [sum(counts) / positions for counts in zip(*(audit.exceedances for audit in audits), strict=True)]
    dependences = [
        value for audit in audits for value in (audit.repeat, audit.suffix, audit.neighbors) if value is not None
    ]
    return Calibration(
        noise_prior_bpb=keep_rule.pooled_sigma_of(
            [(noise.sigma_bpb**2 * freedom, freedom)], config.noise_prior_bpb
        ),
        seed_share=(0.0 if repeated else noise.low, noise.high),
        honest_dependence=min(
            1.0, max([config.honest_dependence, *(DEPENDENCE_MARGIN * one for one in dependences)])
        ),
        honest_exceedances=tuple(map(max, config.honest_exceedances, seen)),
        noise=noise,
        programs=tuple(scores),
        scores_bpb=tuple(map(tuple, scores.values())),
        audits=tuple(audits),
    )


def save(path: Path, calibration: Calibration) -> None:
    """Write the figures that later starts use (`config.measured`), with what they rest on.

    Raises:
        DiskFullError: the file cannot be written.
    """
    replace_file(path, (json.dumps(asdict(calibration), indent=1) + "\n").encode())
