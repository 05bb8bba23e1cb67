"""A finished experiment, run again from its image or from its commit."""

from __future__ import annotations

from dataclasses import dataclass

from runner.decision import keep_rule
from runner.decision.lineage import champion, champion_claims
from runner.errors import RepositoryError
from runner.evaluation.trial import (
    Examined,
    Failure,
    Laboratory,
    Measurement,
    UnrecordedRuns,
    measure,
    refuse_other_conditions,
)
from runner.records import AuditRecord, Experiment, Phase
from runner.sandbox import images


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


def reproduce(lab: Laboratory, revision: str, *, audit: bool = False) -> Reproduction:
    """Run a commit's image again with the seed of its first run; changes nothing in the ledger.

    Args:
        audit: audit the claims of this run as well.

    Raises:
        RepositoryError: the commit belongs to no scored experiment of this campaign.
        ConfigError: the campaign ran under other conditions.
    """
    campaign = lab.ledger.campaign(lab.config.tag)
    if campaign is None:
        raise RepositoryError(
            f"there is no campaign {lab.config.tag!r}", "name it with --tag; autoresearch status shows the newest"
        )
    refuse_other_conditions(lab, campaign)
    commit = lab.repository.resolve(revision)
    experiments = lab.ledger.experiments(lab.config.tag)
    experiment = next((one for one in experiments if commit in (one.kept_commit, one.tried_commit)), None)
    scored = () if experiment is None else experiment.runs
    first = next((run for run in scored if run.phase is Phase.SCORE and run.val_bpb is not None), None)
    if experiment is None or first is None:
        raise RepositoryError(
            f"{revision} is no scored experiment of campaign {lab.config.tag!r}",
            "autoresearch log lists them; name the campaign with --tag",
        )
    built, rebuilt = image_of(lab, experiment, commit)
    sigma = experiment.sigma_bpb or lab.config.noise_prior_bpb
    runs = UnrecordedRuns()
    outcome: Measurement | Failure | None = None
    if built.layer_digest == experiment.layer_digest:
        outcome = measure(
            lab,
            build=lambda: built.id,
            number=experiment.number,
            seed=first.seed,
            runs=runs,
            examiner=Examined(audit=audit, seal=False),
            champion=champion_claims(champion(experiments)),
        )
    # Both as claimed: an audit's upper bound differs from draw to draw.
    second = next((run.val_bpb for run in reversed(runs.closed) if run.phase is Phase.SCORE), None)
    tolerance = keep_rule.reproduction_tolerance(sigma)
    same_score = second is not None and first.val_bpb is not None and abs(second - first.val_bpb) <= tolerance
    return Reproduction(
        number=experiment.number,
        commit=commit,
        rebuilt=rebuilt,
        same_layer=built.layer_digest == experiment.layer_digest,
        first_bpb=first.val_bpb,
        second_bpb=second,
        tolerance_bpb=tolerance,
        problem=outcome.reason if isinstance(outcome, Failure) else None,
        audit=runs.audit,
        agrees=same_score and isinstance(outcome, Measurement),
    )


def image_of(lab: Laboratory, experiment: Experiment, commit: str) -> tuple[images.Image, bool]:
    """The image of an experiment, and whether it had to be built again."""
    assert experiment.tried_commit is not None
    built = images.find_candidate(
        lab.engine.client, base_id=lab.base_image, campaign=lab.config.tag, commit=experiment.tried_commit
    )
    if built is not None:
        return built, False
    built = images.build_candidate(
        lab.engine.client,
        base_id=lab.base_image,
        files=lab.repository.read_workload(commit),
        labels={**lab.owner(experiment.number).facts(), "commit": experiment.tried_commit},
    )
    return built, True
