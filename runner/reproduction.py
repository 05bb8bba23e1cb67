"""A finished experiment, run again from its image or from its commit."""

from __future__ import annotations

from dataclasses import dataclass

from locked_eval import judge
from runner import decision, image
from runner.errors import RepositoryError
from runner.laboratory import Failure, Laboratory, Outcome, UnrecordedRuns, measure, refuse_other_conditions


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
    agrees: bool


def reproduce(lab: Laboratory, revision: str) -> Reproduction:
    """Run a commit's image again with the seed of its first run; changes nothing in the ledger.

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
    if experiment is None or experiment.val_bpb is None or experiment.tried_commit is None:
        raise RepositoryError(
            f"{revision} is no scored experiment of campaign {lab.config.tag!r}",
            "autoresearch log lists them; name the campaign with --tag",
        )
    built = image.find_candidate(
        lab.engine.client,
        base_id=lab.base_image,
        campaign=lab.config.tag,
        commit=experiment.tried_commit,
    )
    rebuilt = built is None
    if built is None:
        built = image.build_candidate(
            lab.engine.client,
            base_id=lab.base_image,
            files=lab.repository.read_workload(commit),
            labels={
                **lab.owner(experiment.number).facts(),
                "commit": experiment.tried_commit,
            },
        )
    sigma = experiment.sigma_bpb or lab.config.noise_prior_bpb
    outcome: Outcome | None = None
    same_layer = built.layer_digest == experiment.layer_digest
    if same_layer:
        seed = next(run.seed for run in experiment.runs if run.val_bpb is not None)
        outcome = measure(lab, image_id=built.id, number=experiment.number, seed=seed, runs=UnrecordedRuns())
    second = outcome.val_bpb if isinstance(outcome, judge.Score) else None
    first = next(run.val_bpb for run in experiment.runs if run.val_bpb is not None)
    return Reproduction(
        number=experiment.number,
        commit=commit,
        rebuilt=rebuilt,
        same_layer=same_layer,
        first_bpb=first,
        second_bpb=second,
        tolerance_bpb=decision.reproduction_tolerance(sigma),
        problem=outcome.reason if isinstance(outcome, Failure) else None,
        agrees=second is not None and abs(second - first) <= decision.reproduction_tolerance(sigma),
    )
