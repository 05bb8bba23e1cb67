"""Calibration: programs under common seeds, and the settings that come of their scores."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runner.campaign.studies import calibrate, interleave
from runner.config import measured
from runner.errors import BaselineError, Interrupted
from tests.support.scripted_campaign import ScriptedRuns, campaign, crash, keep, number_of
from tests.support.scripted_controller import TAG, make_repository
from tests.support.trials import CLEAN


@pytest.fixture
def controller(tmp_path):
    root = make_repository(tmp_path / "r")
    with campaign(root) as opened:
        keep(opened, "RATE = 0.02", "RATE = 0.04")
        yield opened.controller


def calibrated(controller, *commits, seeds=20, stopping=lambda: False):
    resolved = [controller.repository.resolve(name) for name in ("HEAD", *commits)]
    return calibrate.calibrate(controller, resolved, seeds, stopping=stopping)


def rate(text):
    return 2.0 - number_of(text, "RATE")


def test_one_program_is_measured_twice_under_each_seed_and_gives_an_upper_limit(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, rate, noise=0.01, shared=0.03)
    found = calibrated(controller)
    assert runs.seeds[::2] == runs.seeds[1::2] and len(set(runs.seeds)) == 20
    assert found.noise.sigma_bpb == pytest.approx(0.0316, rel=0.4)
    assert found.noise.residual_bpb == pytest.approx(0.01, rel=0.4)
    assert found.noise.low < 0.9 < found.noise.high
    assert found.seed_share == (0.0, found.noise.high)
    assert 0.01 < found.noise_prior_bpb < found.noise.sigma_bpb, "the prior counts for four degrees of freedom"


def test_further_programs_show_what_they_share(controller, monkeypatch):
    ScriptedRuns(monkeypatch, rate, noise=0.01, shared=0.03)
    found = calibrated(controller, f"autoresearch/{TAG}")
    assert len(found.programs) == len(set(found.programs)) == 2
    assert found.seed_share == (found.noise.low, found.noise.high) and found.noise.low > 0.7
    first, second = found.scores_bpb
    assert sum(first) / 20 - sum(second) / 20 == pytest.approx(0.02, abs=0.01)


def test_limits_of_the_audit_are_only_raised(controller, monkeypatch):
    ScriptedRuns(monkeypatch, rate)
    quiet = calibrated(controller, seeds=2)
    assert quiet.honest_dependence == controller.config.honest_dependence
    loud = [replace(CLEAN, suffix=0.2, exceedances=(8, 0, 0, 0))] * 4
    found = calibrate.summarize(controller, {"a": [1.0, 2.0], "b": [1.0, 2.0]}, loud, repeated=True)
    assert found.honest_dependence == 0.4 and found.honest_exceedances[0] == 1.0


def test_later_starts_read_what_is_saved(controller, monkeypatch, tmp_path):
    ScriptedRuns(monkeypatch, rate)
    found = calibrated(controller, seeds=3)
    calibrate.save(tmp_path / "noise.json", found)
    known = measured(tmp_path / "noise.json")
    assert known["noise_prior_bpb"] == found.noise_prior_bpb and known["seed_share"] == found.seed_share
    assert len(json.loads((tmp_path / "noise.json").read_text())["audits"]) == 6


def test_a_program_that_fails_and_a_stop_write_nothing_and_leave_no_image(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, lambda text: crash())
    with pytest.raises(BaselineError, match="cannot be measured: training exited"):
        calibrated(controller)
    runs.score = rate
    with pytest.raises(Interrupted):
        calibrated(controller, stopping=lambda: len(runs.seeds) > 2)
    assert len(runs.removed) == 2 and interleave.measure == runs.measure
