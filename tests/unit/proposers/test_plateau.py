"""A plateau: when it begins, and what it asks for."""

from __future__ import annotations

from runner.proposers.researcher.plateau import plateau
from runner.records import Phase, RunEnd, RunRecord, Verdict
from tests.support.near_misses import discarded
from tests.support.trials import trials_of
from tests.support.tried import BASELINE, tried

RUN = RunRecord(phase=Phase.TRAIN, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1)


def test_a_plateau_is_a_number_of_verdicts_without_an_acceptance():
    misses = [tried(number, delta_bpb=0.02, category="optimizer") for number in range(1, 6)]
    assert plateau([BASELINE, *misses[:4]], 5) is None
    assert plateau([BASELINE, *misses], 5).tried == 5
    assert plateau([BASELINE, *misses, tried(6, Verdict.ACCEPT)], 5) is None
    assert plateau([BASELINE, tried(1, Verdict.ACCEPT), *misses], 5).tried == 5
    for verdict in (Verdict.KEEP, Verdict.DISCARD):
        certificate = tried(7, verdict, certifies=(1,))
        assert plateau([BASELINE, *misses, certificate], 5).tried == 5, "a certificate is no idea"


def test_verdicts_that_say_nothing_about_an_idea_make_no_plateau():
    infra = [tried(number, Verdict.INFRA) for number in range(1, 9)]
    refused = [tried(number, Verdict.INVALID) for number in range(9, 20)]
    assert plateau([BASELINE, *infra, *refused], 3) is None
    audited = [tried(number, Verdict.INVALID, trials=trials_of([RUN])) for number in range(20, 23)]
    assert plateau([BASELINE, *infra, *refused, *audited], 3).tried == 3


def test_a_plateau_is_described_with_figures_and_asks_for_something_else():
    rows = [
        discarded(1, 1.0, delta_bpb=-0.01, category="optimizer"),
        discarded(2, 2.0, delta_bpb=0.005, category="optimizer"),
        discarded(3, -1.0, delta_bpb=0.2, category="optimizer"),
        tried(4, Verdict.CRASH, category="schedule\n# lies"),
    ]
    request = plateau([BASELINE, *rows], 4).request
    assert "in the last 4 experiments (1 of them crashed)" in request
    assert "The best of them had an expected effect of -0.010000 bpb." in request
    assert "optimizer (3), schedule # lies (1)" in request
    assert "simplification" in request
