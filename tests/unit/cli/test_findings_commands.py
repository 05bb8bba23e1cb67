"""status, show, report and baseline on a scripted ledger: what they say about a verdict and a night."""

from __future__ import annotations

import csv
import json
import math
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.cli import night as cli_night
from runner.decision.keep_rule import PRIOR_WEIGHT
from runner.records import Phase, Proposal, RunEnd, RunRecord, SealedScore, Verdict
from runner.report.notes import measure_noise, noise_line
from tests.support.scripted_evaluator import TAG, laboratory, make_repository
from tests.support.synthetic_verdicts import CLEAN, FIGURES


def trial(ledger, number, seed, bpb, *, control=False, speed=31_000):
    """One audited run in the ledger; returns the id that a verdict names."""
    run_id = 0
    for phase, score, audit in (
        (Phase.TRAIN, None, None), (Phase.SCORE, bpb, None), (Phase.AUDIT, bpb + 0.001, CLEAN)
    ):  # fmt: skip
        run_id = ledger.open_run(TAG, number, phase, seed, control=control)
        log = f"step 9 loss 3.0 tokens/s {speed}" if phase is Phase.TRAIN else ""
        ledger.close_run(
            run_id,
            RunRecord(
                phase=phase, seed=seed, end=RunEnd.FINISHED, exit_code=0, wall_seconds=20.0, cpu_seconds=20.0,
                val_bpb=score, audit=audit, log_tail=log,
            ),
        )  # fmt: skip
    return run_id


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A night with one keep."""
    made = make_repository(tmp_path / "r")
    with laboratory(made) as lab:
        pool = [trial(lab.ledger, 0, seed, 2.0 + seed / 100) for seed in (1, 2)]
        pool.append(trial(lab.ledger, 0, 3, 2.03, control=True))
        proposal = Proposal(hypothesis="wider", edits=(), proposer="p")
        lab.ledger.open_experiment(TAG, proposal, diff="", champion=0)
        trials = [trial(lab.ledger, 1, seed, 1.9 + seed / 1000) for seed in (11, 12, 13)]
        figures = FIGURES.__class__(**{**FIGURES.__dict__, "trials": tuple(trials), "pool": tuple(pool)})
        lab.ledger.close_experiment(
            TAG, 1, verdict=Verdict.KEEP, reason="better", val_bpb=1.9125, delta_bpb=-0.0123, sigma_bpb=0.01,
            figures=figures,
        )  # fmt: skip
        lab.ledger.set_kept(TAG, 1, "c" * 40)
        trial(lab.ledger, 1, 14, 1.915, control=True)
        for number, test in ((0, 2.02), (1, 1.95)):
            val = 2.0 if number == 0 else 1.91
            lab.ledger.seal(TAG, SealedScore(number=number, seed=1, val_bpb=val, test_bpb=test), "h")
    monkeypatch.chdir(made)
    return made


def run(*words):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_status_and_report_say_what_was_really_found(root):
    debiased = (1.912 + 1.913 + 1.915) / 3 - (2.01 + 2.02 + 2.03) / 3
    for text in (run("status"), run("report")):
        assert f"Debiased gain: {debiased:+.4f} bpb (90% interval " in text
        assert "shrunken effects: -0.0100. The lowest score of all would claim -0.0990." in text
        assert "1.0 of 1 keep expected to be real improvements, 0.0 false." in text
        assert "Sealed test gap at experiment 1: +0.0200 bpb" in text
        assert "31,000 → 31,000 tokens/s" in text and "untrusted" in text
    found = json.loads(run("status", "--json"))["findings"]
    assert found["total"]["mean_bpb"] == pytest.approx(debiased)
    assert [one["number"] for one in found["debiased"]] == [0, 1]


def test_report_writes_a_line_for_each_keep(root):
    output = run("report")
    path = root / ".autoresearch" / "reports" / TAG / "findings.tsv"
    assert f"wrote {path}" in output
    baseline, keep = csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    assert (baseline["kind"], keep["kind"], keep["trials"], keep["champion_trials"]) == (
        "baseline",
        "improvement",
        "3",
        "3",
    )


def test_show_is_a_sentence_and_the_trials_behind_it(root):
    lines = run("show", "1").splitlines()
    assert lines[0].startswith(
        "Kept: better by 0.0123 ± 0.0031 bpb; 3 trials against 3 of experiment 0; 97% certain;"
    )
    assert lines[1] == "the verdict rests on:"
    assert [(line.split()[0], line.split()[-1]) for line in lines[2:8]] == [
        ("trial", "1.912000"), ("trial", "1.913000"), ("trial", "1.914000"),
        ("pool", "2.011000"), ("pool", "2.021000"), ("control", "2.031000"),
    ]  # fmt: skip
    assert sum(line.endswith("  control") for line in lines) == 3, "those of the champion are listed under it"
    found = json.loads(run("show", "1", "--json"))
    assert found["figures"]["better"] == 0.97 and len(found["controls"]) == 3
    assert [one["role"] for one in found["rests_on"]] == ["trial"] * 3 + ["pool"] * 2 + ["control"]
    assert "rests on" not in run("show", "0")


def test_noise_has_its_degrees_of_freedom(root):
    with laboratory(root, noise_prior_bpb=0.01) as lab:
        noise = measure_noise(lab.ledger.experiments(TAG), lab.config)
    assert noise.scores_bpb == pytest.approx((2.011, 2.021, 2.031))
    assert (noise.mean_bpb, noise.sd_bpb) == (pytest.approx(2.021), pytest.approx(0.01))
    assert noise.freedom == PRIOR_WEIGHT + 2 + 3
    keep = (1.912, 1.913, 1.914, 1.916)
    squares = 2 * 0.01**2 + sum((one - sum(keep) / 4) ** 2 for one in keep)
    assert noise.sigma_bpb == pytest.approx(math.sqrt((4 * 0.01**2 + squares) / 9))
    assert noise_line(noise) == (
        f"3 trials of the baseline: mean 2.0210, standard deviation 0.0100 bpb; noise sigma of the campaign "
        f"{noise.sigma_bpb:.4f} with 9 degrees of freedom, 4 of them from the prior"
    )


@pytest.fixture
def baseline(root, monkeypatch):
    """`autoresearch baseline` over the scripted ledger, its controls scripted."""
    stop = SimpleNamespace(requested=False)

    @contextmanager
    def open_night(**_settings):
        with laboratory(root, noise_prior_bpb=0.01) as lab:
            yield lab, stop

    def run_control(lab, campaign, best):
        assert best.number == 0, "whatever the champion is"
        count = len(best.controls) // 3
        trial(lab.ledger, 0, 100 + count, 2.02, control=True)
        stop.requested = count >= 3

    monkeypatch.setattr(cli_night, "open_night", open_night)
    monkeypatch.setattr("runner.campaign.night.open_campaign", lambda lab: lab.ledger.campaign(TAG))
    monkeypatch.setattr("runner.campaign.night.ensure_baseline", lambda lab, campaign, stop: _first(lab))
    monkeypatch.setattr("runner.campaign.champion.run_control", run_control)


def _first(lab):
    return lab.ledger.experiment(TAG, 0)


def test_repeats_of_the_baseline_are_its_controls_and_its_noise_is_reported(baseline, root):
    output = run("baseline", "--repeats", "2")
    assert "5 trials of the baseline: mean 2.0210" in output and "11 degrees of freedom" in output
    assert "stopped" not in output
    with laboratory(root) as lab:
        assert len(_first(lab).controls) == 9
    assert "the rest: --repeats 6" in run("baseline", "--repeats", "7"), "Ctrl-C after the first"


def test_the_noise_of_the_baseline_is_in_its_json(baseline):
    noise = json.loads(run("baseline", "--json"))["noise"]
    assert (noise["freedom"], len(noise["scores_bpb"])) == (9, 3)
