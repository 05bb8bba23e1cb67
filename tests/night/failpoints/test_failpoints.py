"""The controller is killed at every step that outlives it, and in its recovery: it ends as if it never was."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from runner.failpoints import Side, Step
from tests.support import scripted_night
from tests.support.failpoint_nights import DOCKER, acknowledged, final_state, make_repository, rows, whole_night
from tests.support.replicates import replicates

ROOT = Path(__file__).resolve().parents[3]
ELSEWHERE = {
    Step.CAMPAIGN_DELETED: "a workload that does not run",
    Step.LOST_TRIALS_CLOSED: "the first step of every recovery",
    Step.CRASHES_EXCUSED: "a machine on which nothing runs any more",
    Step.ATTEMPT_RECORDED: "no step of a night: `autoresearch confirm`",
}
POINTS = [(step, side) for step in Step if step not in DOCKER | ELSEWHERE.keys() for side in Side]


def test_the_night_crosses_every_path(uninterrupted):
    _, state = uninterrupted
    verdicts = [row["verdict"] for row in state["experiments"]]
    assert verdicts == [
        *("keep", "discard", "accept", "keep", "crash", "crash", "invalid", "crash", "infra"),
        *("accept", "discard", "discard", "accept", "accept", "keep"),
    ]
    certificates = {row["number"]: json.loads(row["certifies"]) for row in state["experiments"][1:]}
    assert {one: edits for one, edits in certificates.items() if edits} == {3: [2], 11: [9], 14: [12, 13]}
    assert [state["experiments"][number]["parent"] for number in (10, 12, 13)] == [9, 3, 12], "each on the tip"
    assert state["experiments"][5]["retry_of"] == 4
    assert "quarantined" in state["experiments"][8]["reason"]
    ideas = [number for number in range(1, 15) if not certificates[number]]
    assert state["money"] == {None: [0.25], **{number: [0.25] for number in ideas}}, "certificates cost no answer"
    sealed = Counter(number for number, *_ in state["sealed"])
    assert sealed == {0: 2 + 2, 3: 2 + 2 + 2, 11: 2, 14: 2}, "the baseline, and both sides of each certificate"
    # Twice in each certificate, and as the tip after one run of others: the baseline, and the one rolled back to.
    assert [number for number, _, _ in state["controls"]] == [0] * 3 + [3] * 5
    assert len(state["history"]) == 2, "one commit for each certificate"


def test_every_point_is_reached_or_has_a_reason(uninterrupted):
    reached, _ = uninterrupted
    assert set(reached) >= set(POINTS), "a step that no night reaches is never tested"
    assert {step for step, _ in reached}.isdisjoint(DOCKER | ELSEWHERE.keys())


def test_the_page_says_what_a_restart_makes_of_every_step():
    page = (ROOT / "docs" / "reliability.md").read_text("utf-8")
    recovery = page.partition("### How a restart recovers from each step")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"`([a-z]+_[a-z_]+)`", recovery)) == sorted(Step)


SHIFTS = range(replicates(1))
"""Each begins the kills one occurrence earlier, and moves the one in the recovery on by a step."""


def middle(reached, step, side, shift):
    """The occurrence at which a night is killed first."""
    return max(1, 1 + reached.count((step, side)) // 2 - shift)


LOST_ANSWER = ((Step.ANSWER_BOOKED, Side.AFTER), (Step.ANSWER_KEPT, Side.BEFORE))
"""Killed here, an answer has begun and has not come whole: it is asked for again, its cost stays booked."""


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize(("step", "side"), POINTS, ids=lambda value: str(value))
def test_a_night_killed_there_and_in_its_recovery_ends_as_if_nothing_had_been(
    night, tmp_path, uninterrupted, step, side, shift
):
    """In the middle of the night, a few steps into the recovery, and at the next time that the point is passed."""
    reached, whole = uninterrupted
    root = make_repository(tmp_path / "repository")
    before, lost = {}, 0
    for item in (
        {"step": step, "side": side, "occurrence": middle(reached, step, side, shift)},
        {"reach": 1 + (POINTS.index((step, side)) + shift) % 11},
        {"step": step, "side": side},
    ):
        result = night(root, **item)
        assert result.end == (0 if before and "step" in item and (step, side) not in result.reached else -9), (
            result.errors
        )
        lost += result.end != 0 and result.reached[-1] in LOST_ANSWER
        after = acknowledged(root, result)
        for name, old in before.items():
            assert [row for row in old if row not in after[name]] == [], f"{name}: changed or lost"
        before = after
    result = night(root)
    assert result.end == 0, result.errors
    state = final_state(root)
    bookings = sum(len(costs) for costs in state["money"].values())
    assert bookings == sum(len(costs) for costs in whole["money"].values()) + lost, "no answer is paid for twice"
    if lost:
        state["money"] = whole["money"]
    assert state == whole


NEVER_IDLE = [
    (step, side)
    for step in (
        Step.CONVERSATION_OPENED,
        Step.ANSWER_BOOKED,
        Step.ANSWER_KEPT,
        Step.CHECK_KEPT,
        Step.EXPERIMENT_OPENED,
        Step.TRIAL_CLOSED,
        Step.EXPERIMENT_CLOSED,
        Step.BRANCH_ADVANCED,
        Step.KEEP_RECORDED,
        Step.TIP_MOVED,
    )
    for side in Side
]


@pytest.fixture(scope="module")
def ahead(night, tmp_path_factory):
    """The points of a night that is never idle, and its final state."""
    root = make_repository(tmp_path_factory.mktemp("ahead") / "repository", "ahead")
    reached, state = whole_night(night, root)
    assert [row["verdict"] for row in state["experiments"]] == [
        "keep", "discard", "accept", "keep", "discard", "discard", "accept", "keep", "discard",
    ]  # fmt: skip
    assert state["money"] == {number: [0.25] for number in (1, 2, 4, 5, 6, 8)}
    asked = rows(root, "conversations")
    assert [row["running"] for row in asked] == [None, 1, 2, 4, 5, 6], "each while the one before it ran"
    assert [row["parent"] for row in state["experiments"]] == [None, 0, 0, 0, 3, 3, 3, 3, 7], "moved to the tip"
    return reached, state


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize(("step", "side"), NEVER_IDLE, ids=lambda value: str(value))
def test_a_night_that_thinks_ahead_ends_as_if_nothing_had_been(night, tmp_path, ahead, step, side, shift):
    """Killed on either thread, three times: what waits is found, and nothing is asked twice."""
    reached, whole = ahead
    root = make_repository(tmp_path / "repository", "ahead")
    for item in (
        {"step": step, "side": side, "occurrence": middle(reached, step, side, shift)},
        {"reach": 1 + (NEVER_IDLE.index((step, side)) + shift) % 7},
        {"step": step, "side": side},
    ):
        assert night(root, **item).end in (-9, 0)
    result = night(root)
    assert result.end == 0, result.errors
    state = final_state(root)
    cut = sum(row["body"] is None for row in rows(root, "answers"))
    assert cut <= 3
    assert len(rows(root, "answers")) - cut == len(scripted_night.AHEAD), "no answer is paid for twice"
    if cut:
        state["money"] = whole["money"]
    assert state == whole


AROUND_A_STOP = [
    (step, side) for step in (Step.TRIAL_OPENED, Step.TRIAL_CLOSED, Step.EXPERIMENT_CLOSED) for side in Side
]


@pytest.fixture(scope="module")
def early(night, tmp_path_factory):
    """The points of a night with a run that is stopped early, and its final state."""
    root = make_repository(tmp_path_factory.mktemp("early") / "repository", "early")
    reached, state = whole_night(night, root)
    assert [row["verdict"] for row in state["experiments"]] == ["keep", "discard", "discard", "accept", "keep"]
    assert state["experiments"][2]["val_bpb"] is None
    assert "stopped early" in state["experiments"][2]["reason"]
    return reached, state


@pytest.mark.parametrize(("step", "side"), AROUND_A_STOP, ids=lambda value: str(value))
def test_a_recorded_stop_is_settled_and_an_unrecorded_one_is_measured_again(night, tmp_path, early, step, side):
    """There is no second draw once the stop was written down."""
    reached, whole = early
    closed = [at for at, point in enumerate(reached) if point == (Step.EXPERIMENT_CLOSED, Side.AFTER)]
    occurrence = reached[: closed[2] + 1].count((step, side))  # the last one that belongs to the stopped one
    root = make_repository(tmp_path / "repository", "early")
    assert night(root, step=step, side=side, occurrence=occurrence).end == -9
    before = [row["outcome"] for row in rows(root, "trials") if row["experiment"] == 2]
    assert ("stopped" in before) == ((step, side) not in AROUND_A_STOP[:3])
    result = night(root)
    assert result.end == 0, result.errors
    assert final_state(root) == whole
    after = [row["outcome"] for row in rows(root, "trials") if row["experiment"] == 2]
    assert after.count("stopped") == 1
    assert "stopped" not in before or after == before, "what was settled is not run again"


CERTIFIED, ROLLED_BACK = 3, 11
IN_A_CERTIFICATE = [
    (number, step, side, nth)
    for number, step, times in (
        (CERTIFIED, Step.EXPERIMENT_OPENED, 1),
        (CERTIFIED, Step.SCORE_SEALED, 2),
        (CERTIFIED, Step.TRIAL_CLOSED, 4),
        (CERTIFIED, Step.EXPERIMENT_CLOSED, 1),
        (CERTIFIED, Step.BRANCH_ADVANCED, 1),
        (CERTIFIED, Step.KEEP_RECORDED, 1),
        (CERTIFIED, Step.TIP_MOVED, 1),
        (ROLLED_BACK, Step.EXPERIMENT_CLOSED, 1),
        (ROLLED_BACK, Step.TIP_MOVED, 1),
    )
    for nth in range(1, times + 1)
    for side in Side
]


@pytest.mark.parametrize(("number", "step", "side", "nth"), IN_A_CERTIFICATE, ids=lambda value: str(value))
def test_a_certificate_goes_on_in_the_middle_wherever_the_controller_is_killed(
    night, tmp_path, uninterrupted, number, step, side, nth
):
    """Within a pair, between pairs, between verdict and commit, while the tip moves forward or back."""
    reached, whole = uninterrupted
    opened = [at for at, point in enumerate(reached) if point == (Step.EXPERIMENT_OPENED, Side.BEFORE)]
    occurrence = reached[: opened[number]].count((step, side)) + nth
    root = make_repository(tmp_path / "repository")
    assert night(root, step=step, side=side, occurrence=occurrence).end == -9
    at_kill = [row for row in rows(root, "trials") if row["outcome"] == "scored"]
    result = night(root)
    assert result.end == 0, result.errors
    assert final_state(root) == whole
    after = rows(root, "trials")
    assert [row for row in at_kill if row not in after] == [], "what was measured counts"
    assert sum(row["outcome"] == "lost" and row["reason"] == "the controller was killed" for row in after) <= 1
