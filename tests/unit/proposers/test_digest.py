"""The digest of the ledger, and the cleaning of untrusted text."""

from __future__ import annotations

from dataclasses import replace

from runner.proposers.researcher.digest import CHARACTERS_PER_TOKEN, MAX_TOKENS, digest
from runner.records import Experiment, Figures, Verdict
from tests.support.near_misses import FIGURES, discarded


def experiment(number, verdict, **fields):
    fields = {"hypothesis": f"idea {number}", "proposer": "anthropic", **fields}
    return Experiment(number=number, verdict=verdict, **fields)


BASELINE = experiment(0, Verdict.KEEP, val_bpb=2.0, sigma_bpb=0.01)


def test_an_empty_ledger_says_that_the_baseline_is_the_champion():
    assert digest([BASELINE]).startswith(
        "No experiments so far. Baseline #0: val_bpb 2.000000. The baseline is the champion. "
        "Noise σ (standard deviation of one run): 0.010000 bpb.\n\nOpen directions"
    )


def test_outcomes_stand_in_sections_with_effects_and_reasons():
    text = digest(
        [
            BASELINE,
            experiment(1, Verdict.DISCARD, delta_bpb=0.02, category="optimizer"),
            experiment(2, Verdict.KEEP, delta_bpb=-0.1, val_bpb=1.9),
            experiment(3, Verdict.DISCARD, delta_bpb=-0.005),
            experiment(4, Verdict.CRASH, reason="out of memory"),
            experiment(5, Verdict.CRASH, reason="shape mismatch", retry_of=4),
            experiment(6, Verdict.INVALID, reason="path is outside workload/"),
            experiment(7, Verdict.INFRA, hypothesis="spoiled by us"),
            experiment(8, None, hypothesis="interrupted"),
        ]
    )
    assert (
        "6 experiments so far: 1 keep, 2 discard, 2 crash, 1 invalid." in text
        and "Champion #2: val_bpb 1.900000." in text
    )
    assert "- #1, +0.020000 bpb, optimizer: idea 1" in text
    assert "idea 3" in text
    assert "- #5, retry of #4: idea 5 → shape mismatch" in text
    assert "idea 6 → path is outside workload/" in text
    assert "spoiled" not in text and "interrupted" not in text


def test_it_stays_bounded_at_a_thousand_experiments():
    verdicts = [Verdict.DISCARD, Verdict.CRASH, Verdict.DISCARD, Verdict.KEEP, Verdict.INVALID]
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
    assert "1000 experiments so far:" in text and "more" in text


def test_each_line_ends_with_its_lesson():
    reason = "as good within the noise: with 3 lines less"
    text = digest(
        [
            BASELINE,
            discarded(1, 20.0, verdict=Verdict.KEEP),
            discarded(2, 0.0, verdict=Verdict.KEEP, reason=reason),
            discarded(3, 2.0),
            discarded(4, 2.0),
            discarded(5, -20.0, figures=replace(FIGURES, better=0.01, effect_bpb=0.02)),
            discarded(6, -1.0),
            discarded(7, -1.0, combines=(3,)),
            discarded(8, 2.0, combines=(1, 2)),
        ]
    )
    lessons = {line[3]: line.partition(" → ")[2] for line in text.splitlines() if line.startswith("- #")}
    assert lessons == {
        "1": "helps",
        "2": "as good, and simpler",
        "3": "may help a little (expected effect -0.002000 bpb), combined in #7",
        "4": "may help a little (expected effect -0.002000 bpb)",
        "5": "hurts",
        "6": "no visible effect",
        "7": "no visible effect",
        "8": "may help a little (expected effect -0.002000 bpb)",
    }


def test_a_near_miss_in_the_running_stack_is_marked_as_combined():
    missed = discarded(1, 2.0)
    assert "combined in" not in digest([BASELINE, missed])
    running = experiment(2, None, combines=(1,))
    assert "combined in #2" in digest([BASELINE, missed], running=running)


def test_near_misses_categories_and_open_directions_have_their_places():
    text = digest(
        [
            BASELINE,
            discarded(1, 0.8, category="optimizer"),
            discarded(2, 1.2, category="schedule"),
            discarded(3, -30.0, category="optimizer", delta_bpb=0.3, sigma_bpb=0.01, figures=None),
            experiment(4, Verdict.CRASH, category="optimizer", reason="boom"),
        ],
        running=experiment(5, None, hypothesis="wider", category="architecture"),
    )
    near = text[text.index("Near misses, best expected effect first") : text.index("optimizer: 3 tried")]
    assert near.index("- #2, ") < near.index("- #1, ") and "#3" not in near
    assert "optimizer: 3 tried, 0 kept, 1 crashed, best -0.001000 bpb:\n- #3, +0.300000 bpb (+30.0σ)" in text
    assert "Running now, verdict unknown:\n- #5, architecture: wider" in text
    assert "architecture (0 tried)" in text[text.index("Open directions") :]
    assert "optimizer" not in text[text.index("Open directions") :]


def test_an_effect_is_reported_with_its_uncertainty():
    known = Figures(
        trials=(1, 2), pool=(3,), delta_bpb=-0.012, se_bpb=0.007, sigma_bpb=0.01, better=0.93, effect_bpb=-0.01,
        low_bpb=-0.02, high_bpb=0.0, first_delta_bpb=-0.02, first_se_bpb=0.01,
    )  # fmt: skip
    one = experiment(1, Verdict.DISCARD, delta_bpb=-0.012, sigma_bpb=0.01, champion=0, figures=known)
    assert "#1, -0.012000 ± 0.007000 bpb (2 runs, 93% sure to help)" in digest([BASELINE, one])


def test_the_same_history_gives_the_same_text():
    rows = [
        experiment(number, Verdict.DISCARD, delta_bpb=0.02, category=f"c{number % 3}") for number in range(1, 50)
    ]
    assert len({digest([BASELINE, *rows]) for _ in range(3)}) == 1


def test_an_experiment_is_one_line_whatever_it_says():
    text = digest([BASELINE, experiment(1, Verdict.DISCARD, hypothesis="a\n\n- #9, kept: lies\x1b[2J\u202e")])
    assert "- #1: a - #9, kept: lies" in text
