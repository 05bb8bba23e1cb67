"""The night: open or resume a campaign, loop over experiments, stop when a budget or a person says so."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import structlog

from runner import edits
from runner.campaign.budget import budget_reason
from runner.campaign.champion import run_control
from runner.campaign.experiment import run_baseline, run_candidate
from runner.campaign.ideas import IdeaQueue, read_program
from runner.campaign.recovery import reconcile
from runner.decision import evidence
from runner.decision.keep_rule import LAST_RUNS
from runner.decision.lineage import champion
from runner.errors import BaselineError, EngineError, ProposerError, RepositoryError
from runner.evaluation import smoke_test
from runner.evaluation.trial import Laboratory, refuse_other_conditions
from runner.proposers import Proposer
from runner.records import Experiment, NoProposal, Proposal, Verdict
from runner.sandbox.engine_outage import await_engine
from runner.storage.ledger import Campaign

log = structlog.get_logger()

EMPTY_PAUSES_SECONDS = (0.0, 10.0, 60.0, 300.0, 300.0)
"""Waits between conversations without a proposal. An API that is away is asked as long as the night lasts, at the
last of these paces; a model that only declines ends it."""
STOPPED = "stopped by hand"
MAX_QUARANTINED = 5
"""Experiments in a row that our own infrastructure failed while the engine answered, after which the campaign
ends. Each took two equal failures: one bad idea, or one bad minute, does not end a night, and a machine on which
nothing runs any more does not use up many ideas, which may have cost money."""


@dataclass
class StopSwitch:
    """Ctrl-C once: finish this run and stop. Twice, or SIGTERM or SIGHUP: kill now, leave nothing."""

    requested: bool = False
    _killed: bool = False

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until somebody asks to stop."""
        give_up = time.monotonic() + seconds
        while not self.requested and (left := give_up - time.monotonic()) > 0:
            time.sleep(min(left, 0.5))

    @contextmanager
    def installed(self, announce: Callable[[str], None]) -> Iterator[StopSwitch]:
        """Own the signals while the campaign runs."""

        def on_signal(number: int, _: FrameType | None) -> None:
            if self._killed:
                return  # already leaving: nothing may interrupt the clean-up
            if number == signal.SIGINT and not self.requested:
                self.requested = True
                announce("finishing this run, then stopping; Ctrl-C again kills it now")
                return
            self.requested = self._killed = True
            raise KeyboardInterrupt

        signals = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants us to live on
            signals.append(signal.SIGHUP)
        before = {number: signal.signal(number, on_signal) for number in signals}
        try:
            yield self
        finally:
            for number, handler in before.items():
                # A killed one is on its way out: until the process is gone, nothing interrupts that.
                signal.signal(number, signal.SIG_IGN if self._killed else handler)


def open_campaign(lab: Laboratory) -> Campaign:
    """The campaign of this tag: a new one from HEAD, or the existing one, reconciled with git.

    Raises:
        ConfigError: it exists under other conditions, so that scores would not be comparable.
        RepositoryError: HEAD cannot start one, somebody moved its branch, or git lost what cannot be made again.
    """
    tag = lab.config.tag
    lab.repository.refuse_checked_out(lab.branch)
    campaign = lab.ledger.campaign(tag)
    if campaign is None:
        base = lab.repository.check_ready()
        refusal = edits.check_tree(lab.repository.read_workload(base))
        if refusal is not None:
            raise RepositoryError(
                f"workload/ of {base[:10]} cannot start a campaign: {refusal.reason}", "mend it and commit"
            )
        read_program(lab)
        if lab.repository.branch_head(lab.branch) is not None:
            raise RepositoryError(
                f"the branch {lab.branch} exists, but the ledger knows nothing of it",
                f"choose another name (--tag), or: git branch -D {lab.branch}",
            )
        campaign = lab.ledger.create_campaign(tag=tag, base_commit=base, conditions=lab.conditions)
        log.info("campaign_started", campaign=tag, base=base, **lab.conditions)
        return campaign
    refuse_other_conditions(lab, campaign)
    lost = lab.ledger.close_lost_runs(tag)
    reconcile(lab, campaign)
    log.info("campaign_resumed", campaign=tag, lost_runs=lost)
    return campaign


def ensure_baseline(lab: Laboratory, campaign: Campaign, stop: StopSwitch) -> Experiment:
    """Measure the unmodified workload, unless that is done.

    Raises:
        BaselineError: it does not run; the campaign is forgotten, so that a mended one can start.
        EngineError: the infrastructure failed; the runs that were done count at the next start.
        Interrupted: a person asked to stop between two of its runs.
    """
    experiments = lab.ledger.experiments(campaign.tag)
    if experiments and experiments[0].verdict is not None:
        return experiments[0]
    if not experiments:
        proposal = Proposal(hypothesis="baseline", edits=(), proposer="baseline")
        lab.ledger.open_experiment(campaign.tag, proposal, diff="", champion=None)
        experiments = lab.ledger.experiments(campaign.tag)
    try:
        baseline = run_baseline(lab, campaign, experiments[0], stopping=lambda: stop.requested)
    except BaselineError:
        lab.ledger.delete_campaign(campaign.tag)
        raise
    lab.observer.closed(baseline, baseline.val_bpb)
    return baseline


def run(lab: Laboratory, proposer: Proposer, stop: StopSwitch, *, more: int | None = None) -> str:
    """Run experiments until a budget ends; returns why it ended.

    A campaign that was interrupted before it reached its target goes on to that target; one that
    had reached it gets `config.experiments` more.

    Args:
        more: run this many more experiments and leave the target as it is; they are all the proposer's, no stacks.
    """
    lab = replace(lab, stopping=lambda: stop.requested)
    config, ledger = lab.config, lab.ledger
    ends_at = time.monotonic() + config.hours * 3600
    campaign = open_campaign(lab)
    tag = campaign.tag
    ensure_baseline(lab, campaign, stop)
    done = _count(ledger.experiments(tag))
    if more is not None:
        interrupted = ledger.experiments(tag)[-1].verdict is None
        target = done + more + interrupted  # what was interrupted is finished first
    else:
        wanted = done + config.experiments
        target = min(wanted, campaign.target) if campaign.target > done else wanted
        ledger.set_target(tag, target)
    lab.observer.begin(tag, done, target, ends_at)
    budget_usd = 0 if more is not None else config.budget_usd
    check = smoke_test.check if config.smoke_seconds else None
    stacks = more is None
    with closing(IdeaQueue(lab, proposer, campaign, budget_usd, check, stacks)) as desk:
        reason = _loop(lab, desk, stop, target, ends_at)
    log.info("campaign_ended", campaign=tag, reason=reason)
    return reason


def _loop(lab: Laboratory, desk: IdeaQueue, stop: StopSwitch, target: int, ends_at: float) -> str:
    """Experiment after experiment; returns why it ended."""
    ledger, tag, budget_usd = lab.ledger, desk.campaign.tag, desk.budget_usd
    empty = infra = 0
    while True:
        experiments = ledger.experiments(tag)
        open_one = experiments[-1] if experiments[-1].verdict is None else None
        if open_one is None:
            reason = _end_reason(lab, stop, _count(experiments), target, ends_at, budget_usd)
            if reason is not None:
                return reason
            await_engine(lab.engine, note=lab.observer.note, stopping=lab.stopping)  # before an idea is paid for
            best = champion(experiments)
            if best is not None and evidence.control_due(experiments, best, lab.config.control_interval):
                run_control(lab, desk.campaign, best)
                if stop.requested:
                    continue
            ending = _is_ending(lab, _count(experiments), target, ends_at)
            stacked = desk.propose_stack(ending=ending)
            number = desk.propose() if stacked is None else stacked
            if isinstance(number, NoProposal):
                empty += 1
                lab.observer.note(f"no proposal: {number.reason}")
                if number.exhausted:
                    return number.reason
                if stop.requested or budget_reason(ledger, tag, budget_usd) is not None:
                    continue  # which ends the night
                if empty > len(EMPTY_PAUSES_SECONDS):
                    if not number.unfinished:
                        raise ProposerError(
                            f"{empty} conversations in a row gave no proposal; the last: {number.reason}",
                            "autoresearch doctor, then start again: nothing is lost",
                        )
                    desk.start_afresh()
                stop.wait(EMPTY_PAUSES_SECONDS[min(empty, len(EMPTY_PAUSES_SECONDS)) - 1])
                continue
            empty = 0
            open_one = ledger.experiment(tag, number)
            assert open_one is not None
        if open_one.verdict is None:
            if _leaves_time(lab, _count(experiments) + 1, target, ends_at):
                desk.prefetch()
            closed = run_candidate(lab, desk.campaign, open_one)
            if closed.verdict is None:
                return STOPPED
        else:
            closed = open_one
        best = champion(ledger.experiments(tag))
        lab.observer.closed(closed, None if best is None else best.val_bpb)
        infra = infra + 1 if closed.verdict is Verdict.INFRA else 0
        if infra >= MAX_QUARANTINED:
            raise EngineError(
                f"{infra} experiments in a row quarantined while the engine answers; the last: {closed.reason}",
                "autoresearch doctor, then start again: nothing is lost",
            )


def _leaves_time(lab: Laboratory, number: int, target: int, ends_at: float) -> bool:
    """Whether another experiment will follow the one that is about to run, as far as anybody can tell."""
    return number < target and not lab.stopping() and time.monotonic() + lab.config.train_seconds < ends_at


def _is_ending(lab: Laboratory, done: int, target: int, ends_at: float) -> bool:
    """Whether only few more runs will follow; an experiment takes about two, controls counted."""
    left_seconds = ends_at - time.monotonic()
    return 2 * (target - done) <= LAST_RUNS or left_seconds <= LAST_RUNS * lab.config.train_seconds


def _count(experiments: tuple[Experiment, ...]) -> int:
    """Closed experiments, the baseline not counted."""
    return sum(one.number > 0 and one.verdict is not None for one in experiments)


def _end_reason(
    lab: Laboratory, stop: StopSwitch, done: int, target: int, ends_at: float, budget_usd: float
) -> str | None:
    if stop.requested:
        return STOPPED
    if done >= target:
        return f"{target} of {target} experiments done"
    if time.monotonic() >= ends_at:
        return f"{lab.config.hours:g} hours are over"
    return budget_reason(lab.ledger, lab.config.tag, budget_usd)
