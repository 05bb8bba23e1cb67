"""Several programs measured in turn, so that a machine that drifts is unfair to none. Nothing is recorded."""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from runner.errors import AutoresearchError, EngineError
from runner.evaluation.trial import Examined, Failure, Laboratory, Measurement, UnrecordedRuns, measure
from runner.records import Files, SealedScore, Verdict
from runner.sandbox import images


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One audited run."""

    seed: int
    val_bpb: float


@dataclass(frozen=True)
class Series:
    """What is known of some programs so far, by their names. Grows while they are measured."""

    runs: dict[str, list[Scored]] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)

    def scores(self, name: str) -> list[float]:
        """Audited scores of one program."""
        return [run.val_bpb for run in self.runs.get(name, [])]


@dataclass(frozen=True)
class SealingRuns(UnrecordedRuns):
    """Runs that change no record; a score on the sealed rows is remembered here."""

    sealed: list[SealedScore] = field(default_factory=list)

    def seal(self, score: SealedScore, claims_sha256: str) -> None:
        """Remember it."""
        self.sealed.append(score)


@dataclass
class Bench:
    """Images of some programs, as long as they are measured.

    Args:
        programs: contents of `workload/` by name.
        claims: hash of the champion's claims, for audits; None where there are none.
        score_limit_seconds: how long scoring may take.
    """

    lab: Laboratory
    programs: Mapping[str, Files]
    claims: str | None
    score_limit_seconds: float | None
    _purpose: str = field(init=False, default_factory=lambda: uuid.uuid4().hex)
    _built: dict[str, str] = field(init=False, default_factory=dict)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the images; what cannot be removed now is removed by `autoresearch clean`."""
        with suppress(AutoresearchError):
            labels = {"controller": self.lab.ledger.controller, "purpose": self._purpose}
            images.remove_images(self.lab.engine.client, labels)

    def interleave(
        self, names: Sequence[str], num_rounds: int, series: Series, *, stopping: Callable[[], bool]
    ) -> bool:
        """Measure each program once a round, in an order drawn for the round, with a fresh seed and an audit each.

        One that fails is left out of further rounds.

        Args:
            series: is extended.
            stopping: looked at between two runs.

        Returns:
            False when somebody asked to stop before the end.

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
                self.lab.observer.note(f"run {number + 1} of {num_rounds}: {name}")
                seed = fresh_seed()
                outcome = self.measure(name, seed, UnrecordedRuns(), seal=False)
                if isinstance(outcome, Failure):
                    series.failures[name] = outcome
                else:
                    series.runs.setdefault(name, []).append(Scored(seed=seed, val_bpb=outcome.val_bpb))
        return True

    def measure(self, name: str, seed: int, runs: UnrecordedRuns, *, seal: bool) -> Measurement | Failure:
        """Train, score and audit one program once.

        Args:
            seal: score the sealed rows as well.

        Raises:
            EngineError: the infrastructure failed.
        """
        outcome = measure(
            self.lab,
            build=lambda: self._image(name),
            number=0,
            seed=seed,
            runs=runs,
            examiner=Examined(audit=True, seal=seal, score_limit_seconds=self.score_limit_seconds),
            champion=self.claims,
        )
        if isinstance(outcome, Failure) and outcome.verdict is Verdict.INFRA:
            raise EngineError(f"{name} could not be measured: {outcome.reason}", "autoresearch doctor")
        return outcome

    def _image(self, name: str) -> str:
        built = self._built.get(name)
        if built is None or not images.exists(self.lab.engine.client, built):
            labels = {**self.lab.owner(0).facts(), "purpose": self._purpose}
            made = images.build_candidate(
                self.lab.engine.client, base_id=self.lab.base_image, files=self.programs[name], labels=labels
            )
            built = self._built[name] = made.id
        return built


def fresh_seed() -> int:
    """A seed that nobody could foresee."""
    return int.from_bytes(os.urandom(4)) & 0x7FFFFFFF
