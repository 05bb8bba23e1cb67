"""The overview that `status` shows has the same figures as reports that read every experiment."""

from __future__ import annotations

import random

import pytest

from runner.decision.history import strikes
from runner.report import overview as subject
from runner.report.findings import find
from runner.report.notes import certificates, early_stops
from runner.report.summary import summarize
from runner.report.tip_progress import tip_progress
from tests.support.ledgers import TAG, new_ledger
from tests.support.random_nights import random_night


@pytest.mark.parametrize("seed", range(4))
def test_sums_of_the_ledger_are_those_of_its_experiments(tmp_path, seed):
    with new_ledger(tmp_path) as ledger:
        for step, _ in enumerate(random_night(ledger, random.Random(seed), 40)):
            if step % 25:
                continue
            everything, found = ledger.experiments(TAG), subject.overview(ledger, TAG)
            assert found.summary == summarize(everything)
            assert found.strikes == strikes(everything)
            assert vars(found.early_stops) == pytest.approx(vars(early_stops(everything)))
            assert found.certificates == certificates(everything)
            assert found.newest == everything
            assert found.tip == tip_progress(everything, everything)
            whole = find(everything)
            assert found.findings.raw == first_and_lowest(whole.raw)
            for name in vars(whole):
                if name != "raw":
                    assert getattr(found.findings, name) == getattr(whole, name), name


def first_and_lowest(raw):
    """The first level of a curve, and the one at which its lowest claim was made."""
    return tuple(dict.fromkeys([*raw[:1], *(level for level in raw if level.bpb == raw[-1].bpb)][:2]))


def test_a_long_campaign_is_looked_at_where_it_is_newest(tmp_path, monkeypatch):
    monkeypatch.setattr(subject, "NUM_NEWEST", 5)
    monkeypatch.setattr(subject, "NUM_CHAMPIONS", 2)
    with new_ledger(tmp_path) as ledger:
        list(random_night(ledger, random.Random(5), 40))
        everything, found = ledger.experiments(TAG), subject.overview(ledger, TAG)
    whole = find(everything)
    assert found.newest == everything[-5:] and found.summary == summarize(everything)
    assert found.findings.keeps == whole.keeps and found.findings.total == whole.total
    assert found.findings.debiased == whole.debiased
