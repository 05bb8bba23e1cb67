"""Git is made to agree with the ledger, which is the truth: lost objects, lost refs, a branch that is behind.

Git waits for the disk before it names a commit, and we before we write that name down. So after a crash of the
controller nothing is ever missing but the last step. More than that is lost by a disk, by a file system that
promised too much, or by a person; what the ledger can tell is then made again, under the same ids.

Not covered: an object that is there and damaged, which git takes for whole; `git fsck` names it.
"""

from __future__ import annotations

import structlog

from runner.campaign.experiment import candidate_files, commit_candidate, commit_keep, finish_keep, tried_ref
from runner.errors import RepositoryError
from runner.evaluation.trial import Laboratory
from runner.records import Experiment, Verdict
from runner.storage.ledger import Campaign

log = structlog.get_logger()


def reconcile(lab: Laboratory, campaign: Campaign) -> None:
    """Restore what git lost, put the branch back to the champion, and finish a keep that was interrupted.

    Raises:
        RepositoryError: the branch stands at a commit that the ledger does not know, and nothing is overwritten;
            or a lost commit cannot be made again.
    """
    experiments = lab.ledger.experiments(campaign.tag)
    _restore_commits(lab, campaign, experiments)
    _put_branch_back(lab, experiments)
    for experiment in experiments:
        if _is_pending(experiment):
            finish_keep(lab, campaign, experiment.number)


def _is_pending(experiment: Experiment) -> bool:
    """A keep whose verdict is written and whose commit is not."""
    return experiment.verdict is Verdict.KEEP and experiment.kept_commit is None


def _restore_commits(lab: Laboratory, campaign: Campaign, experiments: tuple[Experiment, ...]) -> None:
    refs = lab.repository.refs(tried_ref(campaign.tag, 0).rpartition("/")[0])

    def is_there(*some: Experiment) -> bool:
        commits = [commit for one in some for commit in (one.tried_commit, one.kept_commit) if commit is not None]
        named = all(refs.get(tried_ref(campaign.tag, one.number)) == one.tried_commit for one in some)
        return named and lab.repository.is_whole(commits, since=campaign.base_commit)

    staged = [one for one in experiments if one.tried_commit is not None]
    if is_there(*staged):
        return
    for experiment in staged:  # in their order: a champion comes before its challengers
        if is_there(experiment):
            continue
        files = candidate_files(lab, campaign, experiment)
        made = commit_candidate(lab, campaign, experiment, files).commit
        _refuse_another(experiment.number, made, experiment.tried_commit)
        if experiment.kept_commit is not None and experiment.champion is not None:
            parent = experiments[experiment.champion].kept_commit
            assert parent is not None
            _refuse_another(experiment.number, commit_keep(lab, experiment, parent), experiment.kept_commit)
        lab.observer.note(f"git had lost a commit of experiment {experiment.number}; it is made again")
        log.warning("commits_restored", experiment=experiment.number)


def _refuse_another(number: int, made: str, recorded: str | None) -> None:
    if made != recorded:
        raise RepositoryError(
            f"git lost commit {recorded} of experiment {number}, and the ledger gives {made} in its place",
            "git fsck",
        )


def _put_branch_back(lab: Laboratory, experiments: tuple[Experiment, ...]) -> None:
    """Make the branch stand at the champion: one that is missing or behind is a ref update that was lost."""
    kept = [one.kept_commit for one in experiments if one.kept_commit is not None]
    head = lab.repository.branch_head(lab.branch)
    if not kept or head == kept[-1]:
        return
    if head is None or head in kept:
        lab.repository.advance(lab.branch, kept[-1], expected_old=head)
        lab.observer.note(f"the branch {lab.branch} was {'missing' if head is None else 'behind'}; it is put back")
        log.warning("branch_repaired", head=head, champion=kept[-1])
    elif not any(_is_pending(one) for one in experiments):  # else `finish_keep` knows where it belongs
        raise RepositoryError(
            f"the branch {lab.branch} is at {head}, but the ledger's champion is {kept[-1]}",
            f"git branch -f {lab.branch} {kept[-1]}",
        )
