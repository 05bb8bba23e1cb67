"""The night: open or resume a campaign, loop over experiments, stop when a budget or a person says so."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass

import structlog

from runner import edits
from runner.campaign import certificate
from runner.campaign.baseline import ensure_baseline
from runner.campaign.budget import budget_reason
from runner.campaign.campaign import Campaign, Controller
from runner.campaign.experiment import run_experiment
from runner.campaign.ideas import IdeaQueue, read_program
from runner.campaign.machine_doubt import refuse_broken_machine
from runner.campaign.recovery import reconcile
from runner.campaign.stop_switch import StopSwitch
from runner.campaign.tip_control import run_control
from runner.decision import history
from runner.errors import EngineError, ProposerError, RepositoryError
from runner.evaluation import smoke_test
from runner.proposers import Proposer
from runner.records import Experiment, NoProposal, Verdict
from runner.sandbox.engine_outage import await_engine

log = structlog.get_logger()

EMPTY_PAUSES_SECONDS = (0.0, 10.0, 60.0, 300.0, 300.0)
"""Waits between conversations without a proposal. An API that is away is asked as long as the night lasts, at the
last of these paces; a model that only declines ends it."""
STOPPED = "stopped by hand"
MAX_CONTROLS = 3
"""Of the tip in a row: one that is far away is repeated, until two agree."""
MAX_QUARANTINED = 5
"""Experiments in a row that our own infrastructure failed while the engine answered, after which the campaign
ends. Each took two equal failures: one bad idea, or one bad minute, does not end a night, and a machine on which
nothing runs any more does not use up many ideas, which may have cost money."""


def open_campaign(controller: Controller) -> Campaign:
    """The campaign of this tag: a new one from HEAD, or the existing one, reconciled with git.

    One whose baseline failed is replaced by a new one.

    Raises:
        ConfigError: it exists under other conditions, so that scores would not be comparable.
        RepositoryError: HEAD cannot start one, its branch was moved, or git lost what cannot be made again.
    """
    tag, ledger, repository = controller.config.tag, controller.ledger, controller.repository
    for branch in (controller.branch, controller.tip_branch):
        repository.refuse_checked_out(branch)
    row = ledger.campaign(tag)
    failed = row is not None and history.baseline_failed(
        ledger.experiments(tag, history.BASELINE, history.BASELINE)
    )
    if row is not None and not failed:
        controller.refuse_other_conditions(row)
        lost = ledger.close_lost_trials(tag)
        campaign = Campaign(controller, row)
        reconcile(campaign)
        log.info("campaign_resumed", campaign=tag, lost_trials=lost)
        return campaign
    base = repository.check_ready()
    refusal = edits.check_tree(repository.read_workload(base))
    if refusal is not None:
        raise RepositoryError(
            f"workload/ of {base[:10]} cannot start a campaign: {refusal.reason}",
            "correct workload/ and commit it",
        )
    read_program(repository)
    for branch in (controller.branch, controller.tip_branch):
        if repository.branch_head(branch) is not None:
            raise RepositoryError(
                f"the branch {branch} exists, but the ledger has no campaign of that name",
                f"choose another name (--tag), or: git branch -D {branch}",
            )
    if failed:
        ledger.delete_campaign(tag)
    row = ledger.create_campaign(tag=tag, base_commit=base, conditions=controller.conditions)
    log.info("campaign_started", campaign=tag, base=base, **controller.conditions)
    return Campaign(controller, row)


def run(controller: Controller, proposer: Proposer, stop: StopSwitch, *, more: int | None = None) -> str:
    """Run experiments until a budget ends; return why it ended.

    A campaign that was interrupted before it reached its target continues to that target; one that had reached it
    gets `config.experiments` more.

    Args:
        more: run this many more experiments and leave the target as it is; nothing is certified.
    """
    controller = controller.listening(lambda: stop.requested)
    config = controller.config
    ends_at = time.monotonic() + config.hours * 3600
    campaign = open_campaign(controller)
    ensure_baseline(campaign)
    done = campaign.num_done
    if more is not None:
        interrupted = campaign.open_experiment is not None and campaign.open_experiment.is_idea
        target = done + more + interrupted  # an interrupted one is finished first
    else:
        wanted = done + config.experiments
        target = min(wanted, campaign.row.target) if campaign.row.target > done else wanted
        campaign.ledger.set_target(campaign.tag, target)
    campaign.observer.begin(campaign.tag, done, target, ends_at)
    ideas = IdeaQueue(
        campaign,
        proposer,
        budget_usd=0 if more is not None else config.budget_usd,
        check=smoke_test.check if config.smoke_seconds else None,
    )
    with closing(ideas):
        reason = _Loop(campaign, ideas, stop, target, ends_at, certifies=more is None).run()
    log.info("campaign_ended", campaign=campaign.tag, reason=reason)
    return reason


@dataclass
class _Loop:
    """Experiment after experiment."""

    campaign: Campaign
    ideas: IdeaQueue
    stop: StopSwitch
    target: int
    ends_at: float  # on the monotonic clock
    certifies: bool = True  # whether tips are certified
    exhausted: str | None = None  # why no idea comes any more
    empty: int = 0  # conversations without a proposal, in a row
    quarantined: int = 0  # experiments that ended as infra, in a row

    def run(self) -> str:
        """Go on until there is a reason to end; return it."""
        while True:
            following = self.campaign.open_experiment or self._next()
            if isinstance(following, str):
                return following
            if following is None:
                continue
            experiment = following
            self.campaign.observer.opened(experiment)
            if experiment.verdict is None:
                if self._leaves_time():
                    self.ideas.prefetch()
                experiment = run_experiment(self.campaign, experiment)
                if experiment.verdict is None:
                    return STOPPED
            self.campaign.observer.closed(experiment, self.campaign.champion.val_bpb)
            self._refuse_many_quarantined(experiment)

    def _next(self) -> Experiment | str | None:
        """The next experiment; a reason to end; or None: look again."""
        campaign = self.campaign
        refuse_broken_machine(campaign)
        if (reason := self._time_reason()) is not None:
            return reason
        no_idea = self._no_idea_reason()
        if self._certificate_due(last=no_idea is not None):
            self._await_engine()
            return certificate.open_certificate(campaign)
        return no_idea or self._idea()

    def _idea(self) -> Experiment | str | None:
        """The experiment of the next idea; a reason to end; or None: look again."""
        campaign = self.campaign
        self._await_engine()  # before an idea is paid for
        for _ in range(MAX_CONTROLS):
            if not campaign.memory.control_due(campaign.config.control_interval):
                break
            run_control(campaign)
            if self.stop.requested:
                return None
        following = self.ideas.next_idea()
        if isinstance(following, NoProposal):
            return self._without_idea(following)
        self.empty = 0
        return following

    def _without_idea(self, answer: NoProposal) -> str | None:
        """Pause after a conversation without a proposal, or end the night."""
        if answer.exhausted:
            self.exhausted = answer.reason
            return None
        self.empty += 1
        self.campaign.observer.note(f"no proposal: {answer.reason}")
        if self.stop.requested or self._budget_reason() is not None:
            return None  # which ends the night
        if self.empty > len(EMPTY_PAUSES_SECONDS):
            if not answer.unfinished:
                raise ProposerError(
                    f"{self.empty} conversations in a row ended without a proposal; the last: {answer.reason}",
                    "autoresearch doctor, then start again: nothing is lost",
                )
            self.ideas.start_afresh()
        self.stop.wait(EMPTY_PAUSES_SECONDS[min(self.empty, len(EMPTY_PAUSES_SECONDS)) - 1])
        return None

    def _refuse_many_quarantined(self, closed: Experiment) -> None:
        self.quarantined = self.quarantined + 1 if closed.verdict is Verdict.INFRA else 0
        if self.quarantined >= MAX_QUARANTINED:
            raise EngineError(
                f"{self.quarantined} experiments in a row quarantined while the engine answers; "
                f"the last: {closed.reason}",
                "autoresearch doctor, then start again: nothing is lost",
            )

    def _leaves_time(self) -> bool:
        """Whether another experiment will probably follow the one that is about to run."""
        in_time = time.monotonic() + self.campaign.config.train_seconds < self.ends_at
        return self.campaign.num_done + 1 < self.target and not self.campaign.stopping() and in_time

    def _await_engine(self) -> None:
        campaign = self.campaign
        await_engine(campaign.evaluator.engine, note=campaign.observer.note, stopping=campaign.stopping)

    def _certificate_due(self, *, last: bool) -> bool:
        """Whether the tip is certified now.

        Args:
            last: no idea follows any more: what is on the tip is certified, or waits for the next start.
        """
        left = 0.0 if last else (self.ends_at - time.monotonic()) / self.campaign.config.train_seconds
        return self.certifies and certificate.is_due(self.campaign, left)

    def _budget_reason(self) -> str | None:
        return budget_reason(self.campaign.ledger.conversations, self.campaign.tag, self.ideas.budget_usd)

    def _no_idea_reason(self) -> str | None:
        """The reason why no other idea is tried."""
        if self.campaign.num_done >= self.target:
            return f"{self.target} of {self.target} experiments done"
        return self.exhausted or self._budget_reason()

    def _time_reason(self) -> str | None:
        """The reason why nothing more is measured."""
        if self.stop.requested:
            return STOPPED
        if time.monotonic() >= self.ends_at:
            return f"{self.campaign.config.hours:g} hours are over"
        return None
