"""The certificate of a tip: an experiment that compares it with the champion, in pairs under fresh seeds.

The seeds have chosen nothing, every trial is audited, and tip and champion take turns to go first, so that neither
luck nor drift makes a champion. Only a certificate advances the champion's branch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from runner import edits
from runner.campaign.backstop import Bug, guarded
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import program_files
from runner.campaign.case import failure, last_settled, score_limit
from runner.campaign.placement import as_diff
from runner.campaign.promotion import point_tip
from runner.decision import certificate, history, tip
from runner.decision.keep_rule import SIMPLIFICATION, Action, Belief, Judgement
from runner.decision.tip import TipRule
from runner.records import AuditPolicy, Experiment, Outcome, Proposal, Ruling, Trial, Verdict
from runner.storage.rows import Refused
from runner.untrusted import one_line

PROPOSER = CATEGORY = "certificate"
LINE_CHARACTERS = 100
"""Of each hypothesis."""
ACTIONS = {Action.KEEP: Verdict.KEEP, Action.DISCARD: Verdict.DISCARD, Action.UNCLEAR: Verdict.UNCLEAR}


def is_due(campaign: Campaign, trials_left: float) -> bool:
    """Whether the tip is to be certified before the next idea.

    Args:
        trials_left: for which there is time.
    """
    known, sigma = campaign.memory.tip, campaign.memory.belief().sigma_bpb
    if known is None or not known.edits or not known.trials:  # nothing is new since the last certificate
        return False
    rule = history.rule(campaign.config)
    worth, trials = max(-known.worth_bpb, 0.0), float(known.trials)
    due = tip.certificate_due(rule, worth_bpb=-worth, trials=trials, left=trials_left, sigma_bpb=sigma)  # type: ignore[arg-type]
    simpler = all(campaign.experiments[number].category == SIMPLIFICATION for number in known.edits)
    return bool(due) or (simpler and trials_left <= rule.last_trials)


def open_certificate(campaign: Campaign) -> Experiment:
    """Record the certificate of the present tip."""
    known = campaign.memory.tip
    assert known is not None and known.edits
    pieces = [campaign.experiments[number] for number in known.edits]
    ideas = "; ".join(f"#{one.number} {one_line(one.hypothesis, LINE_CHARACTERS)}" for one in pieces)
    single = pieces[0].hypothesis if len(pieces) == 1 else f"{len(pieces)} edits: {ideas}"
    proposal = Proposal(hypothesis=single, edits=(), proposer=PROPOSER, category=CATEGORY, certifies=known.edits)

    def difference() -> tuple[Refused | None, str]:
        before, after = program_files(campaign, campaign.champion), program_files(campaign, campaign.tip)
        return as_diff(before, after, campaign.controller.sealed_text)

    made = guarded("comparing tip and champion", difference, campaign=campaign.tag)
    refused, diff = (Refused(reason=made.reason), "") if isinstance(made, Bug) else made
    opened = campaign.open(proposal, diff=diff, parent=campaign.champion.number, refused=refused)
    if opened.verdict is not None:  # refused: the tip is rolled back
        point_tip(campaign)
    return opened


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A tip and its champion; see `runner.campaign.case.Case`."""

    experiment: Experiment
    champion: Experiment
    rule: TipRule
    belief: Belief
    seeds: tuple[int, ...]
    simpler: bool  # whether it only simplifies
    score_limit_seconds: float | None
    early_stop: None = None  # every trial counts

    @classmethod
    def open(cls, campaign: Campaign, experiment: Experiment) -> Certificate:
        """The case of an open certificate. The campaign's belief is that of the moment when it was opened."""
        assert experiment.champion is not None and campaign.memory.tip is not None
        past, config, known = campaign.experiments, campaign.config, campaign.memory.tip
        rule = history.rule(config)
        champion = past[experiment.champion]
        fewer = edits.count_logic(program_files(campaign, campaign.tip)) < edits.count_logic(
            program_files(campaign, champion)
        )
        return cls(
            experiment=experiment,
            champion=champion,
            rule=rule,
            belief=campaign.memory.belief(experiment.opened_seq),
            seeds=tuple(campaign.seed(experiment.number, index) for index in range(rule.max_pairs)),
            simpler=fewer and all(past[number].category == SIMPLIFICATION for number in known.edits),
            score_limit_seconds=score_limit(past[history.BASELINE], config.train_seconds),
        )

    def refreshed(self, campaign: Campaign) -> Certificate:
        """The same after another trial."""
        return replace(
            self,
            experiment=campaign.experiments[self.experiment.number],
            champion=campaign.experiments[self.champion.number],
        )

    @property
    def pairs(self) -> tuple[history.Pair, ...]:
        """The pairs that are complete."""
        return history.pairs_of(self.experiment, self.champion)

    @property
    def seed(self) -> int:
        """Of the open pair."""
        return self.seeds[len(self.pairs)]

    @property
    def champion_next(self) -> Experiment | None:
        """The champion, when it is its turn: tip and champion take turns to go first."""
        measured = any(one.seed == self.seed for one in history.scored(self.experiment.trials))
        waits = any(one.seed == self.seed for one in self._of_champion)
        return self.champion if measured or (len(self.pairs) % 2 == 1 and not waits) else None

    @property
    def state(self) -> str | None:
        """The standing of the pairs so far."""
        return self._judged.reason if self.pairs else "its first pair is open" if self.experiment.trials else None

    def policy(self, claimed_bpb: float) -> AuditPolicy:
        """Audit all; seal both sides of the first pairs, whose spread gives a standard error."""
        sealed = len(self.pairs) < self.rule.min_pairs
        return AuditPolicy(audit=True, seal_below_bpb=float("inf") if sealed else None)

    def verdict(self, last: Trial | None = None) -> Ruling | None:
        """The verdict, once there are pairs enough."""
        own = last_settled(self.experiment.trials)
        other = next((one for one in self._of_champion if one.outcome is not Outcome.SCORED), None)
        if last is not None or (own is not None and own.outcome is not Outcome.SCORED):
            ended = last or own
            assert ended is not None
            return failure(ended, self.belief.sigma_bpb)
        if other is not None:
            reason = f"the champion, experiment {self.champion.number}, failed when measured again: {other.reason}"
            return Ruling(verdict=Verdict.INFRA, reason=reason, sigma_bpb=self.belief.sigma_bpb)
        if not self.pairs or self._is_half_open:
            return None
        judged = self._judged
        if judged.action is Action.TRY_AGAIN:
            return None
        trials = tuple(pair.tip for pair in self.pairs)
        of_champion = tuple(pair.champion for pair in self.pairs)
        return Ruling(
            verdict=ACTIONS[judged.action],
            reason=judged.reason,
            val_bpb=fmean(history.scores(trials)),
            delta_bpb=judged.delta_bpb,
            sigma_bpb=judged.sigma_bpb,
            figures=history.figures(judged, trials, of_champion),
        )

    @property
    def _of_champion(self) -> tuple[Trial, ...]:
        """Trials of the champion under the seeds of this certificate that need no repetition."""
        return tuple(
            one
            for one in self.champion.control_trials
            if one.seed in self.seeds
            and one.opened_seq > self.experiment.opened_seq
            and one.outcome not in (Outcome.LOST, Outcome.CONTENDED)
        )

    @property
    def _is_half_open(self) -> bool:
        """Whether one side of a pair is still to be measured."""
        return len(history.scored(self.experiment.trials)) != len(self._of_champion)

    @property
    def _judged(self) -> Judgement:
        return certificate.judge(
            self.rule,
            self.belief,
            [(pair.tip.val_bpb or 0.0, pair.champion.val_bpb or 0.0) for pair in self.pairs],
            simpler=self.simpler,
        )
