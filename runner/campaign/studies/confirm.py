"""A claim of improvement, confirmed by fresh pairs: the rule for what one may tell others.

A campaign's own figures come from trials that chose each other. Here a commit and the one it is held against are
measured under the same fresh seeds, in pairs, interleaved, audited. Wilcoxon's exact signed-rank test
(`pairing.signed_rank_p`) gives the p of a claim.

Nothing is shown before the last trial, not even a loss, so that no one can stop at a good figure. An attempt may
be repeated: its pairs then join those of the attempts before it, under the same conditions, as in a
group-sequential test. The attempts share the error `TOTAL_ERROR`: the k-th may spend `level(k)` of it, and all
levels together are less than the total. So the probability that any attempt, however many there are, confirms a
program that is no better is below it, whatever the distribution of the noise. Programs that differ in comments or
layout are the same program.

Only when p is small enough are the sealed test rows scored: one trial of each side, under one more common seed.
The claim holds when the commit is better there, too. The difference varies between seeds like those of the pairs,
whose spread gives its standard error. The sealed rows are never asked twice about one pair of programs.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from runner import edits
from runner.campaign.campaign import Controller
from runner.campaign.case import score_limit
from runner.campaign.measurement import TrialBook
from runner.campaign.studies.interleave import Bench, Scored, Series, fresh_seed
from runner.decision import pairing
from runner.decision.history import BASELINE, champion, champion_claims
from runner.decision.pairing import Difference
from runner.errors import BaselineError, ConfigError, EngineError, Interrupted, RepositoryError
from runner.evaluation.trial import Sealed
from runner.records import AuditPolicy, Files, Observer, Outcome, SealedScore
from runner.storage import claims as claims_store
from runner.storage.clock import now

NUM_PAIRS = 7
"""Of an attempt: p can be as small as 1/128, just below the first attempt's level."""
TOTAL_ERROR = 0.01
FIRST_SHARE = 0.8
"""Share of the total error for the first attempt; each further one gets this share of what is left."""


def level(attempt: int) -> float:
    """Largest p with which an attempt, counted from 1, confirms a claim: 0.008, 0.0016, 0.00032, …"""
    return TOTAL_ERROR * FIRST_SHARE * (1 - FIRST_SHARE) ** (attempt - 1)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two programs, the first of which is claimed to be better."""

    commit: str
    against: str
    files: Files
    against_files: Files

    @property
    def sha256(self) -> str:
        """Of both programs, whatever their commits are called and their comments say."""
        both = edits.fingerprint(self.files) + edits.fingerprint(self.against_files)
        return hashlib.sha256(both.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The outcome of an attempt."""

    commit: str
    against: str
    programs_sha256: str
    conditions: Mapping[str, str]
    made_at: str
    attempt: int  # from 1
    runs: tuple[Scored, ...]  # of this attempt, in the order of `against_runs`: a pair has the same seed
    against_runs: tuple[Scored, ...]
    num_pairs: int  # with those of earlier attempts
    difference: Difference  # commit − against over all of them; negative is better
    p: float  # of all of them
    level: float  # that p must not exceed in this attempt
    sealed: tuple[SealedScore, SealedScore] | None  # of the commit and the other; None: not asked
    sealed_difference: Difference | None
    holds: bool
    reason: str


def open_pair(controller: Controller, revision: str | None, against: str | None) -> Pair:
    """The two programs of a claim.

    Args:
        revision: None for the campaign's champion.
        against: None for the commit where the campaign began.

    Raises:
        ConfigError: they are the same program, or no workload; or the campaign ran under other conditions.
        RepositoryError: there is no such commit; or no campaign, where its commits are meant.
    """
    campaign = controller.ledger.campaign(controller.config.tag)
    if campaign is not None:
        controller.refuse_other_conditions(campaign)
    elif revision is None or against is None:
        raise RepositoryError(
            f"there is no campaign {controller.config.tag!r}",
            "name it with --tag, or name both commits: autoresearch confirm COMMIT --against COMMIT",
        )
    best = champion(controller.ledger.experiments(controller.config.tag))
    base = None if campaign is None else campaign.base_commit
    champion_commit = base if best is None else best.kept_commit
    commit = controller.repository.resolve(revision or champion_commit or "HEAD")
    other = controller.repository.resolve(against or base or "HEAD")
    files, other_files = controller.repository.read_workload(commit), controller.repository.read_workload(other)
    if edits.fingerprint(files) == edits.fingerprint(other_files):
        raise ConfigError(
            f"{commit[:10]} and {other[:10]} are the same program",
            "name another commit; autoresearch status shows the champion",
        )
    for name, tree in ((commit, files), (other, other_files)):
        if (refusal := edits.check_tree(tree)) is not None:
            raise ConfigError(f"{name[:10]} cannot be run: {refusal.reason}", "name another commit")
    return Pair(commit=commit, against=other, files=files, against_files=other_files)


def confirm(
    controller: Controller,
    pair: Pair,
    earlier: Sequence[Mapping[str, Any]],
    record: Callable[[Claim], None],
    *,
    stopping: Callable[[], bool],
) -> Claim:
    """Measure both sides, and ask the sealed rows where that is deserved.

    Args:
        earlier: attempts at the same two programs, as recorded.
        record: records the attempt, before the sealed rows are asked and again with their answer.

    Raises:
        BaselineError: one of the programs fails.
        EngineError: the infrastructure failed.
        Interrupted: a person asked to stop; no figure was shown and nothing is recorded.
    """
    past = controller.ledger.experiments(controller.config.tag)
    limit = score_limit(past[BASELINE], controller.config.train_seconds) if past else None
    programs = {pair.commit[:10]: pair.files, pair.against[:10]: pair.against_files}
    series = Series()
    evaluator = replace(controller.evaluator, observer=cast(Observer, _WithoutFigures(controller.observer)))
    with Bench(evaluator, programs, champion_claims(champion(past)), limit) as bench:
        if not bench.interleave(list(programs), NUM_PAIRS, series, stopping=stopping):
            raise Interrupted("stopped between two runs; nothing was written", "run it again; it starts over")
        for name, failure in series.failures.items():
            raise BaselineError(f"there is no claim: {name} failed: {failure.reason}", "autoresearch doctor")
        claim = judge(controller.conditions, pair, series, earlier)
        record(claim)
        if claim.p > claim.level:
            return claim
        claim = with_sealed(claim, asked_before(earlier) or _seal(bench, list(programs)))
    record(claim)
    return claim


def judge(
    conditions: Mapping[str, str], pair: Pair, series: Series, earlier: Sequence[Mapping[str, Any]]
) -> Claim:
    """The claim after an attempt's trials, before the sealed rows are asked."""
    runs, against_runs = (tuple(series.runs[name[:10]]) for name in (pair.commit, pair.against))
    differences = [*_known(earlier, conditions), *_differences(runs, against_runs)]
    attempt = 1 + len(earlier)
    p, needed = pairing.signed_rank_p(differences), level(attempt)
    reason = f"p is above {needed:.2g}; the sealed rows were not used"
    return Claim(
        commit=pair.commit,
        against=pair.against,
        programs_sha256=pair.sha256,
        conditions=conditions,
        made_at=now(),
        attempt=attempt,
        runs=runs,
        against_runs=against_runs,
        num_pairs=len(differences),
        difference=pairing.mean_difference(differences),
        p=p,
        level=needed,
        sealed=None,
        sealed_difference=None,
        holds=False,
        reason=reason if p > needed else "the sealed rows were about to be used",
    )


def with_sealed(claim: Claim, sealed: tuple[SealedScore, SealedScore]) -> Claim:
    """The claim with what the sealed rows say of both sides."""
    one_pair_bpb = claim.difference.se_bpb * math.sqrt(claim.num_pairs)
    delta = sealed[0].test_bpb - sealed[1].test_bpb
    holds = delta < 0
    return replace(
        claim,
        sealed=sealed,
        sealed_difference=pairing.difference_of(delta, one_pair_bpb, claim.num_pairs - 1),
        holds=holds,
        reason="p and the sealed rows agree" if holds else "the sealed rows do not show it",
    )


def asked_before(earlier: Sequence[Mapping[str, Any]]) -> tuple[SealedScore, SealedScore] | None:
    """Return the earlier result of the sealed rows for these two programs."""
    for one in earlier:
        if one.get("sealed"):
            first, second = (SealedScore(**score) for score in one["sealed"])
            return first, second
    return None


def _seal(bench: Bench, names: Sequence[str]) -> tuple[SealedScore, SealedScore]:
    """One more trial of each side, under a common seed; the campaign's claims stay as they are."""
    seed, scores = fresh_seed(), []
    with _claims_apart(bench) as apart:
        for name in names:
            book = _SealedBook()
            trial = apart.measure(name, seed, book, AuditPolicy(audit=True, seal_below_bpb=float("inf")))
            if trial.outcome is not Outcome.SCORED:
                raise BaselineError(f"there is no claim: {name} failed: {trial.reason}", "autoresearch doctor")
            if book.score is None:
                raise EngineError(f"{name} got no score on the sealed rows", "autoresearch doctor")
            scores.append(book.score)
    own, other = scores
    return own, other


def _known(earlier: Sequence[Mapping[str, Any]], conditions: Mapping[str, str]) -> list[float]:
    """Differences of the pairs of earlier attempts under the same conditions."""
    found: list[float] = []
    for one in earlier:
        if one["conditions"] == dict(conditions):
            sides = ([Scored(**run) for run in one[side]] for side in ("runs", "against_runs"))
            found += _differences(*sides)
    return found


def _differences(runs: Sequence[Scored], against_runs: Sequence[Scored]) -> list[float]:
    return [one.val_bpb - two.val_bpb for one, two in zip(runs, against_runs, strict=True)]


class _WithoutFigures:
    """An observer that does not hear the figures of a running training."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def __getattr__(self, name: str) -> object:
        return getattr(self._observer, name)

    def line(self, text: str) -> None:
        """Keep it to itself."""


@dataclass
class _SealedBook(TrialBook):
    """Records nothing, but remembers the sealed score."""

    score: SealedScore | None = None

    def sealed(self, sealed: Sealed) -> None:
        """Remember it."""
        self.score = sealed.score


@contextmanager
def _claims_apart(bench: Bench) -> Iterator[Bench]:
    """The same bench with a folder of claims of its own: saving claims removes older ones."""
    evaluator = bench.evaluator
    evaluator.scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=evaluator.scratch) as name:
        folder = Path(name)
        claims = None if bench.claims is None else claims_store.load(evaluator.claims, bench.claims)
        if claims is not None:
            claims_store.save(folder, claims)
        with replace(bench, evaluator=replace(evaluator, claims=folder)) as apart:
            yield apart
