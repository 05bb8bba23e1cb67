"""The classical baseline: TPE (Optuna) tunes the numeric constants of `workload/`, one per experiment.

The search is over the *factor* on the tip's present value, on a log scale from 1/4 to 4, not over the value: an
accepted change moves the tip, and "twice as much helped" remains true of the new one when "0.04 helped" does not.
A tip that is rolled back makes the steps that were tried on the old program count again.

The ledger is the state. Every call rebuilds the study from the rows that this proposer wrote, so a night can be
killed and resumed at any point, and the same ledger and seed give the same proposal.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runner.decision import history as lineage
from runner.proposers.constants import Constant, find, replaced, scaled
from runner.records import Experiment, NoProposal, Proposal, ProposalRequest, Verdict, Write

MAX_FACTOR = 4.0
MAX_ASKS = 64  # samples before falling back to a list of all factors

# First round: every constant once before any twice, beginning with those that matter most in so short a training.
# With some 30 constants and a demo of 8 experiments, this order is the whole search.
_RANKS = (
    re.compile(r"(^|_)(LEARNING_RATE|LR)$"),
    re.compile(r"(^|_)BATCH"),
    re.compile(r"MOMENTUM|BETA|DECAY|WARM|DROPOUT|(^|_)INIT"),
    re.compile(r"LAYERS|DEPTH|WIDTH|DIM|HEADS|EXPANSION|EMBD"),
)
_LAST = re.compile(r"EPS|CHECKPOINT|SETTLING|CLOSING|STEPS$")
# Factors of the first round, up or down: large enough to show above the noise, small enough to train.
_FIRST_FACTORS = (1.5, 3.0)


@dataclass(frozen=True)
class _Past:
    """One row that this proposer wrote to the ledger."""

    key: str
    factor: float
    tip: int | None  # the experiment whose program it edited
    experiment: Experiment


class OptunaProposer:
    """A proposer that changes one constant by a factor that TPE chooses."""

    name = "optuna"
    model = None
    prefetches = False

    def propose(self, request: ProposalRequest) -> Proposal | NoProposal:
        """Choose a constant and a factor; on a retry, half the step (on the log scale) that crashed."""
        constants = find(request.files, request.profile)
        if not constants:
            return self._nothing("workload/ contains no numeric constant to tune", exhausted=True)
        past, tip = _past(request.history)
        # INFRA says nothing about the idea, so its value may be proposed again.
        tried = {
            (one.key, one.factor) for one in past if one.tip == tip and one.experiment.verdict is not Verdict.INFRA
        }
        by_key = {constant.key: constant for constant in constants}
        literals = {(key, scaled(by_key[key], factor)) for key, factor in tried if key in by_key}
        if request.failed is not None:
            return self._retry(request, request.failed, by_key, literals)
        known = [one for one in past if one.key in by_key and one.experiment.verdict is not Verdict.INFRA]
        for constant, factor in _candidates(constants, known, tip, request):
            literal = scaled(constant, factor)
            if (constant.key, literal) not in literals:
                return self._proposal(request, constant, factor, literal)
        return self._nothing("every step of every constant has been tried on this tip", exhausted=True)

    def _retry(
        self,
        request: ProposalRequest,
        failed: Experiment,
        by_key: dict[str, Constant],
        literals: set[tuple[str, str]],
    ) -> Proposal | NoProposal:
        for key, factor in failed.parameters.items():
            if failed.proposer != self.name or key not in by_key:
                continue
            half = math.sqrt(factor)
            literal = scaled(by_key[key], half)
            if (key, literal) in literals or literal == scaled(by_key[key], factor):
                return self._nothing(f"there is no smaller step of {by_key[key].name} to try")
            return self._proposal(
                request, by_key[key], half, literal, f", half the step that failed in #{failed.number}"
            )
        return self._nothing("the failed experiment changed no constant that still exists")

    def _proposal(
        self, request: ProposalRequest, constant: Constant, factor: float, literal: str, note: str = ""
    ) -> Proposal:
        return Proposal(
            hypothesis=f"{constant.name} {constant.literal} → {literal} ({constant.path}){note}",
            edits=(Write(path=constant.path, content=replaced(request.files, constant, literal)),),
            proposer=self.name,
            parameters={constant.key: factor},
        )

    def _nothing(self, reason: str, *, exhausted: bool = False) -> NoProposal:
        return NoProposal(reason=reason, exhausted=exhausted, proposer=self.name)


def _past(history: Sequence[Experiment]) -> tuple[list[_Past], int | None]:
    """Read our rows, each with the tip that it edited, and the present tip. A certificate changes no program."""
    past: list[_Past] = []
    by_number = {one.number: one for one in history}
    for experiment in history:
        if experiment.proposer == OptunaProposer.name and len(experiment.parameters) == 1:
            ((key, factor),) = experiment.parameters.items()
            if factor > 0 and experiment.verdict is not None:
                past.append(_Past(key, factor, lineage.same_program(experiment.parent, by_number), experiment))
    last = lineage.tip(history)
    return past, None if last is None else lineage.same_program(last.number, by_number)


def _candidates(
    constants: Sequence[Constant], known: Sequence[_Past], tip: int | None, request: ProposalRequest
) -> Iterator[tuple[Constant, float]]:
    """Yield steps, most promising first: the first round, then TPE, then all others."""
    rng = random.Random(f"{request.seed}:{request.number}")  # noqa: S311 (reproducible, no secret)
    fresh = [constant for constant in constants if constant.key not in {one.key for one in known}]
    if fresh:
        yield from _first_round(constants, fresh, known, tip, rng)
    else:
        yield from _tpe(constants, known, rng.getrandbits(32))
    for constant in rng.sample(constants, len(constants)):
        for factor in rng.sample([2.0 ** (step / 4) for step in range(-8, 9) if step], 16):
            yield constant, factor


def _first_round(
    constants: Sequence[Constant],
    fresh: Sequence[Constant],
    known: Sequence[_Past],
    tip: int | None,
    rng: random.Random,
) -> Iterator[tuple[Constant, float]]:
    if known and known[-1].experiment.number == tip:
        # The last step was accepted: another step the same way is the best guess.
        yield from ((one, known[-1].factor) for one in constants if one.key == known[-1].key)
    best = min(_rank(constant) for constant in fresh)
    constant = rng.choice([constant for constant in fresh if _rank(constant) == best])
    factor = math.exp(rng.uniform(*map(math.log, _FIRST_FACTORS)))
    steps = [factor, 1 / factor]
    rng.shuffle(steps)
    yield from ((constant, step) for step in steps)


def _rank(constant: Constant) -> int:
    if _LAST.search(constant.name):
        return len(_RANKS) + 1
    return next((rank for rank, names in enumerate(_RANKS) if names.search(constant.name)), len(_RANKS))


def _tpe(constants: Sequence[Constant], known: Sequence[_Past], seed: int) -> Iterator[tuple[Constant, float]]:
    import optuna  # takes 0.6 s: not before it is needed

    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    keys = [constant.key for constant in constants]
    choice = optuna.distributions.CategoricalDistribution(keys)
    scale = optuna.distributions.FloatDistribution(1 / MAX_FACTOR, MAX_FACTOR, log=True)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(n_startup_trials=0, seed=seed))
    for one, value in zip(known, _objectives(known), strict=True):
        study.add_trial(
            optuna.trial.create_trial(
                params={"knob": one.key, f"{one.key} factor": min(max(one.factor, 1 / MAX_FACTOR), MAX_FACTOR)},
                distributions={"knob": choice, f"{one.key} factor": scale},
                value=value,
            )
        )
    by_key: dict[Any, Constant] = {constant.key: constant for constant in constants}
    for _ in range(MAX_ASKS):
        trial = study.ask()
        key = trial.suggest_categorical("knob", keys)
        yield by_key[key], trial.suggest_float(f"{key} factor", 1 / MAX_FACTOR, MAX_FACTOR, log=True)


def _objectives(known: Sequence[_Past]) -> list[float]:
    """Expected effects in bits per byte on the tip. A crash counts as worse than the worst score.

    It is not a failed Optuna trial: TPE leaves those out of its model and would propose the same step again. The
    margin does not matter, since TPE uses ranks only.
    """
    deltas = [one.experiment.delta_bpb for one in known]
    worst = max((delta for delta in deltas if delta is not None), default=0.0)
    return [worst + 1.0 if delta is None else delta for delta in deltas]
