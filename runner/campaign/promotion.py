"""From a verdict to git: a keep advances the champion's branch, and the tip's branch follows the tip."""

from __future__ import annotations

import structlog

from runner.campaign.campaign import Campaign
from runner.campaign.commit_message import kept_message
from runner.errors import RepositoryError
from runner.failpoints import Step
from runner.records import Experiment
from runner.storage.git import write_again

log = structlog.get_logger()


def promote(campaign: Campaign, experiment: Experiment) -> Experiment:
    """Advance the branch to an experiment with the verdict keep."""
    commit = write_again(lambda: _advance(campaign, experiment))
    campaign.ledger.set_kept(campaign.tag, experiment.number, commit)
    log.info("branch_advanced", experiment=experiment.number, commit=commit)
    return campaign.reload(experiment.number)


def point_tip(campaign: Campaign) -> None:
    """Make the branch of the tip stand at the tip; where it stood does not matter, since the ledger knows.

    Raises:
        RepositoryError: it is checked out, or stands at a commit that the ledger does not know: nothing of a
            person's is lost.
    """
    branch, commit, repository = campaign.controller.tip_branch, campaign.tip.commit, campaign.repository
    assert commit is not None
    head = repository.branch_head(branch)
    if head == commit:
        return
    if head is not None and not campaign.knows(head):
        raise RepositoryError(
            f"the branch {branch} is at {head}, which is no commit of this campaign",
            f"git branch -m {branch} NAME",
        )
    repository.advance(branch, commit, expected_old=head, step=Step.TIP_MOVED)
    log.info("tip_moved", experiment=campaign.tip.number, commit=commit)


def commit_keep(campaign: Campaign, experiment: Experiment) -> str:
    """Make the commit of a kept candidate on its champion's; repeating it gives the same commit."""
    assert experiment.tried_commit is not None and experiment.ended_at is not None
    conditions = campaign.controller.conditions
    return campaign.repository.make_commit(
        tree=campaign.repository.resolve(f"{experiment.tried_commit}^{{tree}}"),
        parent=campaign.parent_of(experiment),
        message=kept_message(
            experiment,
            edits=[campaign.experiments[number] for number in experiment.certifies],
            base_image=conditions["base_image"],  # by its inputs: ids differ between builds
            data=conditions["data"],
            evaluation=conditions["evaluation"],
        ),
        when=experiment.ended_at,
    )


def _advance(campaign: Campaign, experiment: Experiment) -> str:
    if experiment.parent is None:
        parent, commit = None, campaign.row.base_commit
    else:
        parent, commit = campaign.parent_of(experiment), commit_keep(campaign, experiment)
    campaign.repository.advance(campaign.controller.branch, commit, expected_old=parent)
    return commit
