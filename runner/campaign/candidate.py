"""A candidate: its files rebuilt from the ledger, committed under a ref of its own, as a program to measure."""

from __future__ import annotations

from runner import edits
from runner.campaign.campaign import Campaign
from runner.campaign.commit_message import tried_message
from runner.errors import RepositoryError
from runner.evaluation.evaluator import Program
from runner.records import Experiment, Files, Patch
from runner.storage.repository import Staged


def tried_ref(tag: str, number: int) -> str:
    """The ref under which a candidate is kept, whatever its verdict."""
    return f"refs/autoresearch/tried/{tag}/{number:04d}"


def candidate_files(campaign: Campaign, experiment: Experiment) -> Files:
    """The tree of an experiment, rebuilt from the ledger: its parent's files and its diff.

    Raises:
        RepositoryError: the diff does not apply.
    """
    parent = campaign.parent_of(experiment)
    files = campaign.repository.read_workload(parent)
    if experiment.parent is None:
        return files
    applied = edits.apply(files, (Patch(text=experiment.diff),))
    if isinstance(applied, edits.Refusal):
        raise RepositoryError(
            f"the diff of experiment {experiment.number} does not apply to {parent}: {applied.reason}"
        )
    return applied


def program_files(campaign: Campaign, experiment: Experiment) -> Files:
    """`workload/` of an experiment that was kept or accepted, from git."""
    assert experiment.commit is not None
    return campaign.repository.read_workload(experiment.commit)


def commit_candidate(campaign: Campaign, experiment: Experiment, files: Files) -> Staged:
    """Commit a candidate's files under its ref; repeating it gives the same commit."""
    assert experiment.started_at is not None
    return campaign.repository.stage(
        parent=campaign.parent_of(experiment),
        files=files,
        message=tried_message(experiment),
        ref=tried_ref(campaign.tag, experiment.number),
        when=experiment.started_at,
    )


def stage(campaign: Campaign, experiment: Experiment) -> Program:
    """Commit a candidate; its image is built when it is measured. Repeating it changes nothing."""
    files = candidate_files(campaign, experiment)
    commit, tree = commit_candidate(campaign, experiment, files)
    return Program(number=experiment.number, files=files, commit=commit, labels={"tree": tree})


def program_of(campaign: Campaign, experiment: Experiment) -> Program:
    """An experiment that was kept or accepted, as a program to measure again."""
    assert experiment.tried_commit is not None
    return Program(
        number=experiment.number,
        files=program_files(campaign, experiment),
        commit=experiment.tried_commit,
    )
