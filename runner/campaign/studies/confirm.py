"""A claim of improvement, confirmed by fresh runs: the rule for what one may tell others.

A campaign's own figures come from runs that chose each other. Here a commit and what it is held against are
run five times each, in turn, with fresh seeds, audited. The claim needs p < 0.01 in an exact one-sided
permutation test (`permutation_p`), and only then the sealed test rows are asked, once for each side.

Nothing is shown before the last run, so that no one can stop at a good figure. An attempt that failed counts:
the p of the k-th attempt at the same two programs is multiplied by k.

The sealed rows see one run of each side. Its noise is mostly that of the seed, which validation saw as well; so
the improvement on the sealed rows is taken as

    Δtest = (mean commit − mean against) + (test − val of the commit's run) − (test − val of the other's)

and a claim holds when that is below zero too. The sealed rows are never asked twice about one pair of programs.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

from runner import edits
from runner.campaign.campaign import Controller
from runner.campaign.case import score_limit
from runner.campaign.measurement import TrialBook
from runner.campaign.studies.interleave import Bench, Scored, Series
from runner.decision.history import BASELINE, champion, champion_claims
from runner.errors import BaselineError, ConfigError, EngineError, Interrupted, RepositoryError
from runner.evaluation.trial import Sealed
from runner.records import AuditPolicy, Files, Outcome, SealedScore
from runner.storage import claims as claims_store
from runner.storage.clock import now

NUM_RUNS = 5
"""Of each side: 252 ways to split ten runs, so that p can be as small as 0.004."""
LEVEL = 0.01


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two programs, the first of which is claimed to be better."""

    commit: str
    against: str
    files: Files
    against_files: Files

    @property
    def sha256(self) -> str:
        """Of both programs, whatever their commits are called."""
        digest = hashlib.sha256()
        for files in (self.files, self.against_files):
            for path, content in sorted(files.items()):
                digest.update(f"{path}\0{len(content)}\0".encode() + content)
            digest.update(b"\0")
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The outcome of an attempt."""

    commit: str
    against: str
    programs_sha256: str
    conditions: Mapping[str, str]
    made_at: str
    attempt: int  # from 1
    runs: tuple[Scored, ...]
    against_runs: tuple[Scored, ...]
    delta_bpb: float  # mean commit − mean against; negative is better
    p: float  # of the permutation test
    p_of_attempt: float  # times the number of attempts
    level: float
    sealed: tuple[SealedScore, SealedScore] | None  # of the commit and the other; None: not asked
    sealed_delta_bpb: float | None
    holds: bool
    reason: str


def permutation_p(better: Sequence[float], worse: Sequence[float]) -> float:
    """Exact one-sided permutation test of two means.

    Under the hypothesis that both programs are the same, every split of the n + m scores into n and m is as
    probable as the one that was seen. With S the sum of the n scores of the side that is claimed to be lower,

        p = #{subsets A of all scores, |A| = n, with Σ A ≤ S} / C(n + m, n).

    The mean of the one side minus that of the other increases with Σ A, so these are the splits that look at
    least as well. Ties count against the claim. With n = m = 5 the smallest p is 1/252.

    Args:
        better: scores of the side that is claimed to have the lower mean.
        worse: of the other one.
    """
    exact = [Fraction(value) for value in (*better, *worse)]
    seen = sum(exact[: len(better)], Fraction(0))
    as_good = sum(sum(subset, Fraction(0)) <= seen for subset in combinations(exact, len(better)))
    return as_good / comb(len(exact), len(better))


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
    if files == other_files:
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
    commit, against = f"{pair.commit[:10]}", f"{pair.against[:10]}"
    programs = {commit: pair.files, against: pair.against_files}
    series = Series()
    with Bench(controller.evaluator, programs, champion_claims(champion(past)), limit) as bench:
        if not bench.interleave([commit, against], NUM_RUNS, series, stopping=stopping):
            raise Interrupted("stopped between two runs; nothing was written", "run it again; it starts over")
        for name, failure in series.failures.items():
            raise BaselineError(f"there is no claim: {name} failed: {failure.reason}", "autoresearch doctor")
        own, other = series.scores(commit), series.scores(against)
        p, attempt = permutation_p(own, other), 1 + len(earlier)
        claim = Claim(
            commit=pair.commit,
            against=pair.against,
            programs_sha256=pair.sha256,
            conditions=controller.conditions,
            made_at=now(),
            attempt=attempt,
            runs=tuple(series.runs[commit]),
            against_runs=tuple(series.runs[against]),
            delta_bpb=fmean(own) - fmean(other),
            p=p,
            p_of_attempt=min(1.0, p * attempt),
            level=LEVEL,
            sealed=None,
            sealed_delta_bpb=None,
            holds=False,
            reason="",
        )
        if claim.p_of_attempt >= LEVEL:
            claim = replace(claim, reason=f"p is not below {LEVEL:g}; the sealed rows were not used")
            record(claim)
            return claim
        record(replace(claim, reason="the sealed rows were about to be used"))
        sealed = asked_before(earlier) or (_seal(bench, commit), _seal(bench, against))
    claim = with_sealed(claim, sealed)
    record(claim)
    return claim


def with_sealed(claim: Claim, sealed: tuple[SealedScore, SealedScore]) -> Claim:
    """The claim with what the sealed rows say of both sides."""
    gaps = [one.test_bpb - one.val_bpb for one in sealed]
    delta = claim.delta_bpb + gaps[0] - gaps[1]
    holds = delta < 0
    reason = "p and the sealed rows agree" if holds else "the sealed rows do not show it"
    return replace(claim, sealed=sealed, sealed_delta_bpb=delta, holds=holds, reason=reason)


def asked_before(earlier: Sequence[Mapping[str, Any]]) -> tuple[SealedScore, SealedScore] | None:
    """What the sealed rows said of these two programs already."""
    for one in earlier:
        if one.get("sealed"):
            first, second = (SealedScore(**score) for score in one["sealed"])
            return first, second
    return None


def _seal(bench: Bench, name: str) -> SealedScore:
    """One more trial, for the sealed rows; the campaign's claims stay as they are."""
    with _claims_apart(bench) as apart:
        book = _SealedBook()
        trial = apart.measure(name, book, AuditPolicy(audit=True, seal_below_bpb=float("inf")))
    if trial.outcome is not Outcome.SCORED:
        raise BaselineError(f"there is no claim: {name} failed: {trial.reason}", "autoresearch doctor")
    if book.score is None:
        raise EngineError(f"{name} got no score on the sealed rows", "autoresearch doctor")
    return book.score


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
