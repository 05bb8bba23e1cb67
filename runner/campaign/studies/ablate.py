"""Which accepted edits carry the gain of a certificate: each is left out once, and the rest measured against all.

A certificate proves a tip, not its edits: some were accepted by luck, and some are worth nothing beside what came
later. The tip, the champion that it replaced, and the tip without each edit are measured under common seeds,
interleaved and audited. An edit that does not come out of the tip, since later ones build on it, is put alone on
the old champion instead. The effect of an edit is

    mean of the tip − mean of the tip without it,   or   mean of it alone − mean of the old champion,

negative when it helps. What seeds have in common cancels. The spread s of the residuals is pooled over all
programs (`pairing.residual_spread`) with the campaign's prior, so that with n seeds se = s √(2 / n), and Student's
t gives the interval. The same posterior as for candidates gives the probability that the program is not worse
without the edit by more than half of σ̂:

    at least 50%    it does not matter, as far as so few trials can tell
    at most 20%     it matters
    else            unclear: more trials would tell

The first of these is a screen and no proof: all that pass it are left out together and measured against the tip
until the case is clear or three times as many seeds have been used. When that program is not worse with a
probability of 80% (the error rate of a simplification), the minimal patch is the difference of the baseline and
what is left.

Two edits of which one is enough seem not to matter, each alone; together they do, and then nothing is written. The
best part of a set that cannot be left out as a whole is not searched for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from statistics import fmean

from runner import edits
from runner.campaign.campaign import Controller
from runner.campaign.case import score_limit
from runner.campaign.studies.interleave import Bench, Series
from runner.decision import effect_prior, keep_rule, pairing
from runner.decision.history import BASELINE, champion, champion_claims
from runner.decision.keep_rule import PRIOR_WEIGHT, SIMPLER_DOUBT, SIMPLER_SIGMAS, Belief
from runner.decision.memory import Memory
from runner.decision.pairing import Difference
from runner.errors import BaselineError, ConfigError, RepositoryError
from runner.records import Experiment, Files, Verdict

SCREEN = 0.5
"""The probability that the tip is not worse without an edit that is left out with the others."""
MAX_BATCHES = 3
"""The number of times that all edits that do not matter are measured together, as long as the case is unclear."""
TIP = "the certified program"
BEFORE = "the champion before"
TOGETHER = "the certified program without all that do not matter"


class State(StrEnum):
    """The findings on one edit."""

    MATTERS = "matters"
    IDLE = "does not matter"  # of one edit a screen, of several together a proof
    UNCLEAR = "unclear"
    NEEDED = "needed"  # without it the program fails
    BOUND = "bound to others"  # it neither comes out cleanly nor goes alone onto the old champion
    OPEN = "not measured"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The knowledge of one edit, or of several together."""

    number: int | None  # of its experiment; None: several together
    state: State
    alone: bool = False  # measured alone on the old champion, instead of left out
    num_seeds: int = 0
    effect: Difference | None = None  # negative: it helps
    not_worse: float | None = None  # probability that the program is not worse without it by more than half a σ̂
    reason: str | None = None  # why it does not come out, or how the program fails


@dataclass(frozen=True, kw_only=True)
class Scope:
    """The subject of a study: some certificates in a row, and where their edits stand."""

    champion: Experiment  # the newest of the certificates
    accepted: tuple[Experiment, ...]  # their edits, oldest first
    trees: Mapping[int, Files]  # of the edits, of what each was made from, of the baseline, and of both ends
    before: int  # the champion that the oldest of the certificates replaced

    def without(self, tree: Files, edit: Experiment) -> dict[str, bytes] | edits.Refusal:
        """A tree without an edit."""
        assert edit.parent is not None
        return edits.carry_over(tree, base=self.trees[edit.number], changed=self.trees[edit.parent])

    def alone(self, edit: Experiment) -> dict[str, bytes] | edits.Refusal:
        """The old champion with this edit only."""
        assert edit.parent is not None
        return edits.carry_over(
            self.trees[self.before], base=self.trees[edit.parent], changed=self.trees[edit.number]
        )


@dataclass
class Study:
    """A plan, and what is known so far."""

    scope: Scope
    num_seeds: int
    belief: Belief
    residual_prior_bpb: float  # what the noise of a trial is thought to be without that of its seed
    programs: dict[str, Files]  # by name
    plan: Mapping[int, tuple[str, str]]  # for each edit, the program with it and the one without it
    bound: Mapping[int, str]  # edits that cannot be measured by themselves, and why
    series: Series = field(default_factory=Series)
    judged: tuple[Finding, ...] | None = None  # edit by edit, when all of them have been measured
    dropped: tuple[int, ...] = ()  # that are left out together
    reduced: Files | None = None
    complete: bool = False

    def findings(self) -> tuple[Finding, ...]:
        """The findings on each edit, oldest first."""
        return self.judged or tuple(self._finding(one.number) for one in self.scope.accepted)

    def gain(self) -> Difference | None:
        """The worth of all edits together, measured anew; negative is better."""
        return self._difference(TIP, BEFORE)

    def together(self) -> Finding | None:
        """The knowledge of the tip without all that do not matter; None when there are none."""
        return self._judged(None, TIP, TOGETHER, 1 - SIMPLER_DOUBT) if self.dropped else None

    def patch(self) -> str | None:
        """The minimal patch against the baseline; None when it was not proven to keep the gain."""
        if not self.complete:
            return None
        base, together = self.scope.trees[BASELINE], self.together()
        if together is None:
            return edits.diff(base, self.programs[TIP])
        if together.state is not State.IDLE or self.reduced is None:
            return None
        return edits.diff(base, self.reduced)

    def _finding(self, number: int) -> Finding:
        if number in self.bound:
            return Finding(number=number, state=State.BOUND, reason=self.bound[number])
        return self._judged(number, *self.plan[number], SCREEN)

    def _judged(self, number: int | None, with_it: str, without_it: str, enough: float) -> Finding:
        alone = without_it == BEFORE and with_it != TIP
        for name, state in ((without_it, State.NEEDED), (with_it, State.OPEN)):
            if (failure := self.series.failures.get(name)) is not None:
                state = State.OPEN if name == BEFORE else state
                return Finding(number=number, state=state, alone=alone, reason=f"{name} failed: {failure.reason}")
        effect = self._difference(with_it, without_it)
        if effect is None:
            return Finding(number=number, state=State.OPEN, alone=alone)
        good = effect_prior.probability_below(
            self.belief.prior,
            self.belief.weights,
            -effect.mean_bpb,
            effect.se_bpb,
            SIMPLER_SIGMAS * self.belief.sigma_bpb,
        )
        state = State.IDLE if good >= enough else State.UNCLEAR
        return Finding(
            number=number,
            state=State.MATTERS if good <= SIMPLER_DOUBT else state,
            alone=alone,
            num_seeds=len(self.series.differences(with_it, without_it)),
            effect=effect,
            not_worse=good,
        )

    def _difference(self, name: str, other: str) -> Difference | None:
        found = self.series.differences(name, other)
        if not found:
            return None
        sound = [one for one in self.programs if one in self.series.runs and one not in self.series.failures]
        spreads = [pairing.residual_spread(self.series.table(names)) for names in (sound, [TIP, TOGETHER])]
        se = keep_rule.pooled_sigma_of(spreads, self.residual_prior_bpb) * math.sqrt(2 / len(found))
        return pairing.difference_of(fmean(found), se, PRIOR_WEIGHT + sum(freedom for _, freedom in spreads))


def open_study(controller: Controller, revision: str | None, num_seeds: int, *, whole_line: bool = False) -> Study:
    """Plan a study: which edits there are, and how each is measured.

    Args:
        revision: the commit of a certificate; None for the campaign's champion.
        num_seeds: under which each program is measured.
        whole_line: split every certificate since the baseline, not only this one.

    Raises:
        ConfigError: the campaign ran under other conditions, or has no certificate.
        RepositoryError: there is no such campaign, or the commit is none of its certificates.
    """
    campaign = controller.ledger.campaign(controller.config.tag)
    if campaign is None:
        raise RepositoryError(
            f"there is no campaign {controller.config.tag!r}",
            "name it with --tag; autoresearch status shows the newest",
        )
    controller.refuse_other_conditions(campaign)
    past = controller.ledger.experiments(controller.config.tag)
    scope = find_scope(controller, past, revision, whole_line=whole_line)
    programs: dict[str, Files] = {
        TIP: scope.trees[scope.champion.number],
        BEFORE: scope.trees[scope.before],
    }
    plan: dict[int, tuple[str, str]] = {}
    bound: dict[int, str] = {}
    for edit in scope.accepted:
        left = scope.without(programs[TIP], edit)
        if left == programs[BEFORE]:
            plan[edit.number] = TIP, BEFORE
        elif not isinstance(left, edits.Refusal):
            plan[edit.number] = TIP, without(edit.number)
            programs[without(edit.number)] = left
        elif isinstance(single := scope.alone(edit), edits.Refusal):
            bound[edit.number] = left.reason
        else:
            plan[edit.number] = alone(edit.number), BEFORE
            programs[alone(edit.number)] = single
    memory = Memory(past, controller.config)
    belief = memory.belief()
    return Study(
        scope=scope,
        num_seeds=num_seeds,
        belief=belief,
        residual_prior_bpb=math.sqrt(memory.own_variance(belief.sigma_bpb)),
        programs=programs,
        plan=plan,
        bound=bound,
    )


def find_scope(
    controller: Controller, past: Sequence[Experiment], revision: str | None, *, whole_line: bool
) -> Scope:
    """The certificates and edits of a study; raises what `open_study` does."""
    kept = [one for one in past if one.verdict is Verdict.KEEP and one.kept_commit is not None]
    best = champion(kept)
    if revision is not None:
        commit = controller.repository.resolve(revision)
        best = next((one for one in kept if one.kept_commit == commit), None)
        if best is None:
            raise RepositoryError(
                f"{revision} is not a certified commit of campaign {controller.config.tag!r}",
                "autoresearch report lists them in findings.tsv; name the campaign with --tag",
            )
    if best is None or best.champion is None:
        raise ConfigError(
            f"campaign {controller.config.tag!r} has no certificate to split",
            "run more experiments: autoresearch overnight",
        )
    certificates = lineage_of(best, past) if whole_line else (best,)
    accepted = tuple(past[number] for one in certificates for number in one.certifies)
    before = certificates[0].champion
    assert before is not None
    needed = {BASELINE, best.number, before, *(one.number for one in accepted)}
    needed |= {one.parent for one in accepted if one.parent is not None}
    return Scope(
        champion=best,
        accepted=accepted,
        trees={
            number: controller.repository.read_workload(past[number].commit or "") for number in sorted(needed)
        },
        before=before,
    )


def without(number: int) -> str:
    """The name of the tip without one edit."""
    return f"the certified program without experiment {number}"


def alone(number: int) -> str:
    """The name of the old champion with one edit."""
    return f"the champion before with experiment {number} alone"


def lineage_of(best: Experiment, past: Sequence[Experiment]) -> tuple[Experiment, ...]:
    """The certificates that made a champion, its own included and the baseline not, oldest first."""
    line = []
    while best.champion is not None:
        line.append(best)
        best = past[best.champion]
    return tuple(reversed(line))


def run_study(controller: Controller, study: Study, *, stopping: Callable[[], bool]) -> None:
    """Measure what the study plans; what is known stays in it, also when this is interrupted.

    Raises:
        BaselineError: the certified program itself fails.
        EngineError: the infrastructure failed.
    """
    past = controller.ledger.experiments(controller.config.tag)
    claims = champion_claims(champion(past))
    limit = score_limit(past[BASELINE], controller.config.train_seconds)
    controller.observer.note(_announcement(study, controller.config.train_seconds))
    with Bench(controller.evaluator, study.programs, claims, limit) as bench:
        if not bench.interleave(list(study.programs), study.num_seeds, study.series, stopping=stopping):
            return
    _refuse_failed(study)
    study.judged = study.findings()
    study.dropped, study.reduced = drop_idle(study)
    if study.reduced is not None:
        programs = {TIP: study.programs[TIP], TOGETHER: study.reduced}
        with Bench(controller.evaluator, programs, claims, limit) as bench:
            for _ in range(MAX_BATCHES):
                if not bench.interleave(list(programs), study.num_seeds, study.series, stopping=stopping):
                    return
                _refuse_failed(study)
                known = study.together()
                if known is None or known.state is not State.UNCLEAR:
                    break
    study.complete = True


def drop_idle(study: Study) -> tuple[tuple[int, ...], Files | None]:
    """All edits that do not matter, taken out together, newest first; one that then does not come out stays.

    Returns:
        Their numbers, and what is left of the tip; nothing and None when there are none.
    """
    idle = {one.number for one in study.findings() if one.state is State.IDLE and not one.alone}
    tree: Files = study.programs[TIP]
    dropped: list[int] = []
    for edit in reversed(study.scope.accepted):
        if edit.number in idle:
            left = study.scope.without(tree, edit)
            if not isinstance(left, edits.Refusal):
                tree = left
                dropped.append(edit.number)
    return tuple(sorted(dropped)), tree if dropped else None


def _refuse_failed(study: Study) -> None:
    failure = study.series.failures.get(TIP)
    if failure is not None:
        raise BaselineError(f"{TIP} itself fails now: {failure.reason}", "autoresearch doctor checks the machine")


def _announcement(study: Study, train_seconds: float) -> str:
    count = study.num_seeds * len(study.programs)
    more = 2 * MAX_BATCHES * study.num_seeds
    minutes = (count + more) * train_seconds / 60
    return (
        f"{count} trials of {len(study.programs)} programs, then up to {more} more: "
        f"at most {minutes:.0f} min of training"
    )
