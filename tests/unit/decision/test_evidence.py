"""What the runs in a ledger say: which scores count, who is compared, when the champion is measured again."""

from __future__ import annotations

import statistics
from itertools import count

import pytest

from runner import config
from runner.decision import history
from runner.decision.keep_rule import PRIOR_WEIGHT
from runner.records import AuditRecord, Experiment, Figures, Phase, RunEnd, RunRecord, Verdict

NEXT = count(1)
CLEAN = AuditRecord(
    claimed_bpb=1.0, num_positions=8, mean_nats=0.0, se_nats=0.0, upper_nats=0.0, exceedances=(0, 0, 0, 0),
    repeat=None, suffix=None, neighbours=None,
)  # fmt: skip


def run(phase, seed, bpb=None, end=RunEnd.FINISHED, audit=None):
    return RunRecord(
        phase=phase, seed=seed, end=end, exit_code=0, wall_seconds=1.0, cpu_seconds=1.0, val_bpb=bpb, audit=audit,
        id=next(NEXT),
    )  # fmt: skip


def look(seed, bpb, audited=True):
    """The runs of one look."""
    runs = [run(Phase.TRAIN, seed), run(Phase.SCORE, seed, bpb)]
    return [*runs, run(Phase.AUDIT, seed, bpb + 0.001, audit=CLEAN)] if audited else runs


def experiment(number, trials=(), *, controls=(), verdict=Verdict.KEEP, **changes):
    return Experiment(
        number=number, hypothesis="h", proposer="p", verdict=verdict,
        runs=tuple(one for some in trials for one in some),
        controls=tuple(one for some in controls for one in some), **changes,
    )  # fmt: skip


def scores(runs):
    return [None if one.val_bpb is None else round(one.val_bpb, 6) for one in runs]


def test_an_audited_score_counts_in_place_of_the_claim():
    runs = [*look(1, 2.0), *look(2, 3.0, audited=False)]
    assert scores(history.scored(runs)) == [2.001, 3.0]
    assert scores(history.scored(runs, audited=True)) == [2.001]


def test_a_seed_that_was_run_again_after_a_crash_counts_once():
    cut = [run(Phase.TRAIN, 1), run(Phase.SCORE, 1, 2.5), run(Phase.AUDIT, 1, end=RunEnd.LOST)]
    assert scores(history.scored([*cut, *look(1, 2.0)])) == [2.001]


def test_refused_claims_are_no_score():
    refused = AuditRecord(**{**CLEAN.__dict__, "finding": "not_causal", "reason": "r"})
    runs = [*look(1, 2.0, audited=False), run(Phase.AUDIT, 1, 2.0, audit=refused)]
    assert history.scored(runs, audited=True) == ()


def test_the_first_look_is_not_in_the_pool_of_a_kept_candidate_and_the_baseline_has_all_its_runs():
    trials = [look(1, 1.0), look(2, 1.2), look(3, 1.3)]
    assert scores(history.champion_pool(experiment(5, trials))) == [1.201, 1.301]
    assert scores(history.champion_pool(experiment(0, trials))) == [1.001, 1.201, 1.301]
    assert scores(history.champion_pool(experiment(5, trials[:1]))) == [1.001], "better than none"


def test_controls_join_the_pool_and_old_runs_leave_it():
    one = experiment(
        5, [look(1, 1.0), look(2, 1.2)], controls=[look(10 + index, 2.0 + index) for index in range(9)]
    )
    pool = scores(history.champion_pool(one))
    assert len(pool) == 8
    assert pool == [round(2.001 + index, 6) for index in range(1, 9)]


def test_the_noise_is_that_between_runs_of_one_program_whatever_the_program(tmp_path):
    made = config.load(tmp_path, {"noise_prior_bpb": 0.01}, environ={})
    experiments = [
        experiment(0, [look(1, 2.0), look(2, 2.02)]),
        experiment(1, [look(3, 1.0)], verdict=Verdict.DISCARD),
        experiment(2, [look(4, 1.5), look(5, 1.53)], verdict=None),
    ]
    squares = statistics.variance([2.0, 2.02])
    expected = ((PRIOR_WEIGHT * 0.01**2 + squares) / (PRIOR_WEIGHT + 1)) ** 0.5
    assert history.belief(experiments, made).sigma_bpb == pytest.approx(expected), "open ones do not count yet"


def test_first_looks_teach_how_often_edits_help(tmp_path):
    made = config.load(tmp_path, {}, environ={})
    figures = Figures(
        trials=(1,), pool=(2,), delta_bpb=-0.5, se_bpb=0.01, sigma_bpb=0.01, better=1.0, effect_bpb=-0.5,
        low_bpb=-0.5, high_bpb=-0.5, first_delta_bpb=-0.5, first_se_bpb=0.01,
    )  # fmt: skip
    naive = history.belief([], made)
    taught = history.belief([experiment(number, figures=figures) for number in range(30)], made)
    gains = naive.prior.grid < -0.3
    assert (taught.weights @ naive.prior.components)[gains].sum() > 5 * (naive.weights @ naive.prior.components)[
        gains
    ].sum()


def test_a_control_is_due_after_so_many_scored_runs_of_others():
    champion = experiment(0, [look(1, 2.0)])
    others = [experiment(number, [look(number, 2.0, audited=False)]) for number in (1, 2)]
    assert not history.control_due([champion, *others[:1]], champion, 2)
    assert history.control_due([champion, *others], champion, 2)
    assert not history.control_due([champion, *others], champion, 0), "never"
    again = experiment(0, [look(1, 2.0)], controls=[look(9, 2.0)])
    assert not history.control_due([again, *others], again, 2)


def test_a_new_champion_is_measured_until_two_runs_did_not_choose_it():
    trials = [look(1, 2.0), look(2, 2.0)]
    assert history.control_due([], experiment(1, trials), 20)
    assert not history.control_due([], experiment(1, trials), 0), "never"
    assert not history.control_due([], experiment(1, trials, controls=[look(8, 2.0)]), 20)
    failed = [run(Phase.TRAIN, 8, end=RunEnd.FAILED)]
    assert not history.control_due([], experiment(1, trials, controls=[failed]), 20), "not for ever"


def test_runs_between_the_looks_replace_the_earlier_ones_when_the_machine_has_changed():
    old = [look(1, 2.0), look(2, 2.01)]
    candidate = look(3, 1.9)
    fresh = [look(4, 2.05), look(5, 2.06)]
    still = [look(6, 2.0)]
    champion = experiment(0, old, controls=[*fresh])
    pool = history.champion_pool(champion)
    assert scores(history.comparable(pool, candidate, 0.01)) == [2.051, 2.061]
    assert history.comparable(pool, candidate, 0.1) == pool, "within the noise nothing has changed"
    quiet = history.champion_pool(experiment(0, old, controls=still))
    assert history.comparable(quiet, candidate, 0.01) == quiet
    assert history.comparable(pool, [], 0.01) == pool, "before the first look"


def test_the_pool_is_told_as_it_was_known_then():
    first, second = look(1, 2.0), look(2, 2.1)
    champion = experiment(0, [first], controls=[second])
    assert scores(history.champion_pool(champion)) == [2.001, 2.101]
    assert scores(history.champion_pool(champion, before=second[0].id)) == [2.001]


def test_the_champion_is_measured_again_between_two_looks_and_once():
    champion = experiment(0, [look(1, 2.0)])
    candidate = look(2, 1.9)
    assert history.control_due_between_trials(champion, candidate)
    again = experiment(0, [look(1, 2.0)], controls=[look(3, 2.0)])
    older, newer = look(4, 1.9), look(5, 2.0)
    assert history.control_due_between_trials(again, older)
    done = experiment(0, [look(1, 2.0)], controls=[newer])
    assert not history.control_due_between_trials(done, older)


def test_a_control_that_a_kill_cut_off_is_still_due_with_the_same_seed():
    first = look(1, 2.0)
    other = experiment(1, [look(2, 2.0)])
    cut = experiment(0, [first], controls=[[run(Phase.TRAIN, 7), run(Phase.SCORE, 7, 2.0)]])
    assert history.control_due([cut, other], cut, 1)
    assert history.next_index(cut) == 1
    failed = experiment(0, [first], controls=[[run(Phase.TRAIN, 7, end=RunEnd.FAILED)]])
    assert not history.control_due([failed, other], failed, 1), "a champion that fails is not tried for ever"
    assert history.next_index(failed) == 2
    lost = experiment(0, [first], controls=[[run(Phase.TRAIN, 7, end=RunEnd.LOST)]])
    assert history.control_due([lost, other], lost, 1)
