"""Interleaved runs of several programs, so that machine drift affects all of them alike. Nothing is recorded."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from runner.campaign.measurement import TrialBook, measure
from runner.errors import AutoresearchError, EngineError
from runner.evaluation.evaluator import Evaluator, Program, TrialRequest
from runner.records import AuditPolicy, Files, Outcome, Trial
from runner.sandbox import images


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One audited trial."""

    seed: int
    val_bpb: float


@dataclass(frozen=True)
class Series:
    """The results of some programs so far, by name. Grows while they are measured."""

    runs: dict[str, list[Scored]] = field(default_factory=dict)
    failures: dict[str, Trial] = field(default_factory=dict)

    def scores(self, name: str) -> list[float]:
        """Audited scores of one program."""
        return [run.val_bpb for run in self.runs.get(name, [])]


@dataclass
class Bench:
    """Images of some programs, for as long as they are measured.

    Args:
        programs: contents of `workload/` by name.
        claims: hash of the champion's claims, for audits; None where there are none.
        score_limit_seconds: how long scoring may take.
    """

    evaluator: Evaluator
    programs: Mapping[str, Files]
    claims: str | None
    score_limit_seconds: float | None
    _purpose: str = field(init=False, default_factory=lambda: uuid.uuid4().hex)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the images; `autoresearch clean` removes any that cannot be removed now."""
        with suppress(AutoresearchError):
            labels = {"controller": self.evaluator.controller, "purpose": self._purpose}
            images.remove_images(self.evaluator.engine.client, labels)

    def interleave(
        self, names: Sequence[str], num_rounds: int, series: Series, *, stopping: Callable[[], bool]
    ) -> bool:
        """Measure each program once a round, in an order drawn for the round, with a fresh seed and an audit each.

        A program that fails is left out of further rounds.

        Args:
            series: is extended.
            stopping: polled between two trials.

        Returns:
            False when a person asked to stop before the end.

        Raises:
            EngineError: the infrastructure failed.
        """
        for number in range(num_rounds):
            order = list(names)
            random.SystemRandom().shuffle(order)
            for name in order:
                if name in series.failures:
                    continue
                if stopping():
                    return False
                self.evaluator.observer.note(f"run {number + 1} of {num_rounds}: {name}")
                trial = self.measure(name, TrialBook(), AuditPolicy(audit=True))
                if trial.val_bpb is None:
                    series.failures[name] = trial
                else:
                    series.runs.setdefault(name, []).append(Scored(seed=trial.seed, val_bpb=trial.val_bpb))
        return True

    def measure(self, name: str, book: TrialBook, policy: AuditPolicy) -> Trial:
        """Measure one program once, with a fresh seed.

        Raises:
            EngineError: the infrastructure failed.
        """
        program = Program(
            number=0,
            files=self.programs[name],
            commit=f"{self._purpose}-{list(self.programs).index(name)}",
            labels={"purpose": self._purpose},
        )
        request = TrialRequest(program=program, seed=fresh_seed(), score_limit_seconds=self.score_limit_seconds)
        trial = measure(self.evaluator, request, book, lambda _: policy, self.claims)
        if trial.outcome is Outcome.LOST:
            raise EngineError(f"{name} could not be measured: {trial.reason}", "autoresearch doctor")
        return trial


def fresh_seed() -> int:
    """An unpredictable seed."""
    return int.from_bytes(os.urandom(4)) & 0x7FFFFFFF
