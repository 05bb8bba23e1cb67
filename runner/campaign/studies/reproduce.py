"""A finished experiment, run again from its image or from its commit."""

from __future__ import annotations

from dataclasses import dataclass

from runner.campaign.campaign import Controller
from runner.campaign.measurement import TrialBook, measure
from runner.decision import keep_rule
from runner.decision.history import champion, champion_claims
from runner.errors import RepositoryError
from runner.evaluation.evaluator import Program, TrialRequest
from runner.records import AuditPolicy, AuditRecord, Outcome, Trial


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

    Args:
        audit: audit the claims of this run as well.

    Raises:
        RepositoryError: the commit belongs to no scored experiment of this campaign.
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
    experiments = controller.ledger.experiments(config.tag)
    experiment = next((one for one in experiments if commit in (one.kept_commit, one.tried_commit)), None)
    trials = () if experiment is None else experiment.trials
    first = next((trial for trial in trials if trial.claimed_bpb is not None), None)
    if experiment is None or first is None:
        raise RepositoryError(
            f"{revision} is not a scored experiment of campaign {config.tag!r}",
            "autoresearch log lists them; name the campaign with --tag",
        )
    assert experiment.tried_commit is not None
    files = controller.repository.read_workload(commit)
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
