"""From a proposal to an open experiment: its edits of the present tip, as a diff, or the reason of a refusal."""

from __future__ import annotations

import structlog

from runner import edits
from runner.campaign.backstop import Bug, guarded
from runner.campaign.campaign import Campaign
from runner.campaign.candidate import program_files
from runner.edits import contamination
from runner.proposers import Proposer
from runner.records import Experiment, Files, Patch, Proposal, Verdict
from runner.storage.conversations import Conversation
from runner.storage.rows import Refused
from runner.untrusted import prompt_text

log = structlog.get_logger()

HYPOTHESIS_CHARACTERS = 2_000
"""Length of the hypothesis of a proposal that could not be read."""


def place(
    campaign: Campaign, proposer: Proposer, conversation: Conversation, proposal: Proposal
) -> Experiment | None:
    """Open the experiment of a proposal; None when the tip has changed and has no room for it.

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
        parent=campaign.tip.number,
        retry_of=conversation.retry_of,
        refused=Refused(reason=made.reason, verdict=Verdict.INFRA),
        conversation=conversation.id,
    )


def _place(campaign: Campaign, conversation: Conversation, proposal: Proposal) -> Experiment | None:
    tip_then = campaign.memory.tip_after(conversation.seen)
    files = program_files(campaign, campaign.experiments[tip_then])
    applied = edits.apply(files, proposal.edits)
    if campaign.tip.number != tip_then and not isinstance(applied, edits.Refusal):
        moved = program_files(campaign, campaign.tip)
        applied = edits.carry_over(moved, base=files, changed=applied)
        files = moved
        if isinstance(applied, edits.Refusal):
            campaign.ledger.conversations.end(conversation.id, proposal.transcript)
            campaign.observer.note(f"the prefetched idea does not fit the new tip: {applied.reason}")
            log.info("idea_outdated", hypothesis=proposal.hypothesis, reason=applied.reason)
            return None
    refused, diff = as_diff(files, applied, campaign.controller.sealed_text)
    opened = campaign.open(
        proposal,
        diff=diff,
        parent=campaign.tip.number,
        retry_of=conversation.retry_of,
        refused=refused,
        conversation=conversation.id,
    )
    log.info("proposal_received", experiment=opened.number, refused=opened.reason)
    return opened


def as_diff(
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
