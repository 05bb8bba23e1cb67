"""Failpoints: named points before and after every durable step of a controller, where a test can kill it.

Reaching one costs a comparison unless a test sets `on_reach`, which may end the process there, as a power cut
would. `docs/reliability.md` describes what a restart does after each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum


class Step(StrEnum):
    """Every durable effect of a controller."""

    # Ledger: before and after its COMMIT.
    LEDGER_MADE = "ledger_made"
    CAMPAIGN_CREATED = "campaign_created"
    CAMPAIGN_DELETED = "campaign_deleted"
    TARGET_SET = "target_set"
    CONVERSATION_OPENED = "conversation_opened"
    ANSWER_BOOKED = "answer_booked"
    ANSWER_KEPT = "answer_kept"
    CHECK_KEPT = "check_kept"
    CONVERSATION_ENDED = "conversation_ended"
    EXPERIMENT_OPENED = "experiment_opened"
    CANDIDATE_RECORDED = "candidate_recorded"
    TRIAL_OPENED = "trial_opened"
    CLAIMS_COMMITTED = "claims_committed"
    SCORE_SEALED = "score_sealed"
    TRIAL_CLOSED = "trial_closed"
    LOST_TRIALS_CLOSED = "lost_trials_closed"
    EXPERIMENT_CLOSED = "experiment_closed"
    CRASHES_EXCUSED = "crashes_excused"
    KEEP_RECORDED = "keep_recorded"
    ATTEMPT_RECORDED = "attempt_recorded"
    # Git.
    OBJECTS_WRITTEN = "objects_written"
    COMMIT_WRITTEN = "commit_written"
    CANDIDATE_NAMED = "candidate_named"
    BRANCH_ADVANCED = "branch_advanced"
    TIP_MOVED = "tip_moved"
    # Files: before and after the rename that makes one whole.
    FILE_REPLACED = "file_replaced"
    EVALUATION_PINNED = "evaluation_pinned"
    AUDIT_ROWS_WRITTEN = "audit_rows_written"
    # Docker.
    IMAGE_BUILT = "image_built"
    VOLUME_CREATED = "volume_created"
    CONTAINER_CREATED = "container_created"
    CONTAINER_STARTED = "container_started"
    CONTAINER_REMOVED = "container_removed"
    VOLUME_REMOVED = "volume_removed"


class Side(StrEnum):
    """A side of a step."""

    BEFORE = "before"
    AFTER = "after"


on_reach: Callable[[Step, Side], None] | None = None
"""Called at every failpoint; `None`: off."""


def reach(step: Step, side: Side) -> None:
    """Mark a point where the controller may die."""
    if on_reach is not None:
        on_reach(step, side)


@contextmanager
def around(step: Step) -> Iterator[None]:
    """Mark both sides of a step; a step that fails has no second side."""
    reach(step, Side.BEFORE)
    yield
    reach(step, Side.AFTER)
