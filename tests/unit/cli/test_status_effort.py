"""Money and time of a campaign in the ledger, and as `status` and `show` report them."""

from __future__ import annotations

import json
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.records import Phase, Proposal, Usage, UsageTotals, Verdict
from runner.storage.ledger import Ledger
from runner.storage.paths import StatePaths
from tests.support.ledgers import NO_USAGE, record_trial
from tests.support.trials import run, scored


def at(second):
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).isoformat()


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.com"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "m"], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AUTORESEARCH_BUDGET_USD", "5")
    with Ledger(StatePaths.of(tmp_path).ledger) as opened:
        opened.create_campaign(tag="t", base_commit="b" * 40, conditions={"profile": "cuda"})
        opened.create_campaign(tag="other", base_commit="b" * 40, conditions={})
        opened.set_target("t", 4)
        yield opened


def trained(ledger, number):
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record_trial(ledger, number, scored(2.0, runs=(run(Phase.TRAIN, opened_at=now, closed_at=now),)))
    ledger.close_experiment(
        "t", number, verdict=Verdict.KEEP, reason="r", val_bpb=2.0, delta_bpb=None, sigma_bpb=0.01
    )


def asked(ledger, cost, tag="t"):
    usage = Usage(
        model="m", request_id=None, input_tokens=1, output_tokens=2, cache_read_tokens=3, cache_write_tokens=4,
        cost_usd=cost,
    )  # fmt: skip
    conversation = ledger.conversations.open(tag, "p", seen=0)
    booking = ledger.conversations.open_answer(conversation.id, turn=1, request_sha256="h", usage=usage)
    ledger.conversations.close_answer(booking, usage, {})
    return conversation.id


def opened(ledger, conversation=None):
    proposal = Proposal(hypothesis="h", edits=(), proposer="p")
    return ledger.open_experiment("t", proposal, diff="", champion=None, conversation=conversation)


def test_totals_are_of_one_campaign_and_count_what_led_to_nothing(ledger):
    assert ledger.conversations.usage_totals("t") == NO_USAGE
    opened(ledger, asked(ledger, 1.0))
    asked(ledger, 0.5)
    asked(ledger, 9.0, "other")
    assert ledger.conversations.usage_totals("t") == UsageTotals(
        num_responses=2,
        input_tokens=2,
        output_tokens=4,
        cache_read_tokens=6,
        cache_write_tokens=8,
        cost_usd=1.5,
    )


def test_a_run_comes_back_with_its_times(ledger):
    trained(ledger, opened(ledger))
    (one,) = ledger.experiment("t", 0).runs
    assert one.opened_at is not None and one.closed_at is not None
    assert datetime.fromisoformat(one.opened_at) <= datetime.fromisoformat(one.closed_at)


def test_status_and_show_report_money_and_time(ledger):
    trained(ledger, opened(ledger))
    trained(ledger, opened(ledger, asked(ledger, 1.0)))
    # A clock of whole seconds saw none of this; give it a night.
    for column, table, seconds in (("opened_at", "experiments", 0), ("closed_at", "experiments", 100)):
        ledger.database._db.execute(
            f"UPDATE {table} SET {column} = CASE number WHEN 0 THEN ? ELSE ? END", (at(seconds), at(seconds + 110))
        )
    for column, seconds in (("opened_at", 10), ("closed_at", 90)):
        ledger.database._db.execute(
            f"UPDATE runs SET {column} = CASE (SELECT experiment FROM trials WHERE id = trial)"
            " WHEN 0 THEN ? ELSE ? END",
            (at(seconds), at(seconds + 110)),
        )
    shown = CliRunner().invoke(cli, ["status", "--tag", "t"])
    assert shown.exit_code == 0
    for part in (
        "GPU duty 76% of 210 s",
        "spent $1.00: $1.000 per experiment",
        "about $4.00 for all 4",
        "$5.00",
    ):
        assert part in shown.output
    data = json.loads(CliRunner().invoke(cli, ["status", "--tag", "t", "--json"]).output)
    assert data["spending"]["total_usd"] == data["cost_usd"] == 1.0
    assert data["spending"]["budget_usd"] == 5.0
    assert data["spending"]["usage"]["cache_read_tokens"] == 3
    assert data["duty"]["seconds"] == {"build": 20, "train": 160, "other": 20, "propose": 10}
    shown = CliRunner().invoke(cli, ["show", "1", "--tag", "t"])
    assert "GPU duty 80% of 100 s; " in shown.output


def test_status_shows_neither_where_there_is_none_and_survives_a_wrong_setting(ledger, monkeypatch):
    shown = CliRunner().invoke(cli, ["status", "--tag", "other"])
    assert shown.exit_code == 0
    assert "duty" not in shown.output and "spent" not in shown.output
    data = json.loads(CliRunner().invoke(cli, ["status", "--tag", "other", "--json"]).output)
    assert (data["spending"], data["duty"], data["cost_usd"]) == (None, None, 0.0)
    asked(ledger, 1.0)
    monkeypatch.setenv("AUTORESEARCH_BUDGET_USD", "much")
    shown = CliRunner().invoke(cli, ["status", "--tag", "t"])
    assert "spent $1.00" in shown.output and "budget" not in shown.output


@pytest.mark.parametrize(
    ("target", "shown"), [(8, ": 2 of 8 experiments"), (1, ": 2 experiments"), (2, ": 2 of 2 ")]
)
def test_experiments_beyond_the_target_are_not_counted_of_it(ledger, target, shown):
    """`try` adds some to a night that is over."""
    ledger.set_target("t", target)
    trained(ledger, opened(ledger))
    for _ in range(2):
        trained(ledger, opened(ledger, asked(ledger, 1.0)))
    result = CliRunner().invoke(cli, ["status", "--tag", "t"])
    assert shown in result.output
    assert f"for all {max(target, 2)} experiments" in result.output
