"""A plateau: when it begins, and what it asks for."""

from __future__ import annotations

from runner.proposers.researcher.plateau import plateau
from runner.records import Phase, RunEnd, RunRecord, Verdict
from tests.support.near_misses import discarded
from tests.support.trials import trials_of
from tests.support.tried import BASELINE, tried

RUN = RunRecord(phase=Phase.TRAIN, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1)


def test_a_plateau_is_a_number_of_verdicts_without_a_keep():
    misses = [tried(number, delta_bpb=0.02, category="optimizer") for number in range(1, 6)]
    assert plateau([BASELINE, *misses[:4]], 5) is None
    assert plateau([BASELINE, *misses], 5).tried == 5
    assert plateau([BASELINE, *misses, tried(6, Verdict.KEEP)], 5) is None
    assert plateau([BASELINE, tried(1, Verdict.KEEP), *misses], 5).tried == 5


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
    assert "The best of them measured -0.010000 bpb" in request
    assert "optimizer (3), schedule # lies (1)" in request
    assert "near misses that do not change the same thing (#2, #1)" in request
    assert "simplification" in request


def test_a_plateau_does_not_suggest_the_combination_that_is_running():
    rows = [discarded(number, 1.0) for number in (1, 2, 3)]
    assert "combination of near misses" in plateau([BASELINE, *rows], 3).request
    running = tried(4, None, combines=(1, 3))
    assert "combination of near misses" not in plateau([BASELINE, *rows], 3, running=running).request
