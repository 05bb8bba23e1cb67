"""Several programs measured under the same fresh seeds, interleaved. Nothing is recorded.

What a seed does to a score, and what a drifting machine does, affects all programs alike and cancels in their
differences.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
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

    def table(self, names: Sequence[str]) -> list[list[float]]:
        """Scores of some programs, a row for each, under the seeds that all of them have."""
        by_seed = [{run.seed: run.val_bpb for run in self.runs.get(name, [])} for name in names]
        shared = [seed for seed in (by_seed or [{}])[0] if all(seed in own for own in by_seed)]
        return [[own[seed] for seed in shared] for own in by_seed]

    def differences(self, name: str, other: str) -> list[float]:
        """The score of the one minus that of the other, seed by seed; negative is better."""
        own, others = self.table([name, other])
        return [one - two for one, two in zip(own, others, strict=True)]


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
        self, names: Sequence[str], num_seeds: int, series: Series, *, stopping: Callable[[], bool]
    ) -> bool:
        """Measure and audit every program under so many further seeds, as `in_turn` says.

        A program that fails is left out from then on.

        Args:
            series: is extended.
            stopping: polled between two trials.

        Returns:
            False when a person asked to stop before the end.

        Raises:
            EngineError: the infrastructure failed.
        """
        for number, seed, name in in_turn(names, num_seeds):
            if name in series.failures:
                continue
            if stopping():
                return False
            self.evaluator.observer.note(f"seed {number} of {num_seeds}: {name}")
            trial = self.measure(name, seed, TrialBook(), AuditPolicy(audit=True))
            if trial.val_bpb is None:
                series.failures[name] = trial
            else:
                series.runs.setdefault(name, []).append(Scored(seed=seed, val_bpb=trial.val_bpb))
        return True

    def measure(self, name: str, seed: int, book: TrialBook, policy: AuditPolicy) -> Trial:
        """Measure one program once.

        Raises:
            EngineError: the infrastructure failed.
        """
        program = Program(
            number=0,
            files=self.programs[name],
            commit=f"{self._purpose}-{list(self.programs).index(name)}",
            labels={"purpose": self._purpose},
        )
        request = TrialRequest(program=program, seed=seed, score_limit_seconds=self.score_limit_seconds)
        trial = measure(self.evaluator, request, book, lambda _: policy, self.claims)
        if trial.outcome is Outcome.LOST:
            raise EngineError(f"{name} could not be measured: {trial.reason}", "autoresearch doctor")
        return trial


def in_turn(names: Sequence[str], num_seeds: int) -> Iterator[tuple[int, int, str]]:
    """Number of the seed from 1, the seed, and a program: each program once, in an order drawn for the seed."""
    for number in range(1, num_seeds + 1):
        seed, order = fresh_seed(), list(names)
        random.SystemRandom().shuffle(order)
        for name in order:
            yield number, seed, name


def fresh_seed() -> int:
    """An unpredictable seed."""
    return int.from_bytes(os.urandom(4)) & 0x7FFFFFFF
