"""The story of the tour: every verdict in plain words, from the figures of the ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner.records import AuditRecord, Outcome, Phase, Verdict
from runner.report.tour import TourStop, baseline_story, diff_excerpt, ending, looked_better, opening, overview
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


def stop(verdict, bpb=1.93, *, meant=None, **fields):
    usual = {"champion": 0, "diff": DIFF, "trials": (scored(1.94, 5, id=22), scored(1.92, 6, id=25))}
    one = experiment(3, verdict, bpb, **{**usual, **fields})
    return TourStop(experiment=one, champion=CHAMPION, title="a stop", meant=meant)


def figures(delta, better, se=0.01):
    return replace(FIGURES, delta_bpb=delta, better=better, se_bpb=se)


def certificate(verdict, reason):
    """Two pairs, under seeds 5 and 6."""
    champion = replace(CHAMPION, control_trials=(scored(2.05, 5, opened_seq=9), scored(2.06, 6, opened_seq=9)))
    one = experiment(
        9, verdict, 1.93, champion=0, certifies=(3, 5), opened_seq=8, reason=reason, figures=figures(-0.12, 0.999),
        trials=(scored(1.94, 5), scored(1.92, 6)),
    )  # fmt: skip
    return TourStop(experiment=one, champion=champion, title="the certificate")


KEPT = certificate("keep", "better by 0.1200 ± 0.0100 bpb in 2 pairs")
ACCEPTED = stop("accept", figures=figures(-0.12, 0.999))
LUCKY = stop("discard", figures=figures(-0.004, 0.56))
HARMFUL = stop("discard", figures=figures(0.12, 0.001))
CRASHED = stop("crash", None, reason="training exited with code 1", log_tail="a\nb\nTypeError: no", trials=())
CHEATED = TourStop(experiment=CHEAT, champion=CHAMPION, title="a cheat")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (KEPT, ["KEPT: better by 0.1200 ± 0.0100 bpb in 2 pairs.", "8 of its predictions", "and has a commit"]),
        (KEPT, ["1.9400 / 2.0500, 1.9200 / 2.0600 (tip / champion in 2 pairs, a new seed for each)"]),
        (certificate("discard", "worse"), ["ROLLED BACK: worse. The next ideas start from the champion."]),
        (certificate("unclear", "not proven"), ["UNCLEAR: not proven. The tip stays"]),
        (ACCEPTED, ["ACCEPTED onto the tip: over 99% sure that it is better; the tip takes it from 60%."]),
        (ACCEPTED, ["1.9300; the tip 2.0500 under the same seed: 0.120 ± 0.010 bpb better."]),
        (replace(ACCEPTED, changes_nothing=True), ["Luck made it better: the certificate will measure again."]),
        (LUCKY, ["within the noise: 56% sure that it is better; the tip takes it from 60%", "keeps every better"]),
        (stop("discard", figures=figures(0.004, 0.4)), ["within the noise: 40% sure"]),
        (stop("discard", figures=figures(0.03, 0.02)), ["DISCARDED, not better: 2% sure"]),
        (replace(LUCKY, changes_nothing=True), ["Luck made it better. Its number was better, so"]),
        (replace(HARMFUL, changes_nothing=True), ["Luck, or a busy machine, made it worse."]),
        (HARMFUL, ["DISCARDED, harmful: over 99% sure that it is worse."]),
        (CRASHED, ["TypeError: no", "CRASHED: training exited with code 1.", "one more try"]),
        (CHEATED, ["claims 0.500 bpb, where the champion has 2.050", "REFUSED"]),
        (CHEATED, ["puts its score at 3.30 bpb. Not causal: logits change."]),
        (CHEATED, ["A rule that believes every number would have kept it."]),
        (stop("invalid", None, reason="outside workload/", trials=()), ["REFUSED: outside workload/."]),
        (stop("infra", None, reason="lost", trials=()), ["says nothing about the idea"]),
    ],
)  # fmt: skip
def test_an_ending_says_what_was_measured_and_why_it_was_decided(one, words):
    text = " ".join(" ".join(ending(one, WIDTH)).split())
    assert [word for word in words if word not in text] == [], text


def test_an_edit_that_is_worse_is_not_called_lucky():
    text = " ".join(ending(stop("discard", figures=figures(0.004, 0.4)), WIDTH))
    assert "would have kept it" not in text


def test_a_stop_that_ends_differently_says_so():
    surprise = replace(LUCKY, meant=Verdict.ACCEPT)
    assert "usually ends as accept" in " ".join(ending(surprise, WIDTH))
    assert "usually" not in " ".join(ending(replace(LUCKY, meant=Verdict.DISCARD), WIDTH))


def test_a_greedy_rule_keeps_luck_and_cheats():
    assert [looked_better(one) for one in (ACCEPTED, LUCKY, HARMFUL, CRASHED, CHEATED)] == [
        True, True, False, False, True,
    ]  # fmt: skip
    assert not looked_better(certificate("discard", "better by too little")), "a greedy rule has no certificates"
    text = " ".join(" ".join(overview([ACCEPTED, LUCKY, HARMFUL, CRASHED, CHEATED, KEPT], WIDTH)).split())
    assert "Of 5 edits, 1 went onto the tip, and 2 are certified and in the champion." in text
    assert "would have kept 3, 1 within the noise and 1 that cheats among them" in text
    assert "certificate of 2 edits" in text


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
    one = stop("crash", None, hypothesis=text, reason=text, log_tail=text, diff=f"{DIFF}+{text}\n")
    lines = [*opening(one, width), *ending(one, width), *overview([one], width)]
    assert all(len(line) <= width and (line.isprintable() or not line) for line in lines), lines
