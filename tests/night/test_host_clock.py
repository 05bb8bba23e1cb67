"""The wall clock is for people: no deadline, budget or order depends on it."""

from __future__ import annotations

import re

import pytest

from runner.storage.ledger import Ledger
from tests.support.host_night import ROOT, TRAINING

DAY = 86400


@pytest.mark.parametrize("days", [1, -1, -20000])
def test_a_wall_clock_that_jumps_changes_nothing(night, whole, days):
    """In the middle of a night of an hour."""
    night.environment |= {"JUMP_SECONDS": str(days * DAY), "AUTORESEARCH_HOURS": "1"}
    process = night.start(gates=[TRAINING])
    process.at_gate()
    process.open_gate()
    ended = process.end()
    assert ended.code == 0, ended.errors
    assert "3 of 3 experiments done" in ended.output
    assert night.final_state() == whole
    opened = [row["opened_at"] for row in night.rows("trials")]
    assert (opened[-1] < opened[0]) is (days < 0), "the clock really jumped"


def test_the_newest_campaign_is_the_last_one_whatever_the_clock_says(tmp_path, monkeypatch):
    with Ledger(tmp_path / "ledger.db") as ledger:
        for tag, moment in (("first", "2030-01-02T00:00:00+00:00"), ("second", "2030-01-01T00:00:00+00:00")):
            monkeypatch.setattr("runner.storage.ledger.now", lambda moment=moment: moment)
            ledger.create_campaign(tag=tag, base_commit="b", conditions={})
        assert ledger.campaigns() == ("second", "first")


def test_the_wall_clock_is_read_in_one_place_alone():
    """Where rows are written down; and by `doctor`, which looks whether it is right."""
    wall = re.compile(r"time\.time\(|time_ns\(|datetime\.now|utcnow|date\.today|\btime\.localtime|\btime\.gmtime")
    readers = {
        str(path.relative_to(ROOT)): len(found)
        for folder in ("runner", "locked_eval")
        for path in (ROOT / folder).rglob("*.py")
        if "doctor" not in path.parts and (found := wall.findall(path.read_text()))
    }
    assert readers == {"runner/storage/clock.py": 1}
