"""One experiment through every step: stage, build, measure, decide, keep."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import structlog

from runner import decision, edits, image
from runner.errors import BaselineError, EngineError, ImageError, Interrupted, RepositoryError
from runner.laboratory import Failure, Laboratory, LedgerRuns, Outcome, measure
from runner.ledger import Campaign
from runner.records import Experiment, Files, Patch, Verdict
from runner.report.message import kept_message, tried_message
from runner.report.text import clean

log = structlog.get_logger()


def run_seed(campaign: Campaign, number: int, index: int) -> int:
    """The seed of run `index` of an experiment: issued by the host, the same after a crash."""
    digest = hashlib.sha256(f"{campaign.seed}:{number}:{index}".encode()).digest()
    return int.from_bytes(digest[:4]) & 0x7FFFFFFF


def tried_ref(tag: str, number: int) -> str:
    """The ref under which a candidate is kept for ever, whatever its verdict."""
    return f"refs/autoresearch/tried/{tag}/{number:04d}"


def champion(experiments: tuple[Experiment, ...]) -> Experiment | None:
    """The last kept experiment."""
    kept = [one for one in experiments if one.verdict is Verdict.KEEP]
    return kept[-1] if kept else None


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


def stage(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> image.Image:
    """Commit the candidate under its ref and build its image; repeating it gives the same commit.

    Raises:
        ImageError: the build failed.
    """
    files = candidate_files(lab, campaign, experiment)
    parent = campaign.base_commit
    if experiment.champion is not None:
        before = lab.ledger.experiment(campaign.tag, experiment.champion)
        assert before is not None and before.kept_commit is not None
        parent = before.kept_commit
    assert experiment.started_at is not None
    commit, tree = lab.repository.stage(
        parent=parent,
        files=files,
        message=tried_message(experiment),
        ref=tried_ref(campaign.tag, experiment.number),
        when=experiment.started_at,
    )
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
    built = stage(lab, campaign, experiment)
    runs = LedgerRuns(lab.ledger, campaign.tag, experiment.number)
    scores = [run.val_bpb for run in experiment.runs if run.val_bpb is not None]
    for index in range(len(scores), lab.config.baseline_runs):
        if stopping():
            raise Interrupted("stopped between two runs of the baseline", "the same command goes on")
        lab.observer.note(f"baseline: run {index + 1} of {lab.config.baseline_runs}")
        outcome = measure(
            lab,
            image_id=built.id,
            number=experiment.number,
            seed=run_seed(campaign, experiment.number, index),
            runs=runs,
        )
        if isinstance(outcome, Failure) and outcome.verdict is Verdict.INFRA:
            raise EngineError(f"the baseline could not be measured: {outcome.reason}", "autoresearch doctor")
        if isinstance(outcome, Failure):
            current = lab.ledger.experiment(campaign.tag, experiment.number)
            tail = "" if current is None else clean(current.log_tail, 20)
            raise BaselineError(
                f"the unmodified workload got no score: {outcome.reason}" + (f"\n{tail}" if tail else ""),
                "make workload/ run first; the lines above are the end of its log",
            )
        scores.append(outcome.val_bpb)
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


def run_candidate(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> Experiment:
    """Take one open experiment to its verdict; what a killed controller had begun is done again."""
    bound = log.bind(campaign=campaign.tag, experiment=experiment.number)
    history = lab.ledger.experiments(campaign.tag)
    best = next(one for one in history if one.number == experiment.champion)
    sigma = history[0].sigma_bpb
    assert best.val_bpb is not None and sigma is not None
    scored = next((run.val_bpb for run in experiment.runs if run.val_bpb is not None), None)
    if scored is not None:  # killed between score and verdict: a second score would be a second draw
        return _judge(lab, campaign, experiment, scored, best.val_bpb, sigma)
    outcome: Outcome
    try:
        built = stage(lab, campaign, experiment)
    except ImageError as error:
        outcome = Failure(verdict=Verdict.INFRA, reason=error.message)
    else:
        outcome = measure(
            lab,
            image_id=built.id,
            number=experiment.number,
            seed=run_seed(campaign, experiment.number, 0),
            runs=LedgerRuns(lab.ledger, campaign.tag, experiment.number),
        )
    if isinstance(outcome, Failure):
        lab.ledger.close_experiment(
            campaign.tag, experiment.number, verdict=outcome.verdict, reason=outcome.reason, sigma_bpb=sigma
        )
        bound.info("verdict_reached", verdict=outcome.verdict, reason=outcome.reason)
        return _closed(lab, campaign, experiment.number)
    return _judge(lab, campaign, experiment, outcome.val_bpb, best.val_bpb, sigma)


def _judge(
    lab: Laboratory,
    campaign: Campaign,
    experiment: Experiment,
    candidate_bpb: float,
    champion_bpb: float,
    sigma_bpb: float,
) -> Experiment:
    decided = decision.judge_candidate(
        candidate_bpb=candidate_bpb,
        champion_bpb=champion_bpb,
        sigma_bpb=sigma_bpb,
        keep_sigmas=lab.config.keep_sigmas,
    )
    lab.ledger.close_experiment(
        campaign.tag,
        experiment.number,
        verdict=decided.verdict,
        reason=decided.reason,
        val_bpb=candidate_bpb,
        delta_bpb=decided.delta_bpb,
        sigma_bpb=sigma_bpb,
    )
    log.info(
        "verdict_reached",
        campaign=campaign.tag,
        experiment=experiment.number,
        verdict=decided.verdict,
        val_bpb=candidate_bpb,
    )
    if decided.verdict is Verdict.KEEP:
        return finish_keep(lab, campaign, experiment.number)
    return _closed(lab, campaign, experiment.number)


def _closed(lab: Laboratory, campaign: Campaign, number: int) -> Experiment:
    closed = lab.ledger.experiment(campaign.tag, number)
    assert closed is not None
    return closed


def finish_keep(lab: Laboratory, campaign: Campaign, number: int) -> Experiment:
    """Advance the branch to a kept experiment; done again after a crash it gives the same commit."""
    experiments = lab.ledger.experiments(campaign.tag)
    experiment = experiments[number]
    assert experiment.tried_commit is not None and experiment.ended_at is not None
    if experiment.champion is None:
        parent, commit = None, campaign.base_commit
    else:
        parent = experiments[experiment.champion].kept_commit
        assert parent is not None
        commit = lab.repository.make_commit(
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
    lab.repository.advance(lab.branch, commit, expected_old=parent)
    lab.ledger.set_kept(campaign.tag, number, commit)
    log.info("branch_advanced", experiment=number, commit=commit)
    return _closed(lab, campaign, number)
