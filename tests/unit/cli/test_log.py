"""`log` with the last experiments only."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.storage.ledger import Ledger
from runner.storage.paths import StatePaths
from tests.support.ledgers import TAG, open_experiment


@pytest.fixture
def four_experiments(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "m"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    with Ledger(StatePaths.of(tmp_path).ledger) as ledger:
        ledger.create_campaign(tag=TAG, base_commit="b" * 40, conditions={})
        for _ in range(4):
            open_experiment(ledger)


def listed(*options):
    found = CliRunner().invoke(cli, ["log", "--json", *options], catch_exceptions=False)
    return [json.loads(line)["number"] for line in found.output.splitlines()]


@pytest.mark.parametrize(
    ("options", "numbers"),
    [((), [0, 1, 2, 3]), (("--last", "3"), [1, 2, 3]), (("--last", "9"), [0, 1, 2, 3])],
)
def test_the_last_experiments_are_listed_or_all(four_experiments, options, numbers):
    assert listed(*options) == numbers
