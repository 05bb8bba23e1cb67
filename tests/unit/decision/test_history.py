"""What the trials in a ledger say: champions, their pool, the noise, and when a champion is measured again."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from runner import config
from runner.decision import history
from runner.decision.keep_rule import PRIOR_WEIGHT
from runner.decision.memory import Memory
from runner.records import Experiment, Figures, Outcome, Phase, TrialKind, Verdict
from tests.support.trials import CLEAN, failed, run, scored

FIGURES = Figures(
    trials=(1,), pool=(2,), delta_bpb=-0.5, se_bpb=0.01, sigma_bpb=0.01, better=1.0, effect_bpb=-0.5,
    low_bpb=-0.5, high_bpb=-0.5,
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


def control_due(experiments, interval):
    made = config.load(Path("/nonexistent"), {}, environ={})
    return Memory(experiments, made).control_due(interval)


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


def test_only_claims_that_an_audit_confirmed_and_that_are_stored_are_compared_with():
    good = scored(1.0, 1, claims_sha256="good", sealed=True)
    unaudited = scored(1.0, 2, audited=False, claims_sha256="unaudited")
    one = experiment(0, [unaudited, good, unaudited, refused(3)])
    assert history.champion_claims(one) == "good"
    assert history.champion_claims(replace(one, trials=(*one.trials, scored(1.0, 5)))) == "good"
    newer = scored(1.0, 4, claims_sha256="newer", sealed=True)
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


def test_the_tip_is_the_last_accepted_edit_unless_it_was_rolled_back():
    night = [
        experiment(0, kept_seq=3, closed_seq=2),
        experiment(1, verdict=Verdict.ACCEPT, closed_seq=5),
        experiment(2, verdict=Verdict.DISCARD, closed_seq=8),
        experiment(3, verdict=Verdict.ACCEPT, closed_seq=11),
        experiment(4, verdict=Verdict.UNCLEAR, closed_seq=14, certifies=(1, 3)),
        experiment(5, verdict=Verdict.INFRA, closed_seq=17, certifies=(1, 3)),
        experiment(6, verdict=Verdict.DISCARD, closed_seq=20, certifies=(1, 3)),
        experiment(7, verdict=Verdict.ACCEPT, closed_seq=23),
        experiment(8, closed_seq=26, kept_seq=27, certifies=(7,)),
    ]
    assert [history.tip(night[: end + 1]).number for end in range(9)] == [0, 1, 1, 3, 3, 3, 0, 7, 8]
    assert history.tip([]) is None


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


def test_only_audited_trials_are_in_the_pool():
    trials = [scored(1.0, 1), scored(1.2, 2, audited=False), scored(1.3, 3)]
    assert history.scores(history.champion_pool(experiment(0, trials, controls=[refused(4)]))) == (1.0, 1.3)


def test_controls_join_the_pool_and_old_trials_leave_it():
    one = experiment(
        5, [scored(1.0, 1), scored(1.2, 2)], controls=[control(2.0 + index, 10 + index) for index in range(9)]
    )
    assert history.scores(history.champion_pool(one)) == tuple(2.0 + index for index in range(1, 9))


# ------------------------------------------------------------------- controls


def test_a_control_of_the_tip_is_due_after_so_many_scored_trials_of_others():
    champion = experiment(0, [scored(2.0, 1)], closed_seq=10**6)
    others = [experiment(number, [scored(2.0, number, audited=False)], verdict=None) for number in (1, 2)]
    assert not control_due([champion, *others[:1]], 2)
    assert control_due([champion, *others], 2)
    assert not control_due([champion, *others], 0), "never"
    again = replace(champion, control_trials=(control(2.0, 9),))
    assert not control_due([again, *others], 2)
    broken = replace(champion, control_trials=(failed(seed=9),))
    assert not control_due([broken, *others], 2), "a tip that fails is not tried endlessly"
    cut_off = replace(champion, control_trials=(lost(9, claimed=2.0),))
    assert control_due([cut_off, *others], 2)


def test_only_trials_that_took_the_time_of_one_bring_a_control_nearer():
    champion = experiment(0, [scored(2.0, 1)])
    assert control_due([champion, experiment(1, [failed(Outcome.STOPPED)], verdict=None)], 1)
    assert control_due([champion, experiment(1, [refused()], verdict=None)], 1), "it was scored"
    for other in (failed(), failed(Outcome.LOST, runs=[]), failed(Outcome.CONTENDED)):
        assert not control_due([champion, experiment(1, [other], verdict=None)], 1)


# ---------------------------------------------------------------------- noise


def test_the_noise_is_that_between_own_trials_of_one_program_whatever_the_program(tmp_path):
    made = config.load(tmp_path, {"noise_prior_bpb": 0.01}, environ={})
    experiments = [
        experiment(0, [scored(2.0, 1), scored(2.02, 2)], controls=[control(3.0, 3)]),
        experiment(1, [scored(1.0, 3)], verdict=Verdict.DISCARD),
        experiment(2, [scored(1.5, 4), scored(1.53, 5)], verdict=Verdict.UNCLEAR),
    ]
    squares = statistics.variance([2.0, 2.02]) + statistics.variance([1.5, 1.53])
    expected = ((PRIOR_WEIGHT * 0.01**2 + squares) / (PRIOR_WEIGHT + 2)) ** 0.5
    assert Memory(experiments, made).belief().sigma_bpb == pytest.approx(expected), "controls share their seeds"


def test_noise_is_that_of_the_trials_that_were_there_then(tmp_path):
    made = config.load(tmp_path, {"noise_prior_bpb": 0.01}, environ={})
    first, second = scored(2.0, 1), scored(2.01, 2)
    before = experiment(0, [first, second])
    after = experiment(0, [first, second, scored(3.0, 3)])
    opened = second.closed_seq + 1
    assert history.noise_group(after, opened) == [2.0, 2.01]
    assert Memory([after], made).belief(opened).sigma_bpb == Memory([before], made).belief().sigma_bpb
    assert Memory([after], made).belief().sigma_bpb > 0.1


def test_the_rule_is_that_of_the_settings(tmp_path):
    chosen = {"max_false_keep_probability": 0.025, "min_pairs": 3, "max_pairs": 4, "accept_probability": 0.7}
    rule = history.rule(config.load(tmp_path, chosen, environ={}))
    assert (rule.min_pairs, rule.max_pairs, rule.accept_probability) == (3, 4, 0.7)
    assert rule.max_false_probability == 0.025
    assert (rule.certify_sigmas, rule.certify_trials) == (12.0, 30)
    each = history.rule(config.load(tmp_path, {**chosen, "certify": "each"}, environ={}))
    assert (each.certify_sigmas, each.certify_trials) == (0.0, 0), "the first accepted edit is enough"
