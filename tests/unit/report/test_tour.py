"""The story of the tour: every verdict in plain words, from the figures of the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.records import AuditRecord, Outcome, Phase, Verdict
from runner.report.tour import Told, baseline_story, diff_excerpt, ending, looked_better, opening, overview
from tests.support.synthetic_experiments import HOSTILE, experiment
from tests.support.synthetic_verdicts import FIGURES
from tests.support.trials import CLEAN, failed, run, scored

WIDTH = 72
CHAMPION = experiment(0, "keep", 2.05, trials=(scored(2.049, 1, id=3), scored(2.051, 2, id=12)))
DIFF = "diff --git a/w.py b/w.py\n--- a/w.py\n+++ b/w.py\n@@ -1 +1 @@\n-A = 1\n+A = 2\n"
REFUSED = AuditRecord(**{
    **vars(CLEAN), "claimed_bpb": 0.5, "finding": "not_causal", "reason": "not causal: logits change",
})  # fmt: skip
CHEAT = experiment(
    4, "invalid", None, champion=0,
    trials=(failed(Outcome.INVALID, runs=[
        run(Phase.SCORE, val_bpb=0.5), run(Phase.AUDIT, audit=REFUSED, val_bpb=3.3),
    ]),),
)  # fmt: skip


def told(verdict, bpb=1.93, *, meant=None, **fields):
    usual = {"champion": 0, "diff": DIFF, "trials": (scored(1.94, 5, id=22), scored(1.92, 6, id=25))}
    one = experiment(3, verdict, bpb, **{**usual, **fields})
    return Told(experiment=one, champion=CHAMPION, title="a stop", meant=meant)


def figures(delta, better, first=None, se=0.01):
    return replace(
        FIGURES, delta_bpb=delta, better=better, se_bpb=se, first_delta_bpb=delta if first is None else first
    )


KEPT = told("keep", figures=figures(-0.12, 0.999))
LUCKY = told("discard", figures=figures(-0.004, 0.63))
HARMFUL = told("discard", figures=figures(0.12, 0.001))
CRASHED = told("crash", None, reason="training exited with code 1", log_tail="a\nb\nTypeError: no", trials=())
CHEATED = Told(experiment=CHEAT, champion=CHAMPION, title="a cheat")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (KEPT, ["KEPT: over 99% sure that it is better, 95% needed.", "8 of its predictions"]),
        (KEPT, ["0.120 ± 0.010 bpb better"]),
        (KEPT, ["1.9400, 1.9200 (2 trials, each with a new seed)", "the champion 2.0490, 2.0510"]),
        (LUCKY, ["within the noise: 63% sure that it is better, 95% needed", "a rule that keeps every better"]),
        (told("discard", figures=figures(0.004, 0.4)), ["within the noise: 40% sure"]),
        (told("discard", figures=figures(0.03, 0.02)), ["DISCARDED, not better: 2% sure"]),
        (replace(LUCKY, changes_nothing=True), ["Luck made it better. Its first number was better, so"]),
        (replace(HARMFUL, changes_nothing=True), ["Luck, or a busy machine, made it worse."]),
        (HARMFUL, ["DISCARDED, harmful: over 99% sure that it is worse."]),
        (CRASHED, ["TypeError: no", "CRASHED: training exited with code 1.", "one more try"]),
        (CHEATED, ["claims 0.500 bpb, where the champion has 2.050", "REFUSED"]),
        (CHEATED, ["puts its score at 3.30 bpb. Not causal: logits change."]),
        (CHEATED, ["A rule that believes every number would have kept it."]),
        (told("invalid", None, reason="outside workload/", trials=()), ["REFUSED: outside workload/."]),
        (told("infra", None, reason="lost", trials=()), ["says nothing about the idea"]),
    ],
)  # fmt: skip
def test_an_ending_says_what_was_measured_and_why_it_was_decided(one, words):
    text = " ".join(" ".join(ending(one, WIDTH)).split())
    assert [word for word in words if word not in text] == [], text


def test_an_edit_that_is_worse_is_not_called_lucky():
    text = " ".join(ending(told("discard", figures=figures(0.004, 0.4)), WIDTH))
    assert "would have kept it" not in text


def test_a_stop_that_ends_differently_says_so():
    surprise = replace(LUCKY, meant=Verdict.KEEP)
    assert "usually ends as keep" in " ".join(ending(surprise, WIDTH))
    assert "usually" not in " ".join(ending(replace(LUCKY, meant=Verdict.DISCARD), WIDTH))


def test_a_greedy_rule_keeps_luck_and_cheats():
    assert [looked_better(one) for one in (KEPT, LUCKY, HARMFUL, CRASHED, CHEATED)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    text = " ".join(overview([KEPT, LUCKY, HARMFUL, CRASHED, CHEATED], WIDTH))
    assert "Kept: 1 of 5 edits." in text
    assert "would have kept 3, 1 within the noise and 1 that cheats among them" in " ".join(text.split())


def test_the_baseline_shows_its_numbers():
    text = " ".join(baseline_story(CHAMPION, WIDTH))
    assert "twice: 2.0490, 2.0510 bpb" in text


def test_an_opening_shows_the_idea_and_the_changed_lines():
    lines = opening(LUCKY, WIDTH)
    assert lines[1].startswith("── a stop ──")
    assert [line.strip() for line in lines[-2:]] == ["- A = 1", "+ A = 2"]


def test_a_long_diff_is_cut():
    lines = diff_excerpt(DIFF + "+x\n" * 20)
    assert len(lines) < 10 and lines[-1] == "… 18 more lines"


@pytest.mark.parametrize("width", [60, 80, 96])
@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_a_line_or_reaches_the_terminal(width, text):
    one = told("crash", None, hypothesis=text, reason=text, log_tail=text, diff=f"{DIFF}+{text}\n")
    lines = [*opening(one, width), *ending(one, width), *overview([one], width)]
    assert all(len(line) <= width and (line.isprintable() or not line) for line in lines), lines
