"""Hostile programs in containers of their own: each ends as it should, on time, and changes nothing outside.

`attack` asserts the second half for each: time, locked evaluation, git, ledger, canaries, disk, clock, memory of
the controller, containers and volumes.
"""

from __future__ import annotations

import pytest

from runner.records import RunEnd
from tests.hostile.behaviors import Fate
from tests.hostile.checkpoints import CHECKPOINTS
from tests.hostile.clocks import CLOCKS
from tests.hostile.resources import RESOURCES

pytestmark = pytest.mark.docker

BEHAVIORS = [*RESOURCES, *CLOCKS, *CHECKPOINTS]
EXIT_NO_CHECKPOINT = 3
LOG_BYTES = 256 * 1024


def of(fate):
    """The behaviors that must end so."""
    chosen = [behavior for behavior in BEHAVIORS if behavior.fate is fate]
    return pytest.mark.parametrize("behavior", chosen, ids=[behavior.name for behavior in chosen])


def suffered(attack, behavior):
    """Run it, and check what is said of every fate."""
    made = attack(
        behavior.files,
        score=behavior.scored is not None,
        train_seconds=behavior.limit_seconds,
        **behavior.settings,
    )
    assert made.trained.end in behavior.ends, made.trained
    assert behavior.log in made.trained.log_tail
    assert len(made.trained.log_tail) <= LOG_BYTES
    if behavior.scored is not None:
        accepted = (made.scored.end, made.answer is not None)
        assert accepted == ((RunEnd.FINISHED, True) if behavior.scored else (RunEnd.FAILED, False)), made.scored
        assert behavior.scored or made.scored.exit_code == EXIT_NO_CHECKPOINT
    return made


@of(Fate.KILLED)
def test_what_would_never_end_is_killed_at_its_deadline(attack, behavior):
    suffered(attack, behavior)


@of(Fate.CONTAINED)
def test_what_takes_all_it_can_get_meets_a_limit(attack, behavior):
    made = suffered(attack, behavior)
    assert made.trained.wall_seconds < behavior.limit_seconds, "the limit must end it, not the deadline"


@of(Fate.DENIED)
def test_what_is_wanted_is_not_done(attack, behavior):
    suffered(attack, behavior)


def test_a_changed_state_is_reported(estate):
    """The estate's own detector fires, for every kind of change that the host can make here."""
    before = estate.state()
    assert before.changes(estate.state()) == []
    judge = estate.locked / "locked_eval" / "judging" / "judge.py"
    text = judge.read_text()
    head = estate.repository().resolve("HEAD")
    changes = {
        "files": (
            lambda: estate.canaries[0].write_text("other"),
            lambda: estate.canaries[0].write_text("as it was"),
        ),
        "locked_differences": (lambda: judge.write_text(text + "\n"), lambda: judge.write_text(text)),
        "refs": (
            lambda: estate.git("update-ref", "refs/heads/other", head),
            lambda: estate.git("update-ref", "-d", "refs/heads/other"),
        ),
        "rows": (lambda: estate.ledger.set_target("test", 7), lambda: estate.ledger.set_target("test", 0)),
        "volumes": (estate.leave_volume, estate.remove_left),
    }
    for kind, (do, undo) in changes.items():
        do()
        told = before.changes(estate.state())
        undo()
        assert any(one.startswith(kind) for one in told), (kind, told)
    assert before.changes(estate.state()) == []
