"""What a night really found, against sums by hand on scripted experiments."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from runner.campaign.commit_message import kept_message
from runner.decision.keep_rule import AS_GOOD
from runner.records import Experiment, Phase, RunEnd, RunRecord, SealedScore, Verdict
from runner.report.drift import drift
from runner.report.explain import basis_lines, explain, level_line, pair_lines, rests_on, ruled
from runner.report.findings import COLUMNS, find, finding_lines, findings_tsv
from runner.report.sealed import paired_gain, sealed_gaps, sealed_line, sealed_tsv
from runner.report.summary import summarize, summary_text
from runner.report.table import plain_lines
from runner.untrusted import tokens_per_second
from tests.support.synthetic_verdicts import CLEAN, FIGURES
from tests.support.trials import trials_of

SIGMA = 0.01


def trial(trial_id, bpb, *, hour=0.0, speed=None, audited=True):
    """One trial; the audit adds a thousandth to the claim."""
    at = (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=hour)).isoformat()
    log = "" if speed is None else f"step 1 loss 9.9 tokens/s 1\nstep 2 loss 3.1 tokens/s {speed}\nbye"
    phases = [(Phase.TRAIN, None, None), (Phase.SCORE, bpb, None)]
    phases += [(Phase.AUDIT, bpb + 0.001, CLEAN)] if audited else []
    runs = [
        RunRecord(
            phase=phase, seed=100 + trial_id, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1.0, cpu_seconds=1.0,
            val_bpb=score, audit=audit, opened_at=at, log_tail=log if place == 0 else "",
        )
        for place, (phase, score, audit) in enumerate(phases)
    ]  # fmt: skip
    (made,) = trials_of(runs, first_id=trial_id)
    return made


def experiment(number, verdict="discard", bpb=None, trials=(), **more):
    return Experiment(
        number=number, hypothesis="h", proposer="p", verdict=Verdict(verdict), val_bpb=bpb, sigma_bpb=SIGMA,
        trials=tuple(trials), **more,
    )  # fmt: skip


GAIN = -0.0123


def night():
    """Baseline, a lucky accepted edit, a certificate that keeps it, a cheat."""
    return [
        experiment(0, "keep", 2.0, [trial(3, 2.00), trial(4, 2.02)], control_trials=(trial(12, 2.04),)),
        experiment(1, "accept", 1.90, [trial(14, 1.90)], champion=0, parent=0, figures=FIGURES, delta_bpb=-0.08),
        experiment(
            2, "keep", 1.96, [trial(22, 1.91), trial(25, 1.95), trial(28, 1.97)],
            control_trials=(trial(40, 1.99),), champion=0, parent=0, certifies=(1,), kept_commit="c" * 40,
            figures=replace(FIGURES, delta_bpb=GAIN, effect_bpb=GAIN, low_bpb=-0.0173, high_bpb=-0.0073),
            delta_bpb=GAIN,
        ),
        experiment(3, "invalid", None, [trial(50, 0.02, audited=False)]),
    ]  # fmt: skip


def test_the_raw_curve_is_the_running_minimum_of_all_claims_without_controls_certificates_and_cheats():
    found = find(night())
    assert [(one.number, one.bpb) for one in found.raw] == [(0, 2.0), (0, 2.0), (1, 1.9)]
    assert found.raw_change_bpb == pytest.approx(-0.10)


def test_the_debiased_curve_is_the_baseline_and_the_gains_that_certificates_measured():
    second = experiment(
        5, "keep", 1.7, champion=2, parent=2, certifies=(4,), delta_bpb=-0.02,
        figures=replace(FIGURES, delta_bpb=-0.02, effect_bpb=-0.02, low_bpb=-0.032, high_bpb=-0.008),
    )  # fmt: skip
    baseline, first, last = find([*night(), experiment(4, "accept", 1.8), second]).debiased
    assert (baseline.bpb, first.bpb, last.bpb) == (2.0, pytest.approx(2 + GAIN), pytest.approx(2 + GAIN - 0.02))
    assert (first.half_bpb, last.half_bpb) == (pytest.approx(0.005), pytest.approx(0.013)), "5, 12, 13"


def test_every_place_reports_the_same_gain():
    """Whatever the lucky score of the edit and the mean of the certificate's own trials say."""
    made = night()
    found = find(made)
    assert found.total.mean_bpb == summarize(made).gain_bpb == pytest.approx(GAIN)
    assert found.keeps[0].effect_bpb == GAIN
    for text in (
        summary_text(made), "\n".join(finding_lines(found)), explain(made[2]), kept_message(made[2]),
        "\n".join(plain_lines(made)), findings_tsv(found),
    ):  # fmt: skip
        assert "0.0123" in text, text
        assert "-0.0500" not in text and "-0.0400" not in text, "differences of mean scores"


def test_false_keeps_are_the_sum_of_doubts_and_simplifications_claim_nothing():
    made = night()
    made.append(experiment(4, "keep", 1.9, figures=replace(FIGURES, better=0.9)))
    made.append(experiment(5, "keep", 1.9, figures=replace(FIGURES, better=0.4), reason=f"{AS_GOOD}: less"))
    made.append(experiment(6, "keep", 1.9))  # of a program that stored no figures
    found = find(made)
    assert found.expected_false == pytest.approx(0.03 + 0.10)
    assert found.expected_true == pytest.approx(0.97 + 0.90)
    assert [one.simplification for one in found.keeps] == [False, False, True, False]
    assert found.num_unknown == 1
    text = "\n".join(finding_lines(found))
    assert (
        "1.9 of 2 keeps expected to be real improvements, 0.1 false; 1 simplification kept as equally good;"
        in text
    )
    assert "1 keep without figures" in text


def test_a_keep_reports_its_measured_gain_with_its_interval():
    (keep,) = find(night()).keeps
    assert (keep.edits, keep.effect_bpb, keep.low_bpb, keep.high_bpb) == ((1,), GAIN, -0.0173, -0.0073)
    header, baseline, row = (line.split("\t") for line in findings_tsv(find(night())).splitlines())
    assert tuple(header) == COLUMNS and len(baseline) == len(row) == len(COLUMNS)
    assert dict(zip(header, row, strict=True)) == {
        "experiment": "2", "commit": "ccccccc", "kind": "improvement", "edits": "1", "trials": "3",
        "champion_trials": "2", "effect_bpb": "-0.012300", "low_bpb": "-0.017300", "high_bpb": "-0.007300",
        "better": "0.9700", "raw_bpb": "1.900000", "debiased_bpb": "1.987700", "sealed_gap_bpb": "",
    }  # fmt: skip


def test_the_sealed_gap_is_what_only_validation_gained():
    sealed = [
        SealedScore(number=0, seed=1, val_bpb=2.0, test_bpb=2.010),
        SealedScore(number=0, seed=2, val_bpb=2.0, test_bpb=2.014),
        SealedScore(number=2, seed=3, val_bpb=1.95, test_bpb=1.992),
    ]
    (gap,) = sealed_gaps(sealed)
    assert (gap.number, gap.gap_bpb) == (2, pytest.approx(0.042 - 0.012))
    spread = math.sqrt(2 * 0.002**2)  # one degree of freedom
    assert gap.se_bpb == pytest.approx(spread * math.sqrt(1 / 1 + 1 / 2))
    assert "text that no decision used" in "\n".join(finding_lines(find(night(), sealed_gaps(sealed))))
    quiet = [*sealed[:2], SealedScore(number=2, seed=3, val_bpb=1.95, test_bpb=1.963)]
    assert "within the spread" in "\n".join(finding_lines(find(night(), sealed_gaps(quiet))))
    (alone,) = sealed_gaps([sealed[0], sealed[2]])
    assert alone.se_bpb is None
    assert sealed_gaps(sealed[2:]) == (), "without a baseline there is nothing to compare with"


def test_sealed_scores_compare_the_last_keep_with_the_mean_of_the_baseline():
    scores = [
        SealedScore(number=0, seed=1, val_bpb=2.0, test_bpb=2.1),
        SealedScore(number=0, seed=2, val_bpb=2.2, test_bpb=2.3),
        SealedScore(number=3, seed=3, val_bpb=2.0, test_bpb=2.15),
    ]
    assert sealed_line([]) is None
    assert sealed_line(scores[:2]) == "Sealed test rows (as claimed): 2.2000 bpb (validation 2.1000)."
    assert sealed_line(scores) == (
        "Sealed test rows (as claimed): 2.2000 → 2.1500 bpb (-0.0500); validation 2.1000 → 2.0000 (-0.1000); "
        "not measured in pairs."
    )
    assert sealed_tsv(scores).splitlines()[3] == "3\t3\t2.000000\t2.150000"


def test_sealed_gains_add_up_over_certificates_in_pairs_under_common_seeds():
    """Seeds move all scores by far more than the programs differ."""

    def pair(number, champion, seed, test, val):
        level = 2.0 + seed / 10
        mine = SealedScore(number=number, seed=seed, val_bpb=level + val, test_bpb=level + test)
        return [mine, SealedScore(number=champion, seed=seed, val_bpb=level, test_bpb=level)]

    first = [*pair(3, 0, 11, -0.010, -0.012), *pair(3, 0, 12, -0.014, -0.012)]
    second = [*pair(7, 3, 21, -0.030, -0.03), *pair(7, 3, 22, -0.034, -0.03), *pair(7, 3, 23, -0.032, -0.03)]
    alone = SealedScore(number=0, seed=1, val_bpb=9.0, test_bpb=9.0)
    scores = sorted([alone, *first, *second], key=lambda one: one.number)
    gain = paired_gain(scores)
    assert (gain.test.mean_bpb, gain.val_bpb) == (pytest.approx(-0.044), pytest.approx(-0.042))
    spread = math.sqrt((8e-6 + 8e-6) / 3)  # three degrees of freedom
    assert gain.test.se_bpb == pytest.approx(spread * math.sqrt(1 / 2 + 1 / 3))
    assert gain.test.low_bpb < -0.044 < gain.test.high_bpb < -0.035
    assert "in 5 pairs under common seeds: -0.0440 bpb (90% -0.0" in sealed_line(scores)
    assert paired_gain([one for one in scores if one.seed not in (11, 12)]) is None, "a link is missing"
    single = paired_gain(pair(3, 0, 11, -0.010, -0.012))
    assert (single.test, single.test_bpb) == (None, pytest.approx(-0.010)), "one pair has no spread"


def test_drift_compares_equal_programs_only():
    slope = -0.3
    points = [(0, t, 5 + slope * t) for t in (0.0, 1.0, 2.0)] + [(1, t, 900 + slope * t) for t in (4.0, 6.0)]
    found = drift(points)
    assert (found.change, found.hours, found.num_runs) == (pytest.approx(6 * slope), 6.0, 5)
    assert found.se == pytest.approx(0, abs=1e-12)
    assert drift([(0, 1.0, 5.0), (1, 2.0, 9.0)]) is None, "no program was run twice"
    assert drift([(0, 1.0, 5.0), (0, 1.0, 9.0)]) is None, "no time passed"
    assert drift([(0, 0.0, 5.0), (0, 2.0, 5.0)]).se is None
    assert drift([(0, 0.0, 5.0), (0, 2.0, 5.0)], noise=1.0).se == pytest.approx(2 / math.sqrt(2))


def test_throughput_is_what_the_last_line_of_progress_says_and_named_untrusted():
    assert tokens_per_second("step 1 loss 9 tokens/s 5\nstep 2 loss 3.1 tokens/s 31,000\nend") == 31000
    assert tokens_per_second("\x1b[2Jstep") is None
    assert tokens_per_second("step 1 loss 3 tokens/s 0") is None
    runs = [trial(1, 2.0, speed=10_000), trial(4, 2.0, hour=2, speed=9_500)]
    found = find([experiment(0, "keep", 2.0, runs)])
    assert [(one.hours, one.tokens_per_second) for one in found.speeds] == [(0, 10_000), (2, 9_500)]
    assert found.speed_drift.change == pytest.approx(-0.05)
    (line, scores) = finding_lines(found)
    assert "untrusted" in line and "-5.0%" in line and "the machine drifts" in line
    assert "no detectable drift" in scores
    steady = find([experiment(0, "keep", 2.0, [trial(1, 2.0, speed=10_000), trial(4, 2.0, hour=2, speed=9_990)])])
    assert "drifts" not in "\n".join(finding_lines(steady))
    quick = [trial(1, 2.0, speed=10_000), trial(4, 2.0, hour=0.1, speed=9_000)]
    (line,) = finding_lines(find([experiment(0, "keep", 2.0, quick)]))
    assert line.endswith("10,000 → 9,000 tokens/s."), "minutes show no drift"


@pytest.mark.parametrize("made", [[], [experiment(0, "crash")], [experiment(1)], [experiment(0, "keep", 2.0)]])
def test_where_nothing_was_found_nothing_is_reported(made):
    found = find(made)
    assert finding_lines(found) == []
    assert found.total is None and found.expected_false == 0
    assert findings_tsv(found).startswith("experiment\t")


# The sentence, and the trials behind it


def test_a_certificate_is_one_sentence_of_figures_and_names_its_edits():
    measured = "better by 0.0100 ± 0.0031 bpb in 3 pairs"
    keep = experiment(13, "keep", 1.9, champion=12, certifies=(7, 9), figures=FIGURES, reason=measured)
    assert explain(keep) == (
        f"Kept: {measured}; measured gain 0.0100 bpb (90% interval 0.0050 to 0.0150); noise 0.0071. "
        "It compares the tip, with the accepted edits 7, 9, with the champion."
    )


def test_an_accepted_edit_says_how_sure_its_gain_is_and_what_became_of_it():
    reason = "63% sure to be better; the tip takes an edit from 60%"
    one = experiment(7, "accept", 1.9, [trial(9, 1.9)], champion=0, parent=4, figures=FIGURES, reason=reason)
    assert explain(one).startswith(f"Accepted onto the tip: {reason}; expected gain 0.0100 bpb (90% interval")
    assert level_line(one) == (
        "scored 1.900000 under the exploration seed 109; the tip, experiment 4, is at 1.912300 there: "
        "difference -0.012300 ± 0.003100, before the prior"
    )
    assert ruled(None) == "It is on the tip, not certified yet."
    kept = experiment(8, "keep", 1.9, certifies=(7,), delta_bpb=-0.02)
    assert ruled(kept) == "It was certified by experiment 8, measured gain 0.0200 bpb."
    gone = experiment(8, "discard", 1.9, certifies=(6, 7), delta_bpb=0.001)
    assert ruled(gone) == "It was rolled back by experiment 8, measured gain -0.0010 bpb of 2 edits together."


def test_a_certificate_lists_its_pairs():
    champion = experiment(0, "keep", 2.0, [trial(1, 2.0)], control_trials=(trial(5, 2.02), trial(8, 2.01)))
    certificate = experiment(2, "keep", 1.9, [trial(5, 1.95), trial(6, 1.9)], certifies=(1,))
    assert pair_lines(certificate, champion) == [
        "  pair 1  seed 105         tip 1.951000  champion 2.021000  -0.070000"
    ], "the second pair is not complete"
    assert pair_lines(champion, None) == pair_lines(certificate, None) == []


def test_a_verdict_names_the_trials_that_it_rests_on():
    made = night()
    basis = rests_on(made[2], made[0])
    assert [(one.role, one.experiment, one.trial, round(one.val_bpb, 6)) for one in basis] == [
        ("trial", 2, 22, 1.911), ("trial", 2, 25, 1.951), ("trial", 2, 28, 1.971),
        ("pool", 0, 3, 2.001), ("control", 0, 12, 2.041),
    ]  # fmt: skip
    assert basis_lines(basis)[0] == "  trial    experiment 2     trial 22     seed 122         val_bpb 1.911000"
    assert rests_on(made[3], made[0]) == ()
    assert [one.role for one in rests_on(made[2], None)] == ["trial"] * 3
