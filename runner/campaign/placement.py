"""From a proposal to an open experiment: its edits on the present champion, as a diff, or the reason of a
refusal."""

from __future__ import annotations

from functools import cache

import structlog

from runner import edits
from runner.campaign.backstop import Bug, guarded
from runner.campaign.campaign import Campaign
from runner.edits import contamination
from runner.proposers import Proposer, combine
from runner.records import Experiment, Files, Patch, Proposal, Verdict
from runner.storage.conversations import Conversation
from runner.storage.rows import Refused
from runner.untrusted import prompt_text

log = structlog.get_logger()

HYPOTHESIS_CHARACTERS = 2_000
"""Length of the hypothesis of a proposal that could not be read."""


def champion_files(campaign: Campaign, best: Experiment | None) -> Files:
    """`workload/` of a champion."""
    assert best is not None and best.kept_commit is not None
    return campaign.repository.read_workload(best.kept_commit)


def place(
    campaign: Campaign, proposer: Proposer, conversation: Conversation, proposal: Proposal
) -> Experiment | None:
    """Open the experiment of a proposal; None when a new champion has left no room for it.

    A proposal that a bug of ours keeps us from reading is recorded without its edits, and closed.
    """
    made = guarded(
        "reading its edits",
        lambda: _place(campaign, conversation, proposal),
        campaign=campaign.tag,
        conversation=conversation.id,
    )
    if not isinstance(made, Bug):
        return made
    unread = Proposal(
        hypothesis=prompt_text(proposal.hypothesis, HYPOTHESIS_CHARACTERS),
        edits=(),
        proposer=proposer.name,
        model=proposer.model,
    )
    return campaign.open(
        unread,
        diff="",
        retry_of=conversation.retry_of,
        refused=Refused(reason=made.reason, verdict=Verdict.INFRA),
        conversation=conversation.id,
    )


def _place(campaign: Campaign, conversation: Conversation, proposal: Proposal) -> Experiment | None:
    best_then = campaign.memory.champion_up_to(conversation.seen)
    assert best_then is not None
    files = champion_files(campaign, best_then)
    applied = edits.apply(files, proposal.edits)
    if campaign.champion.number != best_then.number and not isinstance(applied, edits.Refusal):
        moved = champion_files(campaign, campaign.champion)
        applied = edits.carry_over(moved, base=files, changed=applied)
        files = moved
        if isinstance(applied, edits.Refusal):
            campaign.ledger.conversations.end(conversation.id, proposal.transcript)
            campaign.observer.note(f"the prefetched idea does not fit the new champion: {applied.reason}")
            log.info("idea_outdated", hypothesis=proposal.hypothesis, reason=applied.reason)
            return None
    refused, diff = _as_diff(files, applied, campaign.controller.sealed_text)
    opened = campaign.open(
        proposal, diff=diff, retry_of=conversation.retry_of, refused=refused, conversation=conversation.id
    )
    log.info("proposal_received", experiment=opened.number, refused=opened.reason)
    return opened


def place_stack(campaign: Campaign, stack_sigmas: float, *, ending: bool) -> Experiment | None:
    """Open the experiment of the near misses that are due to be tried together; None when none are.

    Args:
        ending: only few more trials will follow.
    """
    made = guarded(
        "combining near misses", lambda: _place_stack(campaign, stack_sigmas, ending), campaign=campaign.tag
    )
    if not isinstance(made, Bug):
        return made
    pieces = tuple(sorted(one.number for one in combine.best_first(campaign.memory.shelf())[: combine.MAX_PIECES]))
    if not pieces:
        raise made.error  # concerns no candidate
    # Any of them may be the one that we cannot read: all count as used, or the next round fails alike.
    unread = Proposal(
        hypothesis=f"{len(pieces)} near misses together",
        edits=(),
        proposer=combine.PROPOSER,
        category=combine.CATEGORY,
        combines=pieces,
    )
    return campaign.open(unread, diff="", refused=Refused(reason=made.reason, verdict=Verdict.INFRA))


def _place_stack(campaign: Campaign, stack_sigmas: float, ending: bool) -> Experiment | None:
    @cache
    def kept_files(number: int) -> Files:
        return champion_files(campaign, campaign.experiments[number])

    proposal = combine.stack(
        campaign.memory.shelf(),
        kept_files,
        champion=campaign.champion.number,
        sigma_bpb=campaign.memory.belief().sigma_bpb,
        stack_sigmas=stack_sigmas,
        ending=ending,
    )
    if proposal is None:
        return None
    files = kept_files(campaign.champion.number)
    refused, diff = _as_diff(files, edits.apply(files, proposal.edits), campaign.controller.sealed_text)
    opened = campaign.open(proposal, diff=diff, refused=refused)
    log.info("stack_opened", experiment=opened.number, combines=proposal.combines, refused=opened.reason)
    return opened


def _as_diff(
    files: Files, applied: Files | edits.Refusal, sealed: contamination.SealedText
) -> tuple[Refused | None, str]:
    """The reason of a refusal and the diff of a candidate; the ledger rebuilds its tree from the diff alone."""
    if isinstance(applied, edits.Refusal):
        return Refused(reason=applied.reason), ""
    diff = edits.diff(files, applied)
    if edits.apply(files, (Patch(text=diff),)) != applied:
        return Refused(reason="its diff does not reproduce its files"), diff
    found = contamination.find(files, applied, sealed)
    return None if found is None else Refused(reason=found), diff
