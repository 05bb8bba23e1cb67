"""Which kept edits still matter: each is left out of the champion once, and the rest is measured against it.

Edits are kept one after the other, and what was an improvement then may be worth nothing beside what came later.
Every kept edit is taken out of the champion's tree (`edits.carry_over`; one that later keeps build on stays), and
what remains is measured in turn with the champion, audited, with fresh seeds. With Δ = mean without it − mean
champion, n trials of each and the campaign's noise and belief, the same posterior as for candidates gives the
probability that the program is not worse without it by more than half of σ̂:

    at least 50%    it no longer matters, as far as so few runs can tell
    at most 20%     it still matters
    else            unclear: more trials would tell

The first of these is a screen and no proof: all that pass it are left out together and measured once more,
against all runs of the champion, until the case is clear or three times as many runs have been made. When that
program is not worse with a probability of 80% (the error rate of a kept simplification), the minimal patch is the
difference of the baseline and what is left.

Two edits of which one is enough seem not to matter, each alone; together they do, and then nothing is written.
What this does not find is the best part of a set that cannot be left out as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean

import numpy as np

from runner import edits
from runner.campaign.campaign import Controller
from runner.campaign.case import score_limit
from runner.campaign.studies.interleave import Bench, Series
from runner.decision import effect_prior, history, keep_rule
from runner.decision.history import BASELINE, champion, champion_claims
from runner.decision.keep_rule import SIMPLER_DOUBT, SIMPLER_SIGMAS, Belief
from runner.decision.memory import Memory
from runner.errors import BaselineError, ConfigError, RepositoryError
from runner.records import Experiment, Files, Verdict

SCREEN = 0.5
"""How probably the champion is not worse without a keep that is left out with the others."""
MAX_BATCHES = 3
"""How often all that do not matter are measured together, as long as the case is unclear."""
CHAMPION = "the champion"
TOGETHER = "the champion without all that do not matter"


class State(StrEnum):
    """The findings on one kept edit."""

    MATTERS = "still matters"
    IDLE = "no longer matters"  # of one keep a screen, of several together a proof
    UNCLEAR = "unclear"
    NEEDED = "needed"  # without it the program fails
    BOUND = "depends on later keeps"  # it does not come out cleanly
    OPEN = "not measured"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """The champion without one kept edit, or without several."""

    number: int | None  # of the keep; None: several together
    state: State
    num_trials: int
    delta_bpb: float | None  # mean without it − mean champion; positive: it helps
    se_bpb: float | None
    not_worse: float | None  # probability that the program is not worse without it by more than half a σ̂
    reason: str | None = None  # why it does not come out, or how the program fails


@dataclass
class Study:
    """A plan, and what is known so far."""

    champion: Experiment
    keeps: tuple[Experiment, ...]  # oldest first
    num_trials: int
    belief: Belief
    noise_groups: list[list[float]]
    noise_prior_bpb: float
    base: Files  # the baseline's
    trees: Mapping[str, Files]  # the champion's, and what is left without each keep
    bound: Mapping[int, str]  # keeps that do not come out, and why
    past: tuple[Experiment, ...]
    kept_trees: Mapping[int, Files]
    series: Series = field(default_factory=Series)
    judged: tuple[LeftOut, ...] | None = None  # keep by keep, when all of them have been measured
    dropped: tuple[int, ...] = ()  # that are left out together
    reduced: Files | None = None
    complete: bool = False

    @property
    def sigma_bpb(self) -> float:
        """The campaign's noise, with the runs of this study."""
        own = [self.series.scores(name) for name in self.series.runs]
        return keep_rule.pooled_sigma([*self.noise_groups, *own], self.noise_prior_bpb)

    def left_out(self) -> tuple[LeftOut, ...]:
        """The findings on each keep, oldest first."""
        return self.judged or tuple(self._judged(one.number, without(one.number), SCREEN) for one in self.keeps)

    def together(self) -> LeftOut | None:
        """What is known of the champion without all that do not matter; None when there are none."""
        return self._judged(None, TOGETHER, 1 - SIMPLER_DOUBT) if self.dropped else None

    def patch(self) -> str | None:
        """The minimal patch against the baseline; None when it was not proven to keep the gain."""
        if not self.complete:
            return None
        together = self.together()
        if together is None:
            return edits.diff(self.base, self.trees[CHAMPION])
        if together.state is not State.IDLE or self.reduced is None:
            return None
        return edits.diff(self.base, self.reduced)

    def _judged(self, number: int | None, name: str, enough: float) -> LeftOut:
        if number is not None and number in self.bound:
            return _unmeasured(number, State.BOUND, self.bound[number])
        if (failure := self.series.failures.get(name)) is not None:
            return _unmeasured(number, State.NEEDED, failure.reason)
        own, champion_bpb = self.series.scores(name), self.series.scores(CHAMPION)
        if not own or not champion_bpb:
            return _unmeasured(number, State.OPEN, None)
        sigma = self.sigma_bpb
        delta = fmean(own) - fmean(champion_bpb)
        se = float(
            keep_rule.standard_error(
                np.array(sigma), np.array(float(len(own))), np.array(float(len(champion_bpb)))
            )
        )
        good = effect_prior.probability_below(
            self.belief.prior, self.belief.weights, delta, se, SIMPLER_SIGMAS * sigma
        )
        state = State.IDLE if good >= enough else State.UNCLEAR
        if good <= SIMPLER_DOUBT:
            state = State.MATTERS
        return LeftOut(number=number, state=state, num_trials=len(own), delta_bpb=delta, se_bpb=se, not_worse=good)


def _unmeasured(number: int | None, state: State, reason: str | None) -> LeftOut:
    return LeftOut(
        number=number, state=state, num_trials=0, delta_bpb=None, se_bpb=None, not_worse=None, reason=reason
    )


def without(number: int) -> str:
    """The name of the champion without one keep."""
    return f"the champion without experiment {number}"


def open_study(controller: Controller, revision: str | None, num_trials: int) -> Study:
    """Plan a study: which keeps there are, and which come out of the champion's tree.

    Args:
        revision: a kept commit of the campaign; None for its champion.
        num_trials: of each program.

    Raises:
        ConfigError: the campaign ran under other conditions, or has no keep.
        RepositoryError: there is no such campaign, or the commit is none of its keeps.
    """
    campaign = controller.ledger.campaign(controller.config.tag)
    if campaign is None:
        raise RepositoryError(
            f"there is no campaign {controller.config.tag!r}",
            "name it with --tag; autoresearch status shows the newest",
        )
    controller.refuse_other_conditions(campaign)
    past = controller.ledger.experiments(controller.config.tag)
    kept = [one for one in past if one.verdict is Verdict.KEEP and one.kept_commit is not None]
    if revision is None:
        best = champion(kept)
    else:
        commit = controller.repository.resolve(revision)
        best = next((one for one in kept if commit in (one.kept_commit, one.tried_commit)), None)
        if best is None:
            raise RepositoryError(
                f"{revision} is not a kept commit of campaign {controller.config.tag!r}",
                "autoresearch report lists them in findings.tsv; name the campaign with --tag",
            )
    line = lineage_of(best, past)
    if best is None or not line:
        raise ConfigError(
            f"campaign {controller.config.tag!r} has no keep to leave out",
            "run more experiments: autoresearch overnight",
        )
    trees = {
        one.number: controller.repository.read_workload(one.kept_commit or "") for one in (past[BASELINE], *line)
    }
    outcomes = {one.number: _take_out(trees[best.number], one, trees) for one in line}
    return Study(
        champion=best,
        keeps=line,
        num_trials=num_trials,
        belief=Memory(past, controller.config).belief(),
        noise_groups=history.noise_groups(past),
        noise_prior_bpb=controller.config.noise_prior_bpb,
        base=trees[BASELINE],
        trees={
            CHAMPION: trees[best.number],
            **{without(number): tree for number, tree in outcomes.items() if not isinstance(tree, edits.Refusal)},
        },
        bound={number: tree.reason for number, tree in outcomes.items() if isinstance(tree, edits.Refusal)},
        past=past,
        kept_trees=trees,
    )


def lineage_of(best: Experiment | None, past: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """The keeps that made a champion, itself included and the baseline not, oldest first."""
    by_number = {one.number: one for one in past}
    line: list[Experiment] = []
    while best is not None and best.champion is not None:
        line.append(best)
        best = by_number.get(best.champion)
    return tuple(reversed(line))


def _take_out(tip: Files, keep: Experiment, trees: Mapping[int, Files]) -> dict[str, bytes] | edits.Refusal:
    assert keep.champion is not None
    return edits.carry_over(tip, base=trees[keep.number], changed=trees[keep.champion])


def run_study(controller: Controller, study: Study, *, stopping: Callable[[], bool]) -> None:
    """Measure what the study plans; what is known stays in it, also when this is interrupted.

    Raises:
        BaselineError: the champion itself fails.
        EngineError: the infrastructure failed.
    """
    claims = champion_claims(champion(study.past))
    limit = score_limit(study.past[BASELINE], controller.config.train_seconds)
    controller.observer.note(_plan(study, controller.config.train_seconds))
    with Bench(controller.evaluator, study.trees, claims, limit) as bench:
        if not bench.interleave(list(study.trees), study.num_trials, study.series, stopping=stopping):
            return
    _refuse_failed(study)
    study.judged = study.left_out()
    study.dropped, study.reduced = drop_idle(study)
    if study.reduced is not None:
        programs = {CHAMPION: study.trees[CHAMPION], TOGETHER: study.reduced}
        with Bench(controller.evaluator, programs, claims, limit) as bench:
            for _ in range(MAX_BATCHES):
                if not bench.interleave(list(programs), study.num_trials, study.series, stopping=stopping):
                    return
                _refuse_failed(study)
                known = study.together()
                if known is None or known.state is not State.UNCLEAR:
                    break
    study.complete = True


def drop_idle(study: Study) -> tuple[tuple[int, ...], Files | None]:
    """All keeps that do not matter, taken out together, newest first; one that then does not come out stays.

    Returns:
        Their numbers, and what is left of the champion; nothing and None when there are none.
    """
    idle = {one.number for one in study.left_out() if one.state is State.IDLE}
    tree: Files = study.trees[CHAMPION]
    dropped: list[int] = []
    for keep in reversed(study.keeps):
        if keep.number in idle:
            left = _take_out(tree, keep, study.kept_trees)
            if not isinstance(left, edits.Refusal):
                tree = left
                dropped.append(keep.number)
    return tuple(sorted(dropped)), tree if dropped else None


def _refuse_failed(study: Study) -> None:
    failure = study.series.failures.get(CHAMPION)
    if failure is not None:
        raise BaselineError(
            f"the champion itself fails now: {failure.reason}", "autoresearch doctor checks the machine"
        )


def _plan(study: Study, train_seconds: float) -> str:
    count = study.num_trials * len(study.trees)
    more = 2 * MAX_BATCHES * study.num_trials
    minutes = (count + more) * train_seconds / 60
    return (
        f"{count} runs of {len(study.trees)} programs, then up to {more} more: "
        f"at most {minutes:.0f} min of training"
    )
