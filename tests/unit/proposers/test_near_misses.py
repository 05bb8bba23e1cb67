"""One definition of a near miss: every text that mentions near misses agrees with the keep rule's predicate."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from runner.decision.history import is_near_miss
from runner.decision.keep_rule import NEAR_MISS_SIGMAS
from runner.proposers import combine
from runner.proposers.researcher import experiments_tool
from runner.proposers.researcher.digest import digest
from runner.proposers.researcher.plateau import MAX_NEAR_MISSES, plateau
from runner.proposers.researcher.prompt import RULES
from runner.records import Experiment, Verdict
from runner.report.notes import stacks
from tests.support.near_misses import FIGURES, SIGMA, discarded
from tests.support.replicates import replicates

BASELINE = Experiment(number=0, hypothesis="baseline", proposer="b", verdict=Verdict.KEEP, val_bpb=2.0)
# Around the threshold, and deltas that contradict the expected effect: a lucky score, an unlucky one.
EFFECTS = st.one_of(st.sampled_from([0.0, 0.9, 1.1, -1.1]).map(lambda f: f * NEAR_MISS_SIGMAS), st.floats(-9, 9))
VERDICTS = st.sampled_from([Verdict.DISCARD] * 6 + [Verdict.KEEP, Verdict.CRASH, Verdict.INVALID, Verdict.INFRA])


@st.composite
def histories(draw):
    """A campaign; some discards were stopped early, and some experiments combine earlier near misses."""
    history = [BASELINE]
    for number in range(1, draw(st.integers(1, 14)) + 1):
        delta_bpb = draw(st.floats(-3, 3)) * SIGMA
        one = discarded(number, draw(EFFECTS), delta_bpb=delta_bpb, verdict=draw(VERDICTS))
        if draw(st.integers(0, 5)) == 0:
            one = replace(one, figures=None, val_bpb=None, delta_bpb=None, reason="stopped at 50% of its time")
        free = [piece.number for piece in combine.shelf(history)]
        if len(free) >= 2 and draw(st.booleans()):
            one = replace(one, combines=tuple(sorted(free[:2])))
        history.append(one)
    return history


def numbers(text, pattern=r"#(\d+)"):
    return [int(number) for number in re.findall(pattern, text)]


def section(text, title):
    """The lines of one section of a digest."""
    found = re.search(rf"^{title}[^\n]*:\n((?:- .*\n?)*)", text, re.MULTILINE)
    return found[1] if found else ""


@given(histories())
def test_every_text_that_mentions_near_misses_uses_the_predicate_of_the_keep_rule(history):
    expected = {one.number for one in history if is_near_miss(one) and not one.combines}
    used = {piece for one in history for piece in one.combines}
    near = combine.near_misses(history)
    assert {one.number for one in near} == expected
    assert {one.number for one in combine.shelf(history)} == expected - used

    text = digest(history)
    lines = section(text, "Near misses")
    assert numbers(lines, r"(?m)^- #(\d+)") == [one.number for one in near], "the same ones, in the same order"
    assert lines.count("may help a little") == len(expected)
    for one in near:
        assert f"(expected effect {one.figures.effect_bpb:+.6f} bpb)" in lines

    listed = experiments_tool.read({"status": "near_miss"}, history)
    assert set(numbers(listed, r"(?m)^#(\d+)")) == expected
    if not expected:
        assert listed == "No experiment matches."

    stuck = plateau(history, 1)
    if stuck is not None and "near misses" in stuck.request:
        best = [one.number for one in near if one.number not in used]
        assert numbers(stuck.request) == best[:MAX_NEAR_MISSES]
    elif stuck is not None:
        assert len(expected - used) < 2
    assert stacks(history).near_misses == len(expected), "the summary counts the same ones"


@given(histories())
@settings(max_examples=replicates(50))
def test_a_verdict_line_promises_a_little_help_only_to_near_misses_and_stacks_like_them(history):
    for line in digest(history).splitlines():
        if "may help a little" in line:
            assert is_near_miss(history[numbers(line)[0]])


def test_the_rules_state_the_threshold_of_the_keep_rule():
    sentence = re.search(r"by more than ([\d.]+) noise\s+standard deviations, is a near miss", RULES)
    assert float(sentence[1]) == NEAR_MISS_SIGMAS


def test_a_lucky_score_alone_makes_no_near_miss():
    lucky = discarded(1, 0.0, delta_bpb=-0.9 * SIGMA)
    unlucky = discarded(2, 0.0, delta_bpb=0.9 * SIGMA, figures=replace(FIGURES, effect_bpb=-SIGMA))
    assert [one.number for one in combine.near_misses([BASELINE, lucky, unlucky])] == [2]
