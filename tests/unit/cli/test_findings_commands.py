"""status, show, report and baseline on a scripted ledger: what they say about a verdict and a night."""

from __future__ import annotations

import csv
import json
import math
from contextlib import contextmanager
from dataclasses import replace
from statistics import variance
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runner.campaign.campaign import Campaign
from runner.cli import cli
from runner.cli import night as cli_night
from runner.decision.keep_rule import PRIOR_WEIGHT
from runner.records import Phase, Proposal, SealedScore, TrialKind, Verdict
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
    """A night with one accepted edit, the certificate that kept it, and another edit on the tip since."""
    made = make_repository(tmp_path / "r")
    with controller(made) as night:
        ledger = night.ledger
        pool = [trial(ledger, 0, seed, 2.0 + seed / 100) for seed in (1, 2)]
        open_experiment(ledger, champion=0, parent=0)
        edit = trial(ledger, 1, 1, 1.90)
        figures = replace(FIGURES, trials=(edit,), pool=tuple(pool[:1]))
        reason = "63% sure to be better; the tip takes an edit from 60%"
        accepted = {
            "verdict": Verdict.ACCEPT,
            "reason": reason,
            "delta_bpb": FIGURES.effect_bpb,
            "sigma_bpb": 0.01,
        }
        ledger.close_experiment(TAG, 1, val_bpb=1.901, figures=figures, **accepted)
        certificate = Proposal(hypothesis="wider", edits=(), proposer="certificate", certifies=(1,))
        ledger.open_experiment(TAG, certificate, diff="", champion=0, parent=0)
        trials = [trial(ledger, 2, seed, 1.9 + seed / 1000) for seed in (11, 12)]
        pairs = [trial(ledger, 0, seed, 1.92, kind=TrialKind.CONTROL) for seed in (11, 12)]
        ledger.close_experiment(
            TAG, 2, verdict=Verdict.KEEP, reason="better", val_bpb=1.9125, delta_bpb=-0.0123, sigma_bpb=0.01,
            figures=replace(FIGURES, trials=tuple(trials), pool=tuple(pairs), effect_bpb=-0.0123),
        )  # fmt: skip
        ledger.set_kept(TAG, 2, "c" * 40)
        open_experiment(ledger, champion=2, parent=2)
        trial(ledger, 3, 11, 1.90)
        ledger.close_experiment(TAG, 3, val_bpb=1.901, figures=figures, **accepted)
        for number, test in ((0, 2.02), (2, 1.95)):
            val = 2.0 if number == 0 else 1.91
            night.sealed.add(TAG, SealedScore(number=number, seed=1, val_bpb=val, test_bpb=test), "h")
    monkeypatch.chdir(made)
    return made


def run(*words):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def test_status_and_report_say_what_was_really_found(root):
    for command in ("status", "report"):
        text = run(command)
        assert "Debiased gain: -0.0123 bpb (90% interval -0.0173 to -0.0073)" in text
        assert "Accepted onto the tip: 2 edits; of these 1 certified, 0 rolled back, 1 on the tip now." in text
        assert "Certificates: 1 of 1 kept." in text
        assert "1.0 of 1 keep expected to be real improvements, 0.0 false." in text
        assert "Sealed test gap at experiment 2: +0.0200 bpb" in text
        assert "31,000 → 31,000 tokens/s" in text and "untrusted" in text
    found = json.loads(run("status", "--json"))
    assert found["gain_bpb"] == found["findings"]["total"]["mean_bpb"] == pytest.approx(-0.0123)
    assert [one["number"] for one in found["findings"]["debiased"]] == [0, 2]
    assert found["tip"] == {"edits": [3], "worth_bpb": -0.01, "trials": 1}


def test_status_says_what_the_tip_promises_and_when_it_is_certified(root, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CERTIFY_SIGMAS", "9")
    assert (
        "Tip: the champion with 1 accepted edit (3), expected gain 0.0100 bpb, not certified yet; 1 trial since "
        "the last certificate. It is certified from 9 sigma (now 1.0) and 30 trials on, or when the night ends."
    ) in run("status")
    monkeypatch.setenv("AUTORESEARCH_CERTIFY", "each")
    assert "1 trial since the last certificate. Its certificate comes next." in run("status")


def test_log_says_how_sure_it_is_and_lists_what_was_kept(root):
    edit = next(line for line in run("log").splitlines() if line.lstrip().startswith("1 "))
    assert edit.split()[1:5] == ["accept", "1.901000", "-0.010000", "97%"]
    assert [line.split()[:2] for line in run("log", "--kept").splitlines()[1:]] == [["0", "keep"], ["2", "keep"]]
    assert len(run("log", "--kept", "--last", "1").splitlines()) == 2


def test_report_writes_a_line_for_each_keep(root):
    output = run("report")
    path = root / ".autoresearch" / "reports" / TAG / "findings.tsv"
    assert f"wrote {path}" in output
    baseline, keep = csv.DictReader(path.read_text().splitlines(), delimiter="\t")
    assert (baseline["kind"], keep["kind"], keep["trials"], keep["champion_trials"]) == (
        "baseline",
        "improvement",
        "2",
        "2",
    )


def test_show_explains_an_accepted_edit(root):
    lines = run("show", "1").splitlines()
    assert lines[0].startswith("Accepted onto the tip: 63% sure to be better; the tip takes an edit from 60%;")
    assert lines[1] == "It was certified by experiment 2, measured gain 0.0123 bpb."
    assert lines[2].startswith(
        "scored 1.901000 under the exploration seed 1; the tip, experiment 0, is at 1.913300"
    )
    assert "It is on the tip, not certified yet." in run("show", "3")
    assert json.loads(run("show", "1", "--json"))["ruled_by"] == 2


def test_show_lists_the_pairs_of_a_certificate_and_the_trials_behind_it(root):
    lines = run("show", "2").splitlines()
    assert lines[0].startswith("Kept: better; measured gain 0.0123 bpb (90% interval")
    assert lines[1] == "  pair 1  seed 11          tip 1.912000  champion 1.921000  -0.009000"
    assert lines[2].startswith("  pair 2  seed 12 ") and lines[3] == "the verdict rests on:"
    assert [(line.split()[0], line.split()[-1]) for line in lines[4:8]] == [
        ("trial", "1.912000"), ("trial", "1.913000"), ("control", "1.921000"), ("control", "1.921000"),
    ]  # fmt: skip
    found = json.loads(run("show", "2", "--json"))
    assert found["figures"]["better"] == 0.97 and found["certifies"] == [1] and found["parent"] == 0
    assert [one["role"] for one in found["rests_on"]] == ["trial"] * 2 + ["control"] * 2
    assert "rests on" not in run("show", "0")


def test_noise_has_its_degrees_of_freedom(root):
    """Its controls are scores, but no seeds of their own: they share them with the trials of the certificate."""
    with controller(root, noise_prior_bpb=0.01) as night:
        noise = measure_noise(night.ledger.experiments(TAG), night.config)
    own, certificate = (2.0, 1.999, 2.001, 2.011, 2.021), (1.912, 1.913)
    assert noise.scores_bpb == pytest.approx((*own, 1.921, 1.921))
    assert noise.freedom == PRIOR_WEIGHT + 4 + 1
    squares = 4 * variance(own) + variance(certificate)
    assert noise.sigma_bpb == pytest.approx(math.sqrt((4 * 0.01**2 + squares) / 9))
    assert noise_line(noise) == (
        f"7 trials of the baseline: mean {noise.mean_bpb:.4f}, standard deviation {noise.sd_bpb:.4f} bpb; noise "
        f"sigma of the campaign {noise.sigma_bpb:.4f} with 9 degrees of freedom, 4 of them from the prior"
    )


@pytest.fixture
def baseline(root, monkeypatch):
    """`autoresearch baseline` over the scripted ledger, its repeats scripted."""
    stop = SimpleNamespace(requested=False)

    @contextmanager
    def open_night(**_settings):
        with controller(root, noise_prior_bpb=0.01) as night:
            yield night, stop

    def measure_again(campaign):
        count = len(campaign.experiments[0].trials)
        trial(campaign.ledger, 0, 100 + count, 2.02)
        stop.requested = count >= 7
        return campaign.reload(0)

    monkeypatch.setattr(cli_night, "open_night", open_night)
    monkeypatch.setattr(
        "runner.campaign.night.open_campaign", lambda night: Campaign(night, night.ledger.campaign(TAG))
    )
    monkeypatch.setattr("runner.campaign.baseline.measure_again", measure_again)


def test_repeats_of_the_baseline_are_its_trials_and_its_noise_is_reported(baseline, root):
    output = run("baseline", "--repeats", "2")
    assert "9 trials of the baseline" in output and "11 degrees of freedom" in output
    assert "stopped" not in output
    with controller(root) as night:
        assert len(night.ledger.experiment(TAG, 0).trials) == 7
    assert "the rest: --repeats 6" in run("baseline", "--repeats", "7"), "Ctrl-C after the first"


def test_the_noise_of_the_baseline_is_in_its_json(baseline):
    noise = json.loads(run("baseline", "--json"))["noise"]
    assert (noise["freedom"], len(noise["scores_bpb"])) == (9, 7)
