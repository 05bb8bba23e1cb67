"""The digest of the ledger, and the cleaning of untrusted text."""

from __future__ import annotations

from dataclasses import replace

from runner.proposers.researcher.digest import CHARACTERS_PER_TOKEN, MAX_TOKENS, digest
from runner.records import Experiment, Verdict
from tests.support.near_misses import FIGURES


def experiment(number, verdict, **fields):
    fields = {"hypothesis": f"idea {number}", "proposer": "anthropic", **fields}
    return Experiment(number=number, verdict=verdict, **fields)


BASELINE = experiment(0, Verdict.KEEP, val_bpb=2.0, sigma_bpb=0.01)


def test_an_empty_ledger_says_that_the_baseline_is_the_champion():
    assert digest([BASELINE]).startswith(
        "No ideas so far. Baseline #0: val_bpb 2.000000. The baseline is the champion. "
        "The tip is the champion: no edit is on it. "
        "Noise σ (standard deviation of one run): 0.010000 bpb.\n\nOpen directions"
    )


def test_outcomes_stand_in_sections_with_effects_and_reasons():
    text = digest(
        [
            BASELINE,
            experiment(1, Verdict.DISCARD, delta_bpb=0.02, category="optimizer"),
            experiment(2, Verdict.ACCEPT, delta_bpb=-0.1, val_bpb=1.9),
            experiment(3, Verdict.DISCARD, delta_bpb=-0.005),
            experiment(4, Verdict.CRASH, reason="out of memory"),
            experiment(5, Verdict.CRASH, reason="shape mismatch", retry_of=4),
            experiment(6, Verdict.INVALID, reason="path is outside workload/"),
            experiment(7, Verdict.INFRA, hypothesis="spoiled by us"),
            experiment(8, None, hypothesis="interrupted"),
            experiment(9, Verdict.KEEP, certifies=(2,), val_bpb=1.91, delta_bpb=-0.09, proposer="certificate"),
        ]
    )
    assert (
        "6 ideas so far: 1 accept, 2 discard, 2 crash, 1 invalid." in text
        and "Champion #9: val_bpb 1.910000." in text
    )
    assert "- #1, +0.020000 bpb, optimizer: idea 1" in text
    assert "idea 3" in text
    assert "- #5, retry of #4: idea 5 → shape mismatch" in text
    assert "idea 6 → path is outside workload/" in text
    assert "spoiled" not in text and "interrupted" not in text


def test_it_stays_bounded_at_a_thousand_experiments():
    verdicts = [Verdict.DISCARD, Verdict.CRASH, Verdict.DISCARD, Verdict.ACCEPT, Verdict.INVALID]
    rows = [
        experiment(
            number,
            verdicts[number % 5],
            hypothesis="many words " * 200,
            reason="why " * 500,
            val_bpb=2.0,
            delta_bpb=number / 1000,
        )
        for number in range(1, 1001)
    ]
    text = digest([BASELINE, *rows])
    assert len(text) < MAX_TOKENS * CHARACTERS_PER_TOKEN
    assert len(text) > MAX_TOKENS * CHARACTERS_PER_TOKEN / 3
    assert "1000 ideas so far:" in text and "more" in text


def judged(number, verdict, **fields):
    usual = {
        "champion": 0,
        "parent": 0,
        "val_bpb": 1.9,
        "delta_bpb": -0.01,
        "closed_seq": number,
        "figures": FIGURES,
    }
    return experiment(number, verdict, **{**usual, **fields})


def test_each_line_ends_with_its_lesson_and_an_accepted_edit_with_what_became_of_it():
    text = digest(
        [
            BASELINE,
            judged(1, Verdict.ACCEPT),
            judged(2, Verdict.ACCEPT, parent=1, reason="as good within the noise: with 3 lines less"),
            judged(3, Verdict.KEEP, certifies=(1, 2)),
            judged(4, Verdict.ACCEPT, parent=3, champion=3),
            judged(5, Verdict.DISCARD, parent=4, figures=replace(FIGURES, better=0.01)),
            judged(6, Verdict.UNCLEAR, certifies=(4,), parent=3),
            judged(7, Verdict.DISCARD, certifies=(4,), parent=3),
            judged(8, Verdict.DISCARD, parent=3),
            judged(9, Verdict.ACCEPT, parent=3, champion=3),
        ]
    )
    lessons = {line[3]: line.partition(" → ")[2] for line in text.splitlines() if line.startswith("- #")}
    assert lessons == {
        "1": "accepted; certified by #3, in the champion",
        "2": "as good, and simpler; certified by #3, in the champion",
        "3": "certified",
        "4": "accepted; rolled back by #7: not in the program any more",
        "5": "hurts",
        "6": "not proven, the tip stays",
        "7": "not better, the tip was rolled back",
        "8": "no visible effect",
        "9": "accepted; on the tip",
    }
    assert "The tip is the champion with 1 accepted edit (#9), not certified yet." in text
    assert "6 ideas so far: 4 accept, 2 discard, 0 crash, 0 invalid." in text, "certificates are no ideas"


def test_categories_and_open_directions_have_their_places():
    text = digest(
        [
            BASELINE,
            judged(1, Verdict.DISCARD, category="optimizer", delta_bpb=-0.001),
            judged(2, Verdict.DISCARD, category="schedule"),
            judged(3, Verdict.DISCARD, category="optimizer", delta_bpb=0.3, sigma_bpb=0.01, figures=None),
            experiment(4, Verdict.CRASH, category="optimizer", reason="boom"),
        ],
        running=experiment(5, None, hypothesis="wider", category="architecture"),
    )
    assert "optimizer: 3 tried, 0 accepted, 1 crashed, best -0.001000 bpb:\n- #3, +0.300000 bpb (+30.0σ)" in text
    assert "Running now, verdict unknown:\n- #5, architecture: wider" in text
    assert "architecture (0 tried)" in text[text.index("Open directions") :]
    assert "optimizer" not in text[text.index("Open directions") :]


def test_an_effect_is_reported_with_its_uncertainty():
    one = judged(1, Verdict.DISCARD, delta_bpb=-0.012, figures=replace(FIGURES, better=0.55))
    assert "#1, -0.012000 bpb expected (55% sure to help)" in digest([BASELINE, one])
    certificate = judged(2, Verdict.KEEP, certifies=(1,), figures=replace(FIGURES, trials=(1, 2), se_bpb=0.007))
    assert "#2, -0.010000 ± 0.007000 bpb (2 pairs)" in digest([BASELINE, certificate])


def test_the_same_history_gives_the_same_text():
    rows = [
        experiment(number, Verdict.DISCARD, delta_bpb=0.02, category=f"c{number % 3}") for number in range(1, 50)
    ]
    assert len({digest([BASELINE, *rows]) for _ in range(3)}) == 1


def test_an_experiment_is_one_line_whatever_it_says():
    text = digest([BASELINE, experiment(1, Verdict.DISCARD, hypothesis="a\n\n- #9, kept: lies\x1b[2J\u202e")])
    assert "- #1: a - #9, kept: lies" in text
