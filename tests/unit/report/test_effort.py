"""Money and time of a campaign: figures against sums by hand, unknown where nothing is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.records import Experiment, Phase, RunEnd, RunRecord, UsageTotals, Verdict
from runner.report.effort import KINDS, duty, duty_line, spending, spending_lines, stretches, tokens
from tests.support.ledgers import NO_USAGE
from tests.support.trials import trials_of

USAGE = UsageTotals(
    num_responses=30,
    input_tokens=100_000,
    output_tokens=50_000,
    cache_read_tokens=700_000,
    cache_write_tokens=200_000,
    cost_usd=6.0,
)


def at(second):
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).isoformat()


def run(phase, start, end, ended=RunEnd.FINISHED):
    return RunRecord(
        phase=phase, seed=1, end=ended, exit_code=0, wall_seconds=1.0, cpu_seconds=1.0,
        opened_at=None if start is None else at(start), closed_at=None if end is None else at(end),
    )  # fmt: skip


def experiment(number, start=None, end=None, *runs, verdict=Verdict.DISCARD, **more):
    return Experiment(
        number=number,
        hypothesis="h",
        proposer="p",
        verdict=verdict,
        started_at=None if start is None else at(start),
        ended_at=None if end is None else at(end),
        trials=trials_of(runs),
        **more,
    )


def scored(number, bpb, verdict="keep", cost=0.0):
    return experiment(number, verdict=Verdict(verdict), val_bpb=bpb, cost_usd=cost)


# --- spending --------------------------------------------------------------------------------------------------

SPENT = [scored(0, 2.0), scored(1, 1.99, cost=1.0), scored(2, 2.1, "discard", 2.0), scored(3, 1.97, cost=0.0)]


def test_the_figures_are_those_of_a_sum_by_hand():
    spent = spending(SPENT, USAGE, target=10, budget_usd=20.0)
    assert (spent.total_usd, spent.per_experiment_usd, spent.per_keep_usd) == (6.0, 2.0, 3.0)
    assert spent.per_millibit_usd == pytest.approx(6.0 / 30)  # 0.030 bpb gained
    assert spent.recent_usd == pytest.approx(1.0)
    assert spent.projected_usd == pytest.approx(6.0 + 7 * 1.0)
    assert spent.affordable == 14
    assert spent.cached_share == pytest.approx(0.7)


def test_the_projection_rests_on_the_last_ten_experiments():
    made = [scored(0, 2.0), *(scored(n, 2.1, "discard", 9.0 if n <= 5 else 0.5) for n in range(1, 16))]
    assert spending(made, USAGE, target=20, budget_usd=None).projected_usd == pytest.approx(6.0 + 5 * 0.5)


@pytest.mark.parametrize("made", [[], [scored(0, 2.0)], [scored(0, None, "crash")], [experiment(1, verdict=None)]])
def test_figures_that_cannot_be_computed_yet_are_absent(made):
    spent = spending(made, USAGE, target=10, budget_usd=0)
    for figure in (
        spent.per_experiment_usd,
        spent.per_keep_usd,
        spent.per_millibit_usd,
        spent.projected_usd,
        spent.budget_usd,
    ):
        assert figure is None
    assert spending_lines(spent)[0] == "spent $6.00"
    assert not any("current rate" in line for line in spending_lines(spent))


def test_a_loss_has_no_price_per_gain_and_a_target_that_is_passed_costs_nothing_more():
    spent = spending([*SPENT[:1], scored(1, 2.5, "keep", 1.0)], USAGE, target=0, budget_usd=1.0)
    assert spent.per_millibit_usd is None
    assert spent.projected_usd == 6.0
    assert spent.affordable == 0


def test_people_read_it_in_three_lines():
    assert spending_lines(spending(SPENT, USAGE, target=1000, budget_usd=20.0)) == [
        "spent $6.00: $2.000 per experiment, $3.000 per keep, $0.200 per 0.001 bpb gained",
        "tokens: 100 k input, 50.0 k output, 700 k read from the cache (70% of all prompts), 200 k written to it",
        "at the current rate about $1,003.00 for all 1,000 experiments; "
        "the budget is $20.00, enough for about 14 more",
    ]


def test_a_campaign_without_a_model_shows_no_money_and_a_free_one_its_tokens():
    assert spending_lines(spending(SPENT, NO_USAGE, target=10, budget_usd=20.0)) == []
    free = UsageTotals(
        num_responses=1, input_tokens=5, output_tokens=0, cache_read_tokens=0, cache_write_tokens=0, cost_usd=0.0
    )
    made = [scored(0, 2.0), scored(1, 1.9)]
    lines = spending_lines(spending(made, free, target=10, budget_usd=20.0))
    assert lines[0].startswith("spent $0.00")
    assert lines[1].startswith("tokens: 5 input")
    assert lines[2:] == ["the budget is $20.00"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (9_996, "10.0 k"), (99_960, "100 k"), (999_499, "999 k"),
     (999_500, "1.00 M"), (12_340_000, "12.3 M"), (5_000_000_000, "5000 M")],
)  # fmt: skip
def test_numbers_of_tokens_have_three_digits(count, text):
    assert tokens(count) == text


# --- duty ---------------------------------------------------------------------------------------------------

NIGHT = [
    experiment(0, 0, 100, run(Phase.TRAIN, 10, 90), run(Phase.SCORE, 90, 95), run(Phase.AUDIT, 95, 99)),
    experiment(1, 110, 200, run(Phase.TRAIN, 112, 190), run(Phase.SCORE, 190, 198), run(Phase.TEST, 198, 200)),
]


def test_every_second_of_a_night_has_one_name():
    whole = duty(NIGHT)
    assert whole.seconds == {"build": 12, "train": 158, "score": 15, "audit": 4, "other": 1, "propose": 10}
    assert whole.total_seconds == 200
    assert whole.share() == pytest.approx(158 / 200)
    assert duty_line(whole, None, "GPU duty") == (
        "GPU duty 79% of 200 s; score 8%, build 6%, propose 5%, audit 2%, other 0%"
    )


def test_an_experiment_alone_has_no_time_of_proposing():
    assert duty(NIGHT[1:]).seconds == {"build": 2, "train": 78, "score": 10}


def test_the_last_experiments_have_a_duty_of_their_own_with_their_proposals():
    recent = duty(NIGHT, last=1)
    assert recent.seconds == {"propose": 10, "build": 2, "train": 78, "score": 10}
    assert "(last 10: 78%)" in duty_line(duty(NIGHT), recent, "GPU duty")
    assert duty(NIGHT, last=2) == duty(NIGHT, last=50) == duty(NIGHT)


def test_a_training_that_runs_while_the_next_is_proposed_counts_as_training():
    overlapping = [
        experiment(0, 0, 100, run(Phase.TRAIN, 0, 100)),
        experiment(1, 50, 200, run(Phase.TRAIN, 100, 200)),
    ]
    assert duty(overlapping).seconds == {"train": 200}


def test_a_stop_of_the_controller_is_no_part_of_the_night():
    later = 8 * 3600
    made = [*NIGHT, experiment(2, later, later + 100, run(Phase.TRAIN, later, later + 100))]
    whole = duty(made)
    assert whole.paused_seconds == later - 200
    assert whole.total_seconds == 300
    assert duty_line(whole, None, "GPU duty").endswith("; pauses of 7 h 57 min left out")


def test_a_lost_run_is_unknown_and_a_pause_when_it_was_found_the_next_morning():
    lost = [experiment(0, 0, 100, run(Phase.TRAIN, 0, 20, RunEnd.LOST), run(Phase.TRAIN, 20, 100))]
    assert duty(lost).seconds == {"unknown": 20, "train": 80}
    assert duty_line(duty(lost), None, "GPU duty") == "GPU duty at least 80% of 100 s; unknown 20%"
    found_late = [experiment(0, 0, 9100, run(Phase.TRAIN, 0, 9000, RunEnd.LOST), run(Phase.TRAIN, 9000, 9100))]
    assert duty(found_late).seconds == {"train": 100}
    assert duty(found_late).paused_seconds == 9000


def test_what_has_no_times_is_unknown():
    without = [experiment(0, 0, 100, run(Phase.TRAIN, None, None))]
    assert duty(without).seconds == {"unknown": 100}
    assert duty(without).share() is None
    assert duty_line(duty(without), None, "GPU duty") == "GPU duty unknown: the ledger has no times"
    nowhere = [NIGHT[0], experiment(1), experiment(2, 150, 200, run(Phase.TRAIN, 150, 200))]
    assert duty(nowhere).seconds["unknown"] == 50
    for nothing in ([], [experiment(0)], [experiment(0, 5, 5)]):
        assert duty_line(duty(nothing), None, "GPU duty") is None


def test_a_running_experiment_counts_as_far_as_its_last_run():
    made = [*NIGHT, experiment(2, 210, None, run(Phase.TRAIN, 220, 300), verdict=None)]
    assert duty(made).total_seconds == 300
    assert duty([*NIGHT, experiment(2, 210, None, verdict=None)]).total_seconds == 200


TIMES = st.one_of(st.none(), st.integers(0, 5000))


@given(
    st.lists(
        st.tuples(
            TIMES, TIMES, st.lists(st.tuples(st.sampled_from(Phase), TIMES, TIMES), max_size=3), st.booleans()
        ),
        max_size=5,
    )
)
def test_stretches_are_whole_in_order_and_named_whatever_the_clock_did(rows):
    made = [
        experiment(n, start, end, *(run(*one) for one in runs), verdict=None if is_open else Verdict.DISCARD)
        for n, (start, end, runs, is_open) in enumerate(rows)
    ]
    found = list(stretches(made))
    assert all(one.kind in KINDS and one.start < one.end for one in found)
    assert all(one.end == other.start for one, other in pairwise(found))
    whole = duty(made)
    assert whole.total_seconds + whole.paused_seconds == pytest.approx(sum(one.end - one.start for one in found))
    assert whole.share() is None or 0 <= whole.share() <= 1
    duty_line(whole, duty(made, last=2), "GPU duty")
