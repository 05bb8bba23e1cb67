"""Honest A/A runs on this machine: how much equal programs differ, and what audits of honest claims show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from runner.campaign.campaign import Controller
from runner.campaign.measurement import TrialBook, measure
from runner.campaign.studies.interleave import fresh_seed
from runner.decision import keep_rule
from runner.errors import BaselineError, Interrupted
from runner.evaluation.evaluator import Program, TrialRequest
from runner.records import AuditPolicy, AuditRecord
from runner.storage.files import replace_file

DEPENDENCE_MARGIN = 2.0
"""A limit lies this many times above the largest dependence that an honest run showed."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The figures of honest runs; the first three are settings, see `docs/commands.md`."""

    noise_prior_bpb: float
    honest_dependence: float
    honest_exceedances: tuple[float, ...]
    scores_bpb: tuple[float, ...]
    audits: tuple[AuditRecord, ...]


def calibrate(controller: Controller, commit: str, num_runs: int, *, stopping: Callable[[], bool]) -> Calibration:
    """Train, score and audit one program several times with different seeds.

    The limits of the audit are only ever raised: a small number of runs of one program cannot show that
    another honest one will be as quiet.

    Args:
        commit: whose `workload/` is run; taken as honest.

    Raises:
        BaselineError: it does not run, or its claims cannot be audited.
        Interrupted: `stopping()` became true between two runs.
    """
    config, evaluator = controller.config, controller.evaluator
    program = Program(number=0, files=controller.repository.read_workload(commit), commit=commit)
    audits: list[AuditRecord] = []
    for index in range(num_runs):
        if stopping():
            raise Interrupted("stopped between two runs; nothing was written", "run it again; it starts over")
        evaluator.observer.note(f"run {index + 1} of {num_runs}")
        request = TrialRequest(program=program, seed=fresh_seed())
        trial = measure(evaluator, request, TrialBook(), lambda _: AuditPolicy(audit=True), None)
        audit = trial.audit
        # Audits that the present limits refuse count as well: that is what a calibration is for.
        if audit is None or audit.num_positions == 0:
            reason = trial.reason or "no audit"
            raise BaselineError(f"the workload of {commit[:10]} cannot be measured: {reason}")
        audits.append(audit)
    scores = [audit.claimed_bpb for audit in audits]
    positions = sum(audit.num_positions for audit in audits)
    seen = [sum(counts) / positions for counts in zip(*(audit.exceedances for audit in audits), strict=True)]
    dependences = [
        value for audit in audits for value in (audit.repeat, audit.suffix, audit.neighbors) if value is not None
    ]
    return Calibration(
        noise_prior_bpb=keep_rule.pooled_sigma([scores], config.noise_prior_bpb),
        honest_dependence=min(
            1.0, max([config.honest_dependence, *(DEPENDENCE_MARGIN * one for one in dependences)])
        ),
        honest_exceedances=tuple(map(max, config.honest_exceedances, seen)),
        scores_bpb=tuple(scores),
        audits=tuple(audits),
    )


def save(path: Path, calibration: Calibration) -> None:
    """Write the figures that later starts use (`config.measured`), with what they rest on.

    Raises:
        DiskFullError: the file cannot be written.
    """
    replace_file(path, (json.dumps(asdict(calibration), indent=1) + "\n").encode())
