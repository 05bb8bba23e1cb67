"""Repetitions are recognized whatever their spelling, and other changes are not."""

from __future__ import annotations

import time

import pytest

from runner import edits
from runner.proposers.researcher import duplicates
from runner.records import Verdict
from tests.support.tried import BASELINE, FILES, tried


def changed(**texts):
    return {**FILES, **{f"workload/{name}.py": text.encode() for name, text in texts.items()}}


FASTER = changed(train="RATE = 0.04  # peak\nSTEPS = 5\nWARM = 0\n")


def repeated(after, before=FILES, past_after=FASTER, past_before=FILES, verdict=Verdict.DISCARD, **options):
    past = [BASELINE, tried(7, verdict, diff=edits.diff(past_before, past_after))]
    found = duplicates.repeats(before, after, past, **options)
    return None if found is None else found.number


@pytest.mark.parametrize(
    "train",
    [
        "RATE = 0.04  # peak\nSTEPS = 5\nWARM = 0\n",
        "RATE = 4e-2\nSTEPS = 5\nWARM = 0\n",
        "RATE=0.040 # twice as fast\nSTEPS = 5\nWARM = 0\n",
        "# Twice as fast.\nRATE = 0.04\n\nSTEPS = 5\nWARM = 0\n",
        "STEPS = 5\nWARM = 0\nRATE = (0.04)\n",
    ],
)
def test_the_same_change_in_another_spelling_is_a_repetition(train):
    assert repeated(changed(train=train)) == 7


@pytest.mark.parametrize(
    "train",
    [
        "RATE = 0.05\nSTEPS = 5\nWARM = 0\n",
        "RATE = 0.04\nSTEPS = 6\nWARM = 0\n",
        "RATE = 0.02\nSTEPS = 5\nWARM = 0.04\n",
        "# Only a comment.\nRATE = 0.02  # peak\nSTEPS = 5\nWARM = 0\n",
    ],
)
def test_another_change_is_not_a_repetition(train):
    assert repeated(changed(train=train)) is None


def test_the_same_step_on_another_tip_is_a_repetition_but_not_from_another_value():
    moved = changed(model="WIDTH = 96\n\n\ndef f(a):\n    return a\n", train="X = 1\nRATE = 0.02\nSTEPS = 5\n")
    after = {**moved, "workload/train.py": b"X = 1\nRATE = 0.04\nSTEPS = 5\n"}
    assert repeated(after, before=moved) == 7
    slower = changed(train="RATE = 0.08\nSTEPS = 5\nWARM = 0\n")
    assert repeated(FASTER, before=slower) is None


def test_infrastructure_failures_and_the_crash_that_is_being_fixed_do_not_count():
    assert repeated(FASTER, verdict=Verdict.INFRA) is None
    assert repeated(FASTER, verdict=Verdict.CRASH) == 7
    assert repeated(FASTER, verdict=Verdict.CRASH, retry_of=7) is None
    assert repeated(FASTER, verdict=None) == 7


@pytest.mark.parametrize(
    ("verdict", "edits_certified", "repetition"),
    [(Verdict.DISCARD, (6, 7), False), (Verdict.DISCARD, (7,), True), (Verdict.KEEP, (6, 7), True)],
)
def test_an_edit_may_be_tried_alone_after_it_was_rolled_back_with_others(verdict, edits_certified, repetition):
    diff = edits.diff(FILES, FASTER)
    past = [BASELINE, tried(7, Verdict.ACCEPT, diff=diff), tried(8, verdict, certifies=edits_certified, diff=diff)]
    assert (duplicates.repeats(FILES, FASTER, past) is not None) is repetition


def test_code_that_does_not_parse_line_by_line_is_compared_as_well():
    after = changed(model="WIDTH = 64\n\n\ndef f(a):\n    if a:  # why not\n        return 0\n    return a\n")
    same = changed(model="WIDTH = 64\n\n\ndef f(a):\n    if   a:\n        return 0\n    return a\n")
    assert repeated(same, past_after=after) == 7


def test_a_thousand_experiments_are_searched_quickly():
    past = [
        tried(n, diff=edits.diff(FILES, changed(train=f"RATE = 0.{n}5\nSTEPS = {n}\nWARM = 0\n")))
        for n in range(1, 1001)
    ]
    duplicates.repeats(FILES, FASTER, past)  # each diff is read once
    began = time.process_time()
    assert (
        duplicates.repeats(FILES, changed(train="RATE = 0.10005\nSTEPS = 1000\nWARM = 0\n"), past).number == 1000
    )
    assert time.process_time() - began < 1
