"""Synthetic campaigns: repeatable, within their budget, and decided by the rule itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.decision import simulation
from runner.decision.simulation import RULES, simulate
from runner.decision.worlds import MIXES, Machine, Mix, Setting, draw

REAL = Setting(mix=MIXES["real"], sigma_bpb=0.0007, num_runs=120)
NULL = Mix(harm_share=0.0, harm=1.0, slight_share=1.0, slight=0.0, gain_share=0.0, gain=1.0)
HUGE = Mix(harm_share=0.5, harm=1.0, slight_share=0.0, slight=0.0, gain_share=0.5, gain=1.0)


def test_a_mix_has_its_shares_and_sizes():
    found = draw(MIXES["harsh"], np.random.default_rng(0), 400_000)
    mix = MIXES["harsh"]
    expected = mix.harm_share * mix.harm - mix.gain_share * mix.gain
    assert found.mean() == pytest.approx(expected, rel=0.02)
    assert (found < 0).mean() == pytest.approx(mix.gain_share + mix.slight_share / 2, abs=0.005)


@pytest.mark.parametrize("name", RULES)
def test_the_same_seed_gives_the_same_campaigns(name):
    first, second = (simulate(name, RULES[name], REAL, 60, seed=3) for _ in range(2))
    assert first == second
    assert first != simulate(name, RULES[name], REAL, 60, seed=4)


@pytest.mark.parametrize("name", RULES)
def test_no_rule_spends_more_than_its_budget(name):
    found = RULES[name](REAL, 50, np.random.default_rng(0))
    assert (found.trials <= REAL.num_runs - 1).all()
    assert (found.candidates <= found.trials).all() and (found.keeps <= found.candidates).all()


@pytest.mark.parametrize("name", RULES)
def test_without_noise_to_speak_of_every_keep_is_true_and_reported_as_it_is(name):
    setting = Setting(mix=HUGE, sigma_bpb=1e-6, num_runs=60)
    found = simulate(name, RULES[name], setting, 50, seed=0)
    assert found.false_share == 0
    assert abs(found.optimism) < 0.01


def test_where_nothing_helps_every_keep_is_false_and_ours_are_few():
    setting = Setting(mix=NULL, sigma_bpb=0.0007, num_runs=200)
    greedy, ours = (simulate(name, RULES[name], setting, 100, seed=0) for name in ("greedy", "tip"))
    assert greedy.false_share == 1
    # The running minimum of n numbers is broken 1/2 + 1/3 + … times.
    assert greedy.keeps == pytest.approx(sum(1 / n for n in range(2, 201)), rel=0.06)
    assert ours.keeps < greedy.keeps / 15


def test_the_best_of_many_numbers_is_as_much_too_good_as_extreme_values_are():
    """Of 100 null changes the best is 2.5 standard deviations below the truth."""
    setting = Setting(mix=NULL, sigma_bpb=1.0, num_runs=100)
    found = simulation.greedy(setting, 4000, np.random.default_rng(0))
    assert found.reported_gain.mean() == pytest.approx(2.508, abs=0.05)
    assert (found.true_gain == 0).all()


def test_a_machine_that_drifts_has_the_drift_that_was_asked_for():
    setting = Setting(mix=NULL, sigma_bpb=1.0, num_runs=10, drift_sigmas=0.7, drift_runs=20)
    machine = Machine(setting, np.random.default_rng(0), (20_000,))
    first = machine.noise()
    second = machine.noise()
    assert first.var() == pytest.approx(1 + 0.7**2, rel=0.05)
    assert np.cov(first, second)[0, 1] == pytest.approx(0.7**2 * np.exp(-1 / 20), rel=0.1)


def test_the_command_prints_a_table_or_json_and_draws(tmp_path):
    arguments = ["simulate", "--campaigns", "20", "--runs", "40", "--plot", str(tmp_path / "rules.png")]
    shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0, shown.output
    assert [line[:18].strip() for line in shown.output.splitlines()[2 : 2 + len(RULES)]] == list(RULES)
    assert (tmp_path / "rules.png").read_bytes().startswith(b"\x89PNG")
    printed = json.loads(CliRunner().invoke(cli, [*arguments[:-2], "--json"]).stdout)
    assert [one["rule"] for one in printed] == list(RULES)
