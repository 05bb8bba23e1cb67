"""What the trials in a ledger say: champions, their pool, the noise, and when a champion is measured again."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runner import config
from runner.decision import history
from runner.decision.keep_rule import NEAR_MISS_SIGMAS, PRIOR_WEIGHT, Rule
from runner.decision.memory import Memory
from runner.records import Experiment, Figures, Outcome, Phase, TrialKind, Verdict
from tests.support.trials import CLEAN, failed, run, scored

FIGURES = Figures(
    trials=(1,), pool=(2,), delta_bpb=-0.5, se_bpb=0.01, sigma_bpb=0.01, better=1.0, effect_bpb=-0.5,
    low_bpb=-0.5, high_bpb=-0.5, first_delta_bpb=-0.5, first_se_bpb=0.01,
)  # fmt: skip


def experiment(number, trials=(), *, controls=(), verdict=Verdict.KEEP, **fields):
    return Experiment(
        number=number, hypothesis="h", proposer="p", verdict=verdict, trials=tuple(trials),
        control_trials=tuple(controls), **fields,
    )  # fmt: skip


def refused(seed=1, finding="not_causal"):
    """A trial whose claims the audit refutes."""
    audit = replace(CLEAN, finding=finding, reason="r")
    runs = [run(Phase.TRAIN, seed), run(Phase.SCORE, seed, val_bpb=1.0), run(Phase.AUDIT, seed, audit=audit)]
    return failed(Outcome.INVALID, seed, reason="refused by the audit: r", runs=runs, claims_sha256="bad")


def lost(seed=1, *, claimed=None):
    """A trial that a kill cut off, before or after it was scored."""
    runs = [run(Phase.TRAIN, seed)]
    if claimed is not None:
        runs.append(run(Phase.SCORE, seed, val_bpb=claimed))
    return failed(Outcome.LOST, seed, reason="the controller was killed", runs=runs)


def control_due(experiments, champion, interval):
    made = config.load(Path("/nonexistent"), {}, environ={})
    return Memory(experiments, made).control_due(champion, interval)


def control(val_bpb, seed):
    return scored(val_bpb, seed, kind=TrialKind.CONTROL)


# -------------------------------------------------------------------- lineage


def test_the_champion_is_the_newest_keep():
    night = [
        experiment(0, kept_seq=3), experiment(1, kept_seq=9), experiment(2, verdict=Verdict.DISCARD),
    ]  # fmt: skip
    assert history.champion(night).number == 1
    assert history.champion([]) is None and history.champion(night[2:]) is None


def test_the_champion_is_the_newest_by_the_clock_and_not_by_its_number():
    night = [experiment(0, kept_seq=3), experiment(1, kept_seq=20), experiment(2, kept_seq=15)]
    assert history.champion(night).number == 1
    pending = experiment(3)
    assert history.champion([*night, pending]).number == 3, "a keep whose commit is not yet recorded"


def test_only_claims_that_an_audit_confirmed_are_compared_with():
    good = scored(1.0, 1, claims_sha256="good")
    unaudited = scored(1.0, 2, audited=False, claims_sha256="unaudited")
    one = experiment(0, [unaudited, good, unaudited, refused(3)])
    assert history.champion_claims(one) == "good"
    newer = scored(1.0, 4, claims_sha256="newer")
    assert history.champion_claims(replace(one, trials=(*one.trials, newer))) == "newer"
    assert history.champion_claims(replace(one, control_trials=(control(1.0, 5),))) == "good"
    assert history.champion_claims(experiment(0, [unaudited])) is None
    assert history.champion_claims(None) is None


def test_a_strike_is_a_challenger_that_its_audit_refused():
    unread = failed(Outcome.INVALID, reason="no model can have made these claims")
    night = [
        experiment(0, [scored(1.0)]),
        experiment(1, [refused()], verdict=Verdict.INVALID, champion=0),
        experiment(2, verdict=Verdict.INVALID, champion=0),  # its edits were refused: it never ran
        experiment(3, [scored(1.0)], verdict=Verdict.DISCARD, champion=0),
        experiment(4, [scored(1.0)], champion=0),
        experiment(5, [refused(finding="overstated")], verdict=Verdict.INVALID, champion=4),
        experiment(6, [scored(1.0, 1), refused(2)], verdict=Verdict.INVALID, champion=4),
        experiment(7, [unread], verdict=Verdict.INVALID, champion=4),  # no audit
    ]
    assert history.strikes(night) == {0: 1, 4: 2}


def test_the_stack_of_a_near_miss_is_the_experiment_that_combined_it():
    night = [experiment(0), experiment(3, combines=(1, 2)), experiment(5, combines=(4,))]
    assert history.stack_of(night) == {1: 3, 2: 3, 4: 5}


def test_a_near_miss_is_a_discard_that_may_be_worth_a_little():
    worth = replace(FIGURES, effect_bpb=-1.1 * NEAR_MISS_SIGMAS * FIGURES.sigma_bpb)
    little = replace(FIGURES, effect_bpb=-0.9 * NEAR_MISS_SIGMAS * FIGURES.sigma_bpb)
    assert history.is_near_miss(experiment(1, verdict=Verdict.DISCARD, figures=worth))
    assert not history.is_near_miss(experiment(1, verdict=Verdict.DISCARD, figures=little))
    assert not history.is_near_miss(experiment(1, verdict=Verdict.KEEP, figures=worth))
    assert not history.is_near_miss(experiment(1, verdict=Verdict.DISCARD)), "stopped early: no figures"


# --------------------------------------------------------------------- trials


def test_a_seed_that_was_run_again_counts_once_and_last():
    again = scored(2.0, 1)
    trials = [scored(2.5, 1), scored(3.0, 2), again, lost(4)]
    assert history.scores(history.scored(trials)) == (3.0, 2.0)
    assert history.scored([lost(1, claimed=2.5), again]) == (again,)


def test_only_audited_scores_count_where_that_is_asked():
    trials = [scored(2.001, 1), scored(3.0, 2, audited=False)]
    assert history.scores(history.scored(trials)) == (2.001, 3.0)
    assert history.scores(history.scored(trials, audited=True)) == (2.001,)


def test_an_unaudited_repetition_does_not_hide_an_audited_score():
    trials = [scored(2.0, 1), scored(2.5, 1, audited=False)]
    assert history.scores(history.scored(trials, audited=True)) == (2.0,)


@pytest.mark.parametrize("outcome", [one for one in Outcome if one is not Outcome.SCORED])
def test_a_trial_that_failed_has_no_score(outcome):
    runs = [run(Phase.TRAIN), run(Phase.SCORE, val_bpb=2.0), run(Phase.AUDIT, audit=CLEAN, val_bpb=2.0)]
    trial = failed(outcome, runs=runs, val_bpb=2.0)
    assert history.scored([trial]) == ()
    assert not trial.audited and trial.claimed_bpb == 2.0


def test_refused_claims_are_no_score():
    assert history.scored([refused()], audited=True) == ()


def test_the_first_trial_is_not_in_the_pool_of_a_kept_candidate_and_the_baseline_has_all_its_trials():
    trials = [scored(1.001, 1), scored(1.201, 2), scored(1.301, 3)]
    assert history.scores(history.champion_pool(experiment(5, trials))) == (1.201, 1.301)
    assert history.scores(history.champion_pool(experiment(0, trials))) == (1.001, 1.201, 1.301)
    assert history.scores(history.champion_pool(experiment(5, trials[:1]))) == (1.001,), "better than none"


def test_only_audited_trials_are_in_the_pool():
    trials = [scored(1.0, 1), scored(1.2, 2, audited=False), scored(1.3, 3)]
    assert history.scores(history.champion_pool(experiment(0, trials, controls=[refused(4)]))) == (1.0, 1.3)


def test_controls_join_the_pool_and_old_trials_leave_it():
    one = experiment(
        5, [scored(1.0, 1), scored(1.2, 2)], controls=[control(2.0 + index, 10 + index) for index in range(9)]
    )
    assert history.scores(history.champion_pool(one)) == tuple(2.0 + index for index in range(1, 9))


def test_trials_between_the_candidates_replace_the_earlier_ones_when_the_machine_has_changed():
    old = [scored(2.001, 1), scored(2.011, 2)]
    candidate = [scored(1.9, 3)]
    fresh, still = [control(2.051, 4), control(2.061, 5)], [control(2.001, 6)]
    pool = history.champion_pool(experiment(0, old, controls=fresh))
    assert history.scores(history.comparable(pool, candidate, 0.01)) == (2.051, 2.061)
    assert history.comparable(pool, candidate, 0.1) == pool, "within the noise nothing has changed"
    quiet = history.champion_pool(experiment(0, old, controls=still))
    assert history.comparable(quiet, candidate, 0.01) == quiet
    assert history.comparable(pool, [], 0.01) == pool, "before the first trial"
    assert history.comparable(pool[:2], candidate, 0.01) == pool[:2], "nothing newer to compare with"


def test_the_pool_is_reported_as_it_was_known_then():
    first, second = scored(2.001, 1), control(2.101, 2)
    champion = experiment(0, [first], controls=[second])
    assert history.scores(history.champion_pool(champion)) == (2.001, 2.101)
    for seq in (second.opened_seq, second.closed_seq):
        assert history.scores(history.champion_pool(champion, before_seq=seq)) == (2.001,), "it was not closed yet"
    assert history.champion_pool(champion, before_seq=second.closed_seq + 1) == (first, second)


def test_trials_that_need_no_repetition_are_settled():
    failures = [failed(outcome, 10 + at) for at, outcome in enumerate(Outcome)]
    one = experiment(0, [scored(1.0, 1), *failures[:3]], controls=failures[3:])
    assert [trial.outcome for trial in history.settled(one)] == ["scored", "scored", "crash", "invalid", "stopped"]
    again = scored(1.0, failures[5].seed)
    assert again in history.settled(replace(one, trials=(*one.trials, again)))


# ------------------------------------------------------------------- controls


def test_a_control_is_due_after_so_many_scored_trials_of_others():
    champion = experiment(0, [scored(2.0, 1)])
    others = [experiment(number, [scored(2.0, number, audited=False)]) for number in (1, 2)]
    assert not control_due([champion, *others[:1]], champion, 2)
    assert control_due([champion, *others], champion, 2)
    assert not control_due([champion, *others], champion, 0), "never"
    again = experiment(0, champion.trials, controls=[control(2.0, 9)])
    assert not control_due([again, *others], again, 2)


def test_only_trials_that_took_the_time_of_one_bring_a_control_nearer():
    champion = experiment(0, [scored(2.0, 1)])
    stopped = experiment(1, [failed(Outcome.STOPPED)])
    assert control_due([champion, stopped], champion, 1)
    assert control_due([champion, experiment(1, [refused()])], champion, 1), "it was scored"
    for other in (failed(), failed(Outcome.LOST, runs=[]), failed(Outcome.CONTENDED)):
        assert not control_due([champion, experiment(1, [other])], champion, 1)


def test_a_new_champion_is_measured_until_two_trials_did_not_choose_it():
    trials = [scored(2.0, 1), scored(2.0, 2)]
    assert control_due([], experiment(1, trials), 20)
    assert not control_due([], experiment(1, trials), 0), "never"
    assert not control_due([], experiment(1, trials, controls=[control(2.0, 8)]), 20)
    assert not control_due([], experiment(1, trials, controls=[failed(seed=8)]), 20), "not endlessly"


def test_the_champion_is_measured_again_between_two_trials_and_once():
    champion = experiment(0, [scored(2.0, 1)])
    candidate = [scored(1.9, 2)]
    assert history.control_due_between_trials(champion, candidate)
    again = replace(champion, control_trials=(control(2.0, 3),))
    assert not history.control_due_between_trials(again, candidate)
    assert history.control_due_between_trials(again, [*candidate, scored(1.9, 4)])
    assert not history.control_due_between_trials(champion, [])


def test_a_control_that_failed_is_not_repeated_between_two_trials_and_one_that_was_lost_is():
    champion, candidate = experiment(0, [scored(2.0, 1)]), [scored(1.9, 2)]
    assert not history.control_due_between_trials(replace(champion, control_trials=(failed(seed=3),)), candidate)
    assert history.control_due_between_trials(replace(champion, control_trials=(lost(3),)), candidate)


def test_a_control_that_a_kill_cut_off_is_still_due_with_the_same_seed():
    """The seed of a control is drawn from the number of settled trials; see `runner.campaign.champion`."""
    first = scored(2.0, 1)
    other = experiment(1, [scored(2.0, 2)])
    for cut in (lost(7), lost(7, claimed=2.0)):
        champion = experiment(0, [first], controls=[cut])
        assert control_due([champion, other], champion, 1)
        assert len(history.settled(champion)) == 1
    broken = experiment(0, [first], controls=[failed(seed=7)])
    assert not control_due([broken, other], broken, 1), "a champion that fails is not tried endlessly"
    assert len(history.settled(broken)) == 2


# ---------------------------------------------------------------------- noise


def test_the_noise_is_that_between_trials_of_one_program_whatever_the_program(tmp_path):
    made = config.load(tmp_path, {"noise_prior_bpb": 0.01}, environ={})
    experiments = [
        experiment(0, [scored(2.0, 1)], controls=[control(2.02, 2)]),
        experiment(1, [scored(1.0, 3)], verdict=Verdict.DISCARD),
        experiment(2, [scored(1.5, 4), scored(1.53, 5)], verdict=None),
    ]
    squares = statistics.variance([2.0, 2.02])
    expected = ((PRIOR_WEIGHT * 0.01**2 + squares) / (PRIOR_WEIGHT + 1)) ** 0.5
    assert Memory(experiments, made).belief().sigma_bpb == pytest.approx(expected), "open ones do not count yet"


def test_noise_is_that_of_the_trials_that_were_there_then(tmp_path):
    made = config.load(tmp_path, {"noise_prior_bpb": 0.01}, environ={})
    first, second = scored(2.0, 1), scored(2.01, 2)
    before = experiment(0, [first, second])
    after = replace(before, control_trials=(control(3.0, 3),))
    opened = second.closed_seq + 1
    assert history.noise_group(after, opened) == [2.0, 2.01]
    assert Memory([after], made).belief(opened).sigma_bpb == Memory([before], made).belief().sigma_bpb
    assert Memory([after], made).belief().sigma_bpb > 0.1


def test_first_trials_teach_how_often_edits_help(tmp_path):
    made = config.load(tmp_path, {}, environ={})
    naive = Memory([], made).belief()
    taught = Memory([experiment(number, figures=FIGURES) for number in range(30)], made).belief()
    gains = naive.prior.grid < -0.3

    def share(belief):
        return (belief.weights @ naive.prior.components)[gains].sum()

    assert share(taught) > 5 * share(naive)
    for untaught in ({"combines": (1, 2)}, {"verdict": None}):
        same = Memory([experiment(number, figures=FIGURES, **untaught) for number in range(30)], made).belief()
        assert np.array_equal(same.weights, naive.weights), "stacks and open ones teach nothing about edits"


def test_the_rule_is_that_of_the_settings(tmp_path):
    made = config.load(
        tmp_path,
        {"max_false_keep_probability": 0.02, "min_trials": 3, "max_trials": 5, "stack_sigmas": 4.0},
        environ={},
    )
    assert history.rule(made) == Rule(
        max_false_keep_probability=0.02, min_trials=3, max_trials=5, stack_sigmas=4.0
    )
