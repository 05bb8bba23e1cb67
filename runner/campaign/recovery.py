"""Recovery of git from the ledger, which is the truth: lost objects, lost refs, a branch that is behind.

Git waits for the disk before it names a commit, and we wait for git before we record that name. So after a
crash of
the controller only the last step can be missing. More than that is lost by a disk, by a file system that promised
too much, or by a person; whatever the ledger can rebuild is then made again, under the same ids.

Not covered: an object that is there but damaged, which git takes for whole; `git fsck` names it.
"""

from __future__ import annotations

import structlog

from runner.campaign.campaign import Campaign
from runner.campaign.candidate import candidate_files, commit_candidate, tried_ref
from runner.campaign.promotion import commit_keep, point_tip, promote
from runner.errors import RepositoryError
from runner.records import Experiment, Verdict

log = structlog.get_logger()


def reconcile(campaign: Campaign) -> None:
    """Restore what git lost, put both branches back, and finish a keep that was interrupted.

    Raises:
        RepositoryError: the branch stands at a commit that the ledger does not know, and nothing is overwritten;
            or a lost commit cannot be made again.
    """
    _restore_commits(campaign)
    _put_branch_back(campaign)
    for experiment in campaign.experiments:
        if _is_pending(experiment):
            promote(campaign, experiment)
    if campaign.memory.tip is not None:
        point_tip(campaign)


def _is_pending(experiment: Experiment) -> bool:
    """A keep whose verdict is written and whose commit is not."""
    return experiment.verdict is Verdict.KEEP and experiment.kept_commit is None


def _restore_commits(campaign: Campaign) -> None:
    experiments, repository = campaign.experiments, campaign.repository
    refs = repository.refs(tried_ref(campaign.tag, 0).rpartition("/")[0])

    def is_there(*some: Experiment) -> bool:
        commits = [commit for one in some for commit in (one.tried_commit, one.kept_commit) if commit is not None]
        named = all(refs.get(tried_ref(campaign.tag, one.number)) == one.tried_commit for one in some)
        return named and repository.is_whole(commits, since=campaign.row.base_commit)

    staged = [one for one in experiments if one.tried_commit is not None]
    if is_there(*staged):
        return
    for experiment in staged:  # in their order: a champion comes before its challengers
        if is_there(experiment):
            continue
        files = candidate_files(campaign, experiment)
        made = commit_candidate(campaign, experiment, files).commit
        _refuse_another(experiment.number, made, experiment.tried_commit)
        if experiment.kept_commit is not None and experiment.parent is not None:
            _refuse_another(experiment.number, commit_keep(campaign, experiment), experiment.kept_commit)
        campaign.observer.note(f"git had lost a commit of experiment {experiment.number}; recreating it")
        log.warning("commits_restored", experiment=experiment.number)


def _refuse_another(number: int, made: str, recorded: str | None) -> None:
    if made != recorded:
        raise RepositoryError(
            f"git lost commit {recorded} of experiment {number}, and the ledger recreates it as {made}",
            "git fsck",
        )


def _put_branch_back(campaign: Campaign) -> None:
    """Make the branch stand at the champion: one that is missing or behind is a ref update that was lost."""
    branch, repository = campaign.controller.branch, campaign.repository
    in_order = sorted(campaign.experiments, key=lambda one: one.kept_seq)
    kept = [one.kept_commit for one in in_order if one.kept_commit is not None]
    head = repository.branch_head(branch)
    if not kept or head == kept[-1]:
        return
    if head is None or head in kept:
        repository.advance(branch, kept[-1], expected_old=head)
        campaign.observer.note(
            f"the branch {branch} was {'missing' if head is None else 'behind'}; moving it back to the champion"
        )
        log.warning("branch_repaired", head=head, champion=kept[-1])
    elif not any(_is_pending(one) for one in campaign.experiments):  # else `promote` knows where it belongs
        raise RepositoryError(
            f"the branch {branch} is at {head}, but the ledger's champion is {kept[-1]}",
            f"git branch -f {branch} {kept[-1]}",
        )
