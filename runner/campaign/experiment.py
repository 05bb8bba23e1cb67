"""One experiment through every step: stage, build, look, audit, decide, look again, keep."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from runner import edits
from runner.campaign.backstop import Bug, guarded
from runner.campaign.champion import run_control
from runner.campaign.commit_message import kept_message, tried_message
from runner.decision import early_stopping, evidence, keep_rule
from runner.decision.keep_rule import Action, Judgement
from runner.decision.lineage import audited_runs, champion_claims
from runner.errors import BaselineError, EngineError, Interrupted, RepositoryError
from runner.evaluation.trial import (
    Examined,
    Failure,
    Laboratory,
    LedgerRuns,
    Measurement,
    Outcome,
    audit_failure,
    measure,
    run_seed,
    stopped,
    too_slow,
)
from runner.records import Experiment, Files, Patch, Phase, RunEnd, RunRecord, Verdict
from runner.sandbox import images
from runner.storage import claims as claims_store
from runner.storage.git import write_again
from runner.storage.ledger import Campaign
from runner.storage.repository import Staged
from runner.untrusted import clean

log = structlog.get_logger()


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
class Case:
    """A candidate between two looks: the scores so far, and all that the next one is judged with."""

    rule: keep_rule.Rule
    belief: keep_rule.Belief
    pool: tuple[int, ...]  # ids of the champion's runs
    champion_bpb: tuple[float, ...]  # their scores
    control_due: bool  # the champion has not been measured since the last look
    before: tuple[float, ...]  # scores of the looks so far
    lines_added: int  # of logic, net
    simplification: bool
    audit_discards: float
    score_limit_seconds: float | None

    def judge(self, bpb: float) -> Judgement:
        """Keep, discard or look again, when the next look gives this score."""
        return keep_rule.judge(
            self.rule,
            self.belief,
            candidate_bpb=(*self.before, bpb),
            champion_bpb=self.champion_bpb,
            lines_added=self.lines_added,
            simplification=self.simplification,
        )

    def after(self, bpb: float) -> Case:
        """The same with one look more."""
        return replace(self, before=(*self.before, bpb))

    def promising_boundary(self) -> float | None:
        """The largest difference of the next look that makes more of it than a discard that nobody needs.

        None where nothing would help.
        """
        mean = sum(self.champion_bpb) / len(self.champion_bpb)

        def is_worth(delta: float) -> bool:
            judgement = self.judge(mean + delta)
            return judgement.action is not Action.DISCARD or judgement.near_miss

        return early_stopping.promising_boundary(is_worth, self.belief.sigma_bpb)

    def wants_audit(self, claimed_bpb: float) -> bool:
        """All that a keep may rest on; of discards a few, which no candidate can foresee."""
        goes_on = self.judge(claimed_bpb).action is not Action.DISCARD
        return goes_on or random.SystemRandom().random() < self.audit_discards

    def wants_seal(self, audited_bpb: float) -> bool:
        """What is kept in the end."""
        return self.judge(audited_bpb).action is Action.KEEP


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


def stage(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> images.Image:
    """Commit the candidate and build its image.

    Raises:
        ImageError: the build failed.
    """
    files = candidate_files(lab, campaign, experiment)
    commit, tree = commit_candidate(lab, campaign, experiment, files)
    lab.observer.phase(experiment.number, "build", None)
    built = images.build_candidate(
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
    built: images.Image | None = None

    def present() -> str:
        nonlocal built
        if built is None or not images.exists(lab.engine.client, built.id):
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
    sigma = keep_rule.pooled_sigma([scores], lab.config.noise_prior_bpb)
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
    """Look at one open experiment until its case is clear; what a killed controller had seen of it counts.

    Returns it without a verdict when somebody asks to stop between two looks. A bug of ours that it brings to
    light closes it: the next start would meet it again.
    """
    closed = guarded(
        "judging it",
        lambda: _look_until_clear(lab, campaign, experiment),
        campaign=campaign.tag,
        experiment=experiment.number,
    )
    if not isinstance(closed, Bug):
        return closed
    if _read(lab, experiment.number).verdict is not None:
        raise closed.error  # it is judged: what failed since has to do with git, not with what it says
    lab.observer.note(f"experiment {experiment.number}: {closed.reason}")
    lab.ledger.close_experiment(campaign.tag, experiment.number, verdict=Verdict.INFRA, reason=closed.reason)
    return _read(lab, experiment.number)


def _look_until_clear(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> Experiment:
    bound = log.bind(campaign=campaign.tag, experiment=experiment.number)
    case = _open_case(lab, campaign, experiment)
    build = builder(lab, campaign, experiment)
    while True:
        seed = run_seed(campaign, experiment.number, len(case.before))
        case = _against_champion(lab, campaign, experiment, case, seed)
        outcome = _recorded_outcome(lab, _read(lab, experiment.number), case, seed)
        if outcome is None:
            if case.before and lab.stopping():
                return _read(lab, experiment.number)
            if case.control_due:
                run_control(lab, campaign, _champion(lab, experiment))
                case = _against_champion(lab, campaign, experiment, case, seed)
            outcome = measure(
                lab,
                build=build,
                number=experiment.number,
                seed=seed,
                runs=LedgerRuns(lab.ledger, campaign.tag, experiment.number),
                examiner=case,
                champion=champion_claims(_champion(lab, experiment)),
                calibration=_calibration(lab, experiment, case),
            )
        if isinstance(outcome, Failure):
            lab.ledger.close_experiment(
                campaign.tag,
                experiment.number,
                verdict=outcome.verdict,
                reason=outcome.reason,
                sigma_bpb=case.belief.sigma_bpb,
            )
            bound.info("verdict_reached", verdict=outcome.verdict, reason=outcome.reason)
            return _read(lab, experiment.number)
        judgement = case.judge(outcome.val_bpb)
        if judgement.action is not Action.TRY_AGAIN:
            return _judge(lab, campaign, case, outcome, judgement, experiment.number)
        lab.observer.note(f"experiment {experiment.number}: {judgement.reason}; looking again")
        bound.info("looked", look=judgement.num_trials, delta_bpb=judgement.delta_bpb, better=judgement.better)
        case = case.after(outcome.val_bpb)


def _open_case(lab: Laboratory, campaign: Campaign, experiment: Experiment) -> Case:
    """The case of a candidate before the first look, but for the champion's runs."""
    history = lab.ledger.experiments(campaign.tag)
    best = _champion(lab, experiment)
    assert best.kept_commit is not None
    before = edits.count_logic(lab.repository.read_workload(best.kept_commit))
    return Case(
        rule=evidence.rule(lab.config),
        belief=evidence.belief(history, lab.config, min((run.id or 0 for run in experiment.runs), default=None)),
        pool=(),
        champion_bpb=(),
        control_due=False,
        before=(),
        lines_added=edits.count_logic(candidate_files(lab, campaign, experiment)) - before,
        simplification=experiment.category == keep_rule.SIMPLIFICATION,
        audit_discards=lab.config.audit_discards,
        score_limit_seconds=score_limit(history[0], lab.config.train_seconds),
    )


def _against_champion(lab: Laboratory, campaign: Campaign, experiment: Experiment, case: Case, seed: int) -> Case:
    """The case with the champion's runs as they were before the look of this seed, be it to come or recorded."""
    experiment, best = _read(lab, experiment.number), _champion(lab, experiment)
    earlier = {run_seed(campaign, experiment.number, index) for index in range(len(case.before))}
    trials = [run for run in experiment.runs if run.seed in earlier]
    begun = min((run.id or 0 for run in experiment.runs if run.seed == seed), default=None)
    pool = evidence.comparable(evidence.champion_pool(best, begun), trials, case.belief.sigma_bpb)
    assert best.val_bpb is not None
    return replace(
        case,
        pool=tuple(run.id for run in pool if run.id is not None),
        champion_bpb=tuple(run.val_bpb for run in pool if run.val_bpb is not None) or (best.val_bpb,),
        control_due=bool(trials) and evidence.control_due_between_trials(best, trials),
    )


def _calibration(lab: Laboratory, experiment: Experiment, case: Case) -> early_stopping.Calibration | None:
    """What the next look is watched with: the first one alone may be stopped, later ones are promising."""
    if case.before:
        return None
    return early_stopping.calibrate(
        lab.ledger.experiments(lab.config.tag),
        _champion(lab, experiment),
        boundary_bpb=case.promising_boundary(),
        early_stop_threshold=lab.config.early_stop_threshold,
        early_stop_min_trials=lab.config.early_stop_min_trials,
    )


def _recorded_outcome(lab: Laboratory, experiment: Experiment, case: Case, seed: int) -> Outcome | None:
    """What the runs before a crash already settle for a look: to measure again would be a second draw.

    One that needs an audit, saved claims or a sealed score that is missing is measured again: its checkpoint is
    gone.
    """
    trained = [run for run in experiment.runs if run.seed == seed and run.phase is Phase.TRAIN]
    if trained and (failure := stopped(trained[-1], lab.config)) is not None:
        return failure
    own = [run for run in experiment.runs if run.seed == seed and run.phase in (Phase.SCORE, Phase.AUDIT)]
    last = own[-1] if own else None
    if last is None or last.end in (RunEnd.LOST, RunEnd.STARTUP):
        return None
    if last.phase is Phase.AUDIT and (failure := audit_failure(last)) is not None:
        return failure
    if last.val_bpb is None or last.claims_sha256 is None:
        return None
    if (
        last.phase is Phase.SCORE
        and (failure := too_slow(last, case.score_limit_seconds, lab.config.cpus)) is not None
    ):
        return failure
    action = case.judge(last.val_bpb).action
    audited = action is Action.DISCARD or last.phase is Phase.AUDIT
    saved = action is not Action.KEEP or (
        claims_store.load(lab.claims, last.claims_sha256) is not None
        and lab.ledger.is_sealed(lab.config.tag, experiment.number, seed)
    )
    if not (audited and saved):
        return None
    return Measurement(val_bpb=last.val_bpb, claims_sha256=last.claims_sha256, audit=last.audit)


def _judge(
    lab: Laboratory,
    campaign: Campaign,
    case: Case,
    measured: Measurement,
    judgement: Judgement,
    number: int,
) -> Experiment:
    """Write down the verdict of the last look, and put a keep on the branch."""
    reason = judgement.reason
    if judgement.action is Action.DISCARD and measured.audit is not None:
        claimed = measured.audit.claimed_bpb
        if case.judge(claimed).action is not Action.DISCARD:
            added = measured.val_bpb - claimed
            reason = f"its claim would go on, but the audit is inconclusive and adds {added:.4f} bpb to it"
    scores = (*case.before, measured.val_bpb)
    verdict = Verdict.KEEP if judgement.action is Action.KEEP else Verdict.DISCARD
    # What the first look chose is too good on average: a keep is worth what the others say.
    shown = scores[1:] if verdict is Verdict.KEEP and len(scores) > 1 else scores
    val_bpb = sum(shown) / len(shown)
    lab.ledger.close_experiment(
        campaign.tag,
        number,
        verdict=verdict,
        reason=reason,
        val_bpb=val_bpb,
        delta_bpb=judgement.delta_bpb,
        sigma_bpb=judgement.sigma_bpb,
        figures=evidence.figures(
            judgement,
            replace(case, before=()).judge(scores[0]),
            evidence.scored(_read(lab, number).runs),
            case.pool,
        ),
    )
    log.info("verdict_reached", campaign=campaign.tag, experiment=number, verdict=verdict, val_bpb=val_bpb)
    if verdict is Verdict.KEEP:
        return finish_keep(lab, campaign, number)
    return _read(lab, number)


def _read(lab: Laboratory, number: int) -> Experiment:
    found = lab.ledger.experiment(lab.config.tag, number)
    assert found is not None
    return found


def _champion(lab: Laboratory, experiment: Experiment) -> Experiment:
    """The champion that an experiment is compared with."""
    assert experiment.champion is not None
    return _read(lab, experiment.champion)


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
    return _read(lab, number)


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
