"""status, show, report and baseline on a scripted ledger: what they say about a verdict and a night."""

from __future__ import annotations

import csv
import json
import math
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runner.campaign.campaign import Campaign
from runner.cli import cli
from runner.cli import night as cli_night
from runner.decision.keep_rule import PRIOR_WEIGHT
from runner.records import Phase, SealedScore, TrialKind, Verdict
from runner.report.notes import measure_noise, noise_line
from runner.storage.clock import now
from tests.support.ledgers import open_experiment, record_trial
from tests.support.scripted_controller import TAG, controller, make_repository
from tests.support.synthetic_verdicts import CLEAN, FIGURES
from tests.support.trials import run as container_run
from tests.support.trials import scored


def trial(ledger, number, seed, bpb, *, kind=TrialKind.CANDIDATE, speed=31_000):
    """One audited trial in the ledger; returns the id that a verdict names."""
    made = scored(
        bpb + 0.001, seed, kind=kind,
        runs=(
            container_run(Phase.TRAIN, seed, log_tail=f"step 9 loss 3.0 tokens/s {speed}", opened_at=now()),
            container_run(Phase.SCORE, seed, val_bpb=bpb),
            container_run(Phase.AUDIT, seed, val_bpb=bpb + 0.001, audit=CLEAN),
        ),
    )  # fmt: skip
    return record_trial(ledger, number, made)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A night with one keep."""
    made = make_repository(tmp_path / "r")
    with controller(made) as night:
        ledger = night.ledger
        pool = [trial(ledger, 0, seed, 2.0 + seed / 100) for seed in (1, 2)]
        pool.append(trial(ledger, 0, 3, 2.03, kind=TrialKind.CONTROL))
        open_experiment(ledger, champion=0)
        trials = [trial(ledger, 1, seed, 1.9 + seed / 1000) for seed in (11, 12, 13)]
        ledger.close_experiment(
            TAG, 1, verdict=Verdict.KEEP, reason="better", val_bpb=1.9125, delta_bpb=-0.0123, sigma_bpb=0.01,
            figures=replace(FIGURES, trials=tuple(trials), pool=tuple(pool)),
        )  # fmt: skip
        ledger.set_kept(TAG, 1, "c" * 40)
        trial(ledger, 1, 14, 1.915, kind=TrialKind.CONTROL)
        for number, test in ((0, 2.02), (1, 1.95)):
            val = 2.0 if number == 0 else 1.91
            night.sealed.add(TAG, SealedScore(number=number, seed=1, val_bpb=val, test_bpb=test), "h")
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
    assert sum(line.startswith("control ") for line in lines) == 1, "those of the champion are listed under it"
    found = json.loads(run("show", "1", "--json"))
    assert found["figures"]["better"] == 0.97 and [one["kind"] for one in found["trials"]] == ["candidate"] * 3 + [
        "control"
    ]
    assert len(found["trials"][3]["runs"]) == 3
    assert [one["role"] for one in found["rests_on"]] == ["trial"] * 3 + ["pool"] * 2 + ["control"]
    assert "rests on" not in run("show", "0")


def test_noise_has_its_degrees_of_freedom(root):
    with controller(root, noise_prior_bpb=0.01) as night:
        noise = measure_noise(night.ledger.experiments(TAG), night.config)
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
        with controller(root, noise_prior_bpb=0.01) as night:
            yield night, stop

    def run_control(campaign, best):
        assert best.number == 0, "whatever the champion is"
        count = len(best.control_trials)
        trial(campaign.ledger, 0, 100 + count, 2.02, kind=TrialKind.CONTROL)
        stop.requested = count >= 3
        return campaign.reload(0)

    monkeypatch.setattr(cli_night, "open_night", open_night)
    monkeypatch.setattr(
        "runner.campaign.night.open_campaign", lambda night: Campaign(night, night.ledger.campaign(TAG))
    )
    monkeypatch.setattr("runner.campaign.champion.run_control", run_control)


def test_repeats_of_the_baseline_are_its_controls_and_its_noise_is_reported(baseline, root):
    output = run("baseline", "--repeats", "2")
    assert "5 trials of the baseline: mean 2.0210" in output and "11 degrees of freedom" in output
    assert "stopped" not in output
    with controller(root) as night:
        baseline = night.ledger.experiment(TAG, 0)
        assert (len(baseline.control_trials), len(baseline.controls)) == (3, 9)
    assert "the rest: --repeats 6" in run("baseline", "--repeats", "7"), "Ctrl-C after the first"


def test_the_noise_of_the_baseline_is_in_its_json(baseline):
    noise = json.loads(run("baseline", "--json"))["noise"]
    assert (noise["freedom"], len(noise["scores_bpb"])) == (9, 3)
