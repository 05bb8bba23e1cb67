"""One experiment through every step: stage, build, measure, audit, decide, keep."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from runner import claims as claims_store
from runner import decision, edits, image
from runner.errors import BaselineError, EngineError, Interrupted, RepositoryError
from runner.laboratory import (
    Examined,
    Failure,
    Laboratory,
    LedgerRuns,
    Measurement,
    Outcome,
    audit_failure,
    measure,
    too_slow,
)
from runner.ledger import Campaign
from runner.lineage import audited_runs, champion_claims
from runner.records import Experiment, Files, Patch, Phase, RunEnd, RunRecord, Verdict
from runner.repo import Staged, write_again
from runner.report.message import kept_message, tried_message
from runner.report.text import clean

log = structlog.get_logger()

SIMPLIFICATION = "simplification"
"""The category that says so."""


def run_seed(campaign: Campaign, number: int, index: int) -> int:
    """The seed of run `index` of an experiment: issued by the host, the same after a crash."""
    digest = hashlib.sha256(f"{campaign.seed}:{number}:{index}".encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


def score_limit(baseline: Experiment, train_seconds: float) -> float | None:
    """How long scoring may take: twice as long as the baseline's slowest, and a little for a noisy machine.

    A program that trains on while it is scored would have more time than others. One that is as much bigger
    or slower as the limit allows has paid for that in its training.
    """
    taken = [run.wall_seconds for run in baseline.runs if run.phase is Phase.SCORE and run.val_bpb is not None]
    slowest = max((seconds for seconds in taken if seconds is not None), default=None)
    return None if slowest is None else 2 * slowest + max(5.0, 0.05 * train_seconds)


def tried_ref(tag: str, number: int) -> str:
    """The ref under which a candidate is kept for ever, whatever its verdict."""
    return f"refs/autoresearch/tried/{tag}/{number:04d}"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The keep rule of one candidate, with the figures that it rests on."""

    champion_bpb: float
    sigma_bpb: float
    keep_sigmas: float
    lines_removed: int  # of logic, by a simplification
    audit_discards: float
    score_limit_seconds: float | None

    def decide(self, bpb: float) -> decision.Decision:
        """Keep or discard."""
        return decision.judge_candidate(
            candidate_bpb=bpb,
            champion_bpb=self.champion_bpb,
            sigma_bpb=self.sigma_bpb,
            keep_sigmas=self.keep_sigmas,
            lines_removed=self.lines_removed,
        )

    def would_keep(self, bpb: float) -> bool:
        """Whether this score is a keep."""
        return self.decide(bpb).verdict is Verdict.KEEP

    def wants_audit(self, claimed_bpb: float) -> bool:
        """A would-be keep always; of the others a few, which no candidate can foresee."""
        return self.would_keep(claimed_bpb) or random.SystemRandom().random() < self.audit_discards

    def wants_seal(self, audited_bpb: float) -> bool:
        """What is kept in the end."""
        return self.would_keep(audited_bpb)


def candidate_files(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> Files:
    """The tree of an experiment, rebuilt from the ledger: its champion's files and its diff."""
    if experiment.champion is None:
        return lab.repository.read_workload(campaign.base_commit)
    parent = lab.ledger.experiment(campaign.tag, experiment.champion)
    if parent is None or parent.kept_commit is None:
        raise RepositoryError(f"experiment {experiment.number} has no champion commit in the ledger")
    files = lab.repository.read_workload(parent.kept_commit)
    applied = edits.apply(files, (Patch(text=experiment.diff),))
    if isinstance(applied, edits.Refusal):
        raise RepositoryError(
            f"the diff of experiment {experiment.number} does not apply to {parent.kept_commit}: {applied.reason}"
        )
    return applied


def commit_candidate(lab: Laboratory, campaign: Campaign, experiment: Experiment, files: Files) -> Staged:
    """Commit a candidate's files under its ref; repeating it gives the same commit."""
    parent = campaign.base_commit
    if experiment.champion is not None:
        before = lab.ledger.experiment(campaign.tag, experiment.champion)
        assert before is not None and before.kept_commit is not None
        parent = before.kept_commit
    assert experiment.started_at is not None
    return lab.repository.stage(
        parent=parent,
        files=files,
        message=tried_message(experiment),
        ref=tried_ref(campaign.tag, experiment.number),
        when=experiment.started_at,
    )


def stage(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> image.Image:
    """Commit the candidate and build its image.

    Raises:
        ImageError: the build failed.
    """
    files = candidate_files(lab, campaign, experiment)
    commit, tree = commit_candidate(lab, campaign, experiment, files)
    lab.observer.phase(experiment.number, "build", None)
    built = image.build_candidate(
        lab.engine.client,
        base_id=lab.base_image,
        files=files,
        labels={
            **lab.owner(experiment.number).facts(),
            "commit": commit,
            "tree": tree,
            "base": lab.base_image,
        },
    )
    lab.ledger.set_candidate(
        campaign.tag, experiment.number, commit=commit, image_id=built.id, layer_digest=built.layer_digest
    )
    log.info("image_built", experiment=experiment.number, image=built.id, layer=built.layer_digest)
    return built


def builder(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> Callable[[], str]:
    """Stages a candidate when its image is first wanted, and again when somebody has removed it since."""
    built: image.Image | None = None

    def present() -> str:
        nonlocal built
        if built is None or not image.exists(lab.engine.client, built.id):
            built = stage(lab, campaign, experiment)
        return built.id

    return present


def run_baseline(
    lab: Laboratory, campaign: Campaign, experiment: Experiment, *, stopping: Callable[[], bool]
) -> Experiment:
    """Measure the first champion until it has all its runs; those done before a crash count.

    Raises:
        BaselineError: the unmodified workload does not run.
        EngineError: the infrastructure failed.
        Interrupted: `stopping()` became true between two runs.
    """
    bound = log.bind(campaign=campaign.tag, experiment=experiment.number)
    build = builder(lab, campaign, experiment)
    runs = LedgerRuns(lab.ledger, campaign.tag, experiment.number)
    done = _finished_baseline_runs(lab, campaign, experiment)
    scores = [run.val_bpb for run in done if run.val_bpb is not None]
    claims = done[-1].claims_sha256 if done else None
    for index in range(len(scores), lab.config.baseline_runs):
        if stopping():
            raise Interrupted("stopped between two runs of the baseline", "the same command goes on")
        lab.observer.note(f"baseline: run {index + 1} of {lab.config.baseline_runs}")
        outcome = measure(
            lab,
            build=build,
            number=experiment.number,
            seed=run_seed(campaign, experiment.number, index),
            runs=runs,
            examiner=Examined(audit=True, seal=True),
            champion=claims,
        )
        if isinstance(outcome, Failure) and outcome.verdict is Verdict.INFRA:
            raise EngineError(f"the baseline could not be measured: {outcome.reason}", "autoresearch doctor")
        if isinstance(outcome, Failure):
            current = lab.ledger.experiment(campaign.tag, experiment.number)
            tail = "" if current is None else clean(current.log_tail, 20)
            if outcome.verdict is Verdict.INVALID:
                raise BaselineError(
                    f"the unmodified workload cannot be believed: {outcome.reason}",
                    "make it causal and repeatable; if it is, autoresearch calibrate measures what is honest here",
                )
            raise BaselineError(
                f"the unmodified workload got no score: {outcome.reason}" + (f"\n{tail}" if tail else ""),
                "make workload/ run first; the lines above are the end of its log",
            )
        scores.append(outcome.val_bpb)
        claims = outcome.claims_sha256
    mean = sum(scores) / len(scores)
    sigma = decision.pooled_sigma(scores, lab.config.noise_prior_bpb)
    lab.ledger.close_experiment(
        campaign.tag,
        experiment.number,
        verdict=Verdict.KEEP,
        reason=f"baseline: mean of {len(scores)} runs; noise {sigma:.4f} bpb",
        val_bpb=mean,
        sigma_bpb=sigma,
    )
    bound.info("verdict_reached", verdict=Verdict.KEEP, val_bpb=mean, sigma_bpb=sigma)
    return finish_keep(lab, campaign, experiment.number)


def _finished_baseline_runs(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> list[RunRecord]:
    """The audited runs that an earlier start brought to their end, in the order of their seeds.

    One that was killed between its audit and its seal is not among them, nor a last one whose claims were not
    saved: later audits would have nothing to compare with.
    """
    audited = {run.seed: run for run in audited_runs(experiment)}
    done: list[RunRecord] = []
    for index in range(lab.config.baseline_runs):
        seed = run_seed(campaign, experiment.number, index)
        if seed not in audited or not lab.ledger.is_sealed(campaign.tag, experiment.number, seed):
            break
        done.append(audited[seed])
    if done and claims_store.load(lab.claims, done[-1].claims_sha256 or "") is None:
        done.pop()
    return done


def run_candidate(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> Experiment:
    """Take one open experiment to its verdict; what a killed controller had begun is done again."""
    bound = log.bind(campaign=campaign.tag, experiment=experiment.number)
    history = lab.ledger.experiments(campaign.tag)
    best = next(one for one in history if one.number == experiment.champion)
    sigma = history[0].sigma_bpb
    assert best.val_bpb is not None and sigma is not None
    rule = Rule(
        champion_bpb=best.val_bpb,
        sigma_bpb=sigma,
        keep_sigmas=lab.config.keep_sigmas,
        lines_removed=_lines_removed(lab, campaign, experiment, best),
        audit_discards=lab.config.audit_discards,
        score_limit_seconds=score_limit(history[0], lab.config.train_seconds),
    )
    outcome = _recorded_outcome(lab, experiment, rule)
    if outcome is None:
        outcome = measure(
            lab,
            build=builder(lab, campaign, experiment),
            number=experiment.number,
            seed=run_seed(campaign, experiment.number, 0),
            runs=LedgerRuns(lab.ledger, campaign.tag, experiment.number),
            examiner=rule,
            champion=champion_claims(best),
        )
    if isinstance(outcome, Failure):
        lab.ledger.close_experiment(
            campaign.tag, experiment.number, verdict=outcome.verdict, reason=outcome.reason, sigma_bpb=sigma
        )
        bound.info("verdict_reached", verdict=outcome.verdict, reason=outcome.reason)
        return _closed(lab, campaign, experiment.number)
    return _judge(lab, campaign, experiment, rule, outcome)


def _lines_removed(lab: Laboratory, campaign: Campaign, experiment: Experiment, best: Experiment) -> int:
    """Of logic, by what was proposed as a simplification; 0 for other experiments."""
    if experiment.category != SIMPLIFICATION or best.kept_commit is None:
        return 0
    before = edits.count_logic(lab.repository.read_workload(best.kept_commit))
    return max(0, before - edits.count_logic(candidate_files(lab, campaign, experiment)))


def _recorded_outcome(lab: Laboratory, experiment: Experiment, rule: Rule) -> Outcome | None:
    """What the runs before a crash already settle: to measure again would be a second draw.

    A would-be keep whose audit, saved claims or sealed score is missing is measured again: its checkpoint is gone.
    """
    last = next((run for run in reversed(experiment.runs) if run.phase in (Phase.SCORE, Phase.AUDIT)), None)
    if last is None or last.end in (RunEnd.LOST, RunEnd.STARTUP):
        return None
    if last.phase is Phase.AUDIT and (failure := audit_failure(last)) is not None:
        return failure
    if last.val_bpb is None or last.claims_sha256 is None:
        return None
    if (
        last.phase is Phase.SCORE
        and (failure := too_slow(last, rule.score_limit_seconds, lab.config.cpus)) is not None
    ):
        return failure
    saved = (
        last.phase is Phase.AUDIT
        and claims_store.load(lab.claims, last.claims_sha256) is not None
        and lab.ledger.is_sealed(lab.config.tag, experiment.number, last.seed)
    )
    if rule.would_keep(last.val_bpb) and not saved:
        return None
    return Measurement(val_bpb=last.val_bpb, claims_sha256=last.claims_sha256, audit=last.audit)


def _judge(
    lab: Laboratory, campaign: Campaign, experiment: Experiment, rule: Rule, measured: Measurement
) -> Experiment:
    decided = rule.decide(measured.val_bpb)
    reason = decided.reason
    if decided.verdict is Verdict.DISCARD and measured.audit and rule.would_keep(measured.audit.claimed_bpb):
        added = measured.val_bpb - measured.audit.claimed_bpb
        reason = f"its claim would be a keep, but the audit is inconclusive and adds {added:.4f} bpb to it"
    lab.ledger.close_experiment(
        campaign.tag,
        experiment.number,
        verdict=decided.verdict,
        reason=reason,
        val_bpb=measured.val_bpb,
        delta_bpb=decided.delta_bpb,
        sigma_bpb=rule.sigma_bpb,
    )
    log.info(
        "verdict_reached",
        campaign=campaign.tag,
        experiment=experiment.number,
        verdict=decided.verdict,
        val_bpb=measured.val_bpb,
    )
    if decided.verdict is Verdict.KEEP:
        return finish_keep(lab, campaign, experiment.number)
    return _closed(lab, campaign, experiment.number)


def _closed(lab: Laboratory, campaign: Campaign, number: int) -> Experiment:
    closed = lab.ledger.experiment(campaign.tag, number)
    assert closed is not None
    return closed


def commit_keep(lab: Laboratory, experiment: Experiment, parent: str) -> str:
    """Make the commit of a kept candidate on its champion's; repeating it gives the same commit."""
    assert experiment.tried_commit is not None and experiment.ended_at is not None
    return lab.repository.make_commit(
        tree=lab.repository.resolve(f"{experiment.tried_commit}^{{tree}}"),
        parent=parent,
        message=kept_message(
            experiment,
            base_image=lab.conditions["base_image"],  # by its inputs: ids differ between builds
            data=lab.conditions["data"],
            evaluation=lab.conditions["evaluation"],
        ),
        when=experiment.ended_at,
    )


def finish_keep(lab: Laboratory, campaign: Campaign, number: int) -> Experiment:
    """Advance the branch to a kept experiment."""
    commit = write_again(lambda: _advance(lab, campaign, number))
    lab.ledger.set_kept(campaign.tag, number, commit)
    log.info("branch_advanced", experiment=number, commit=commit)
    return _closed(lab, campaign, number)


def _advance(lab: Laboratory, campaign: Campaign, number: int) -> str:
    experiments = lab.ledger.experiments(campaign.tag)
    experiment = experiments[number]
    if experiment.champion is None:
        parent, commit = None, campaign.base_commit
    else:
        parent = experiments[experiment.champion].kept_commit
        assert parent is not None
        commit = commit_keep(lab, experiment, parent)
    lab.repository.advance(lab.branch, commit, expected_old=parent)
    return commit
