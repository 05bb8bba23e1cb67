"""A finished experiment, run again from its image or from its commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.campaign.campaign import Controller
from runner.campaign.measurement import TrialBook, measure
from runner.decision import keep_rule
from runner.decision.history import champion, champion_claims
from runner.errors import RepositoryError
from runner.evaluation.evaluator import Program, TrialRequest
from runner.records import AuditPolicy, AuditRecord, Experiment, Files, Outcome, Trial


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """A finished experiment, run again."""

    number: int
    commit: str
    rebuilt: bool  # its image was gone
    same_layer: bool
    first_bpb: float | None
    second_bpb: float | None
    tolerance_bpb: float
    problem: str | None
    audit: AuditRecord | None  # when one was asked for
    agrees: bool


def reproduce(controller: Controller, revision: str, *, audit: bool = False) -> Reproduction:
    """Run a commit's image again with the seed of its first run; changes nothing in the ledger.

    Any commit will do whose program the campaign has scored: a certificate, an accepted edit, another try, or a
    commit of a person that holds the same files.

    Args:
        audit: audit the claims of this run as well.

    Raises:
        RepositoryError: the campaign has not scored this program.
        ConfigError: the campaign ran under other conditions.
    """
    config, evaluator = controller.config, controller.evaluator
    campaign = controller.ledger.campaign(config.tag)
    if campaign is None:
        raise RepositoryError(
            f"there is no campaign {config.tag!r}", "name it with --tag; autoresearch status shows the newest"
        )
    controller.refuse_other_conditions(campaign)
    commit = controller.repository.resolve(revision)
    files = controller.repository.read_workload(commit)
    experiments = controller.ledger.experiments(config.tag)
    experiment = find_experiment(controller, experiments, commit, files)
    first = None if experiment is None else _first_scored(experiment)
    if experiment is None or first is None:
        raise RepositoryError(
            f"{revision} holds no program that campaign {config.tag!r} has scored",
            f"name the campaign with --tag, or measure it: autoresearch confirm {revision} --against COMMIT",
        )
    assert experiment.tried_commit is not None
    program = Program(number=experiment.number, files=files, commit=experiment.tried_commit)
    found = evaluator.find_image(program)
    built = found or evaluator.build(program)
    same_layer = built.layer_digest == experiment.layer_digest
    again: Trial | None = None
    if same_layer:
        request = TrialRequest(program=program, seed=first.seed)
        policy, claims = AuditPolicy(audit=audit), champion_claims(champion(experiments))
        again = measure(evaluator, request, TrialBook(), lambda _: policy, claims)
    # Both as claimed: an audit's upper bound differs from draw to draw.
    before, after = first.claimed_bpb, None if again is None else again.claimed_bpb
    tolerance = keep_rule.reproduction_tolerance(experiment.sigma_bpb or config.noise_prior_bpb)
    same_score = before is not None and after is not None and abs(after - before) <= tolerance
    return Reproduction(
        number=experiment.number,
        commit=commit,
        rebuilt=found is None,
        same_layer=same_layer,
        first_bpb=before,
        second_bpb=after,
        tolerance_bpb=tolerance,
        problem=None if again is None else again.reason,
        audit=None if again is None else again.audit,
        agrees=same_score and again is not None and again.outcome is Outcome.SCORED,
    )


def find_experiment(
    controller: Controller, experiments: Sequence[Experiment], commit: str, files: Files
) -> Experiment | None:
    """The scored experiment that a commit stands for: by its id, else the newest one with the same files."""
    scored = [one for one in experiments if one.tried_commit is not None and _first_scored(one) is not None]
    named = [one for one in scored if one.kept_commit == commit] or [
        one for one in scored if one.tried_commit == commit
    ]
    alike = (one for one in reversed(scored) if controller.repository.read_workload(one.commit or "") == files)
    return named[0] if named else next(alike, None)


def _first_scored(experiment: Experiment) -> Trial | None:
    return next((trial for trial in experiment.trials if trial.claimed_bpb is not None), None)
