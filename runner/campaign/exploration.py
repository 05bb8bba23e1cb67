"""An idea on the tip: one trial under the exploration seed, then accepted or discarded."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from runner import edits
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import candidate_files, program_files
from runner.campaign.case import failure, last_settled, score_limit
from runner.decision import early_stopping, exploration, history
from runner.decision.exploration import Change
from runner.decision.keep_rule import SIMPLIFICATION, Action, Belief, Judgement
from runner.decision.tip import TipRule
from runner.decision.tip_state import Tip
from runner.records import AuditPolicy, Experiment, Outcome, Ruling, Trial, Verdict

ACTIONS = {Action.ACCEPT: Verdict.ACCEPT, Action.DISCARD: Verdict.DISCARD}


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """An idea and the tip that it edits; see `runner.campaign.case.Case`."""

    experiment: Experiment
    parent: Experiment  # whose program is the tip
    tip: Tip
    rule: TipRule
    belief: Belief
    change: Change
    audit_discards: float
    score_limit_seconds: float | None
    early_stop: early_stopping.Calibration | None
    champion_next: None = None
    state: None = None  # it ends with its first trial

    @classmethod
    def open(cls, campaign: Campaign, experiment: Experiment) -> Exploration:
        """The case of an open idea. The campaign's belief is that of the moment when it was opened."""
        assert experiment.parent is not None and campaign.memory.tip is not None
        past, config = campaign.experiments, campaign.config
        parent = past[experiment.parent]
        before = edits.count_logic(program_files(campaign, parent))
        case = cls(
            experiment=experiment,
            parent=parent,
            tip=campaign.memory.tip,
            rule=history.rule(config),
            belief=campaign.memory.belief(experiment.opened_seq),
            change=Change(
                lines_added=edits.count_logic(candidate_files(campaign, experiment)) - before,
                simplification=experiment.category == SIMPLIFICATION,
            ),
            audit_discards=config.audit_discards,
            score_limit_seconds=score_limit(past[history.BASELINE], config.train_seconds),
            early_stop=None,
        )
        calibration = early_stopping.calibrate(
            past,
            parent,
            case.seed,
            boundary_bpb=case._boundary(),
            early_stop_threshold=config.early_stop_threshold,
            early_stop_min_trials=config.early_stop_min_trials,
        )
        return replace(case, early_stop=calibration)

    def refreshed(self, campaign: Campaign) -> Exploration:
        """The same after another trial."""
        return replace(self, experiment=campaign.experiments[self.experiment.number])

    @property
    def seed(self) -> int:
        """The exploration seed."""
        return self.tip.seed

    def policy(self, claimed_bpb: float) -> AuditPolicy:
        """Audit everything that would be accepted, and a few discards, which no candidate can foresee."""
        accepted = self._judge(claimed_bpb).action is Action.ACCEPT
        return AuditPolicy(audit=accepted or random.SystemRandom().random() < self.audit_discards)

    def verdict(self, last: Trial | None = None) -> Ruling | None:
        """The verdict, once there is a trial."""
        last = last or last_settled(self.experiment.trials)
        if last is None:
            return None
        if last.outcome is not Outcome.SCORED or last.val_bpb is None:
            return failure(last, self.belief.sigma_bpb)
        judged = self._judge(last.val_bpb)
        if judged.action is Action.ACCEPT and not last.audited:
            return None  # its settings have changed since: nothing that was not audited is on the tip
        reason, claimed = judged.reason, last.claimed_bpb
        if (
            judged.action is Action.DISCARD
            and claimed is not None
            and self._judge(claimed).action is Action.ACCEPT
        ):
            added = last.val_bpb - claimed
            reason = f"its claim would be accepted, but the audit is inconclusive and adds {added:.4f} bpb"
        return Ruling(
            verdict=ACTIONS[judged.action],
            reason=reason,
            val_bpb=last.val_bpb,
            delta_bpb=judged.effect_bpb,
            sigma_bpb=judged.sigma_bpb,
            figures=history.figures(judged, (last,), history.under_seed(self.parent, self.seed)),
        )

    def _judge(self, bpb: float) -> Judgement:
        return exploration.judge(self.rule, self.belief, self.tip, bpb, self.change)

    def _boundary(self) -> float | None:
        level = self.tip.level.mean
        return early_stopping.promising_boundary(
            lambda delta: self._judge(level + delta).action is Action.ACCEPT, self.belief.sigma_bpb
        )
