"""A candidate against its champion: everything that its verdict is judged with, and the next step.

Immutable, and the only reader of history for a verdict: what it needs is read when it is opened, and replaced by
`with_candidate` and `with_champion` as trials close. A restart opens it from the ledger and goes on: there is
no other resume logic.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from runner import edits
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import candidate_files
from runner.config import Config
from runner.decision import early_stopping, history, keep_rule
from runner.decision.keep_rule import Action, Belief, Judgement, Rule
from runner.records import AuditPolicy, Experiment, Outcome, Phase, Ruling, Trial, Verdict

REACH_SIGMAS = 20.0
"""How far from the champion a score that is kept is searched for, in noise standard deviations."""

VERDICTS = {
    Outcome.CRASH: Verdict.CRASH,
    Outcome.INVALID: Verdict.INVALID,
    Outcome.STOPPED: Verdict.DISCARD,
    Outcome.LOST: Verdict.INFRA,
}
"""Verdict of an experiment whose last trial has no score."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate and its champion as they stand now."""

    experiment: Experiment
    champion: Experiment
    rule: Rule
    belief: Belief
    lines_added: int  # of logic, net
    simplification: bool
    audit_discards: float
    score_limit_seconds: float | None
    early_stop: early_stopping.Calibration | None  # for the first trial

    @classmethod
    def open(cls, campaign: Campaign, experiment: Experiment) -> Comparison:
        """The comparison of an open experiment, with its trials so far.

        The campaign's belief is that of the moment when the experiment was opened: a restart judges alike.
        """
        assert experiment.champion is not None
        past, config = campaign.experiments, campaign.config
        best = past[experiment.champion]
        assert best.kept_commit is not None
        before = edits.count_logic(campaign.repository.read_workload(best.kept_commit))
        comparison = cls(
            experiment=experiment,
            champion=best,
            rule=history.rule(config),
            belief=campaign.memory.belief(experiment.opened_seq),
            lines_added=edits.count_logic(candidate_files(campaign, experiment)) - before,
            simplification=experiment.category == keep_rule.SIMPLIFICATION,
            audit_discards=config.audit_discards,
            score_limit_seconds=score_limit(past[history.BASELINE], config.train_seconds),
            early_stop=None,
        )
        return replace(comparison, early_stop=comparison._calibration(past, config))

    def with_candidate(self, experiment: Experiment) -> Comparison:
        """The same after another trial of the candidate."""
        return replace(self, experiment=experiment)

    def with_champion(self, champion: Experiment) -> Comparison:
        """The same after a control."""
        return replace(self, champion=champion)

    # ------------------------------------------------------------- the next step

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Trials of the candidate with a score."""
        return history.scored(self.experiment.trials)

    @property
    def needs_control(self) -> bool:
        """Whether the champion is measured before the candidate's next trial."""
        return bool(self.trials) and history.control_due_between_trials(self.champion, self.trials)

    def verdict(self, last: Trial | None = None) -> Ruling | None:
        """The verdict, once the trials so far give one.

        Args:
            last: the trial that has just ended, when it is lost: the ledger repeats those.
        """
        settled = [one for one in self.experiment.trials if one.outcome not in (Outcome.LOST, Outcome.CONTENDED)]
        last = last or (settled[-1] if settled else None)
        if last is None:
            return None
        if last.outcome is not Outcome.SCORED:
            return Ruling(
                verdict=VERDICTS[last.outcome], reason=last.reason or "", sigma_bpb=self.belief.sigma_bpb
            )
        judgement = self.judgement
        return None if judgement.action is Action.TRY_AGAIN else self._ruling(judgement, last)

    @property
    def judgement(self) -> Judgement:
        """The judgement on the scores so far."""
        return self._judge(history.scores(self.trials), self.pool)

    def policy(self, claimed_bpb: float) -> AuditPolicy:
        """How closely the claims of the next trial are examined: everything that a keep may rest on, and a few
        discards, which no candidate can foresee.
        """
        goes_on = self._judge_next(claimed_bpb).action is not Action.DISCARD
        audit = goes_on or random.SystemRandom().random() < self.audit_discards
        return AuditPolicy(audit=audit, seal_below_bpb=self._keep_boundary() if audit else None)

    # -------------------------------------------------------------------- judging

    @property
    def pool(self) -> tuple[Trial, ...]:
        """Trials of the champion that the candidate's last one is judged against: those that were there before."""
        return self._pool(self.trials[:-1], self.trials[-1].opened_seq)

    def _pool(self, earlier: tuple[Trial, ...], before_seq: int | None) -> tuple[Trial, ...]:
        known = history.champion_pool(self.champion, before_seq)
        return history.comparable(known, earlier, self.belief.sigma_bpb)

    def _judge(self, candidate_bpb: tuple[float, ...], pool: tuple[Trial, ...]) -> Judgement:
        assert self.champion.val_bpb is not None
        return keep_rule.judge(
            self.rule,
            self.belief,
            candidate_bpb=candidate_bpb,
            champion_bpb=history.scores(pool) or (self.champion.val_bpb,),
            lines_added=self.lines_added,
            simplification=self.simplification,
        )

    def _judge_next(self, bpb: float) -> Judgement:
        """What is decided when the next trial has this score."""
        return self._judge((*history.scores(self.trials), bpb), self._pool(self.trials, None))

    def _champion_mean(self) -> float:
        pool = history.scores(self._pool(self.trials, None))
        assert self.champion.val_bpb is not None
        return sum(pool) / len(pool) if pool else self.champion.val_bpb

    def _keep_boundary(self) -> float | None:
        """The highest score of the next trial that makes the candidate a keep; None where none does."""
        mean, reach = self._champion_mean(), REACH_SIGMAS * self.belief.sigma_bpb

        def is_kept(bpb: float) -> bool:
            return self._judge_next(bpb).action is Action.KEEP

        if is_kept(mean + reach):
            return mean + reach
        delta = early_stopping.promising_boundary(lambda away: is_kept(mean + away), self.belief.sigma_bpb)
        return None if delta is None else mean + delta + 1e-9

    def _calibration(self, past: Sequence[Experiment], config: Config) -> early_stopping.Calibration | None:
        """What the first trial is watched with; later ones are promising."""
        mean = self._champion_mean()

        def is_worth(delta: float) -> bool:
            judgement = self._judge((mean + delta,), self._pool((), None))
            return judgement.action is not Action.DISCARD or judgement.near_miss

        return early_stopping.calibrate(
            past,
            self.champion,
            boundary_bpb=early_stopping.promising_boundary(is_worth, self.belief.sigma_bpb),
            early_stop_threshold=config.early_stop_threshold,
            early_stop_min_trials=config.early_stop_min_trials,
        )

    def _ruling(self, judgement: Judgement, last: Trial) -> Ruling:
        scores, reason = history.scores(self.trials), judgement.reason
        claimed = last.claimed_bpb
        if judgement.action is Action.DISCARD and last.audited and claimed is not None:
            added = scores[-1] - claimed
            if self._judge((*scores[:-1], claimed), self.pool).action is not Action.DISCARD:
                reason = f"its claim would qualify, but the audit is inconclusive and adds {added:.4f} bpb"
        verdict = Verdict.KEEP if judgement.action is Action.KEEP else Verdict.DISCARD
        # The score that chose it is too good on average: a keep is worth what the other trials say.
        shown = scores[1:] if verdict is Verdict.KEEP and len(scores) > 1 else scores
        first = self._judge(scores[:1], self.pool)
        return Ruling(
            verdict=verdict,
            reason=reason,
            val_bpb=sum(shown) / len(shown),
            delta_bpb=judgement.delta_bpb,
            sigma_bpb=judgement.sigma_bpb,
            figures=history.figures(judgement, first, self.trials, self.pool),
        )


def score_limit(baseline: Experiment, train_seconds: float) -> float | None:
    """How long scoring may take: twice as long as the baseline's slowest, and a margin for a noisy machine.

    A program that went on training while it is scored would have more time than others. One that is as much bigger
    or slower as the limit allows has paid for that in its training.
    """
    taken = [
        run.wall_seconds
        for run in baseline.runs
        if run.phase is Phase.SCORE and run.val_bpb is not None and run.wall_seconds is not None
    ]
    return 2 * max(taken) + max(5.0, 0.05 * train_seconds) if taken else None
