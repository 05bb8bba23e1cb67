"""Certificates: when they are due, which trials they consist of, and what becomes of the tip."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from runner.campaign import certificate
from runner.campaign.campaign import Campaign
from runner.campaign.certificate import is_due, open_certificate
from runner.campaign.experiment import run_experiment
from runner.records import Outcome, Verdict
from tests.support.scripted_campaign import Machine, branches, propose
from tests.support.scripted_campaign import campaign as open_campaign
from tests.support.scripted_controller import TAG, make_repository
from tests.support.trials import failed

BETTER, SAME, A_LITTLE = 1.9, 2.0, 1.996
"""Where the champion has 2.0, and one trial a noise of 0.01."""


@pytest.fixture
def campaign(tmp_path):
    """A baseline with three trials; every acceptance makes a certificate due."""
    settings = {"certify": "each", "audit_discards": 0.0, "min_pairs": 2, "max_pairs": 3}
    with open_campaign(make_repository(tmp_path / "r"), **settings) as opened:
        yield opened


@pytest.fixture
def accepted(campaign, monkeypatch):
    """A campaign with two edits on its tip."""
    Machine(monkeypatch, n1=[1.95], n2=[BETTER])
    run_experiment(campaign, propose(campaign))
    run_experiment(campaign, propose(campaign, "STEPS = 5", "STEPS = 6"))
    return campaign


def certified(campaign):
    """The certificate of the tip, and its outcome."""
    return run_experiment(campaign, open_certificate(campaign))


def test_tip_and_champion_are_measured_in_turns_under_seeds_that_have_chosen_nothing(accepted, monkeypatch):
    machine = Machine(monkeypatch, n3=[A_LITTLE], n0=[SAME])
    done = certified(accepted)
    assert machine.numbers == [3, 0, 0, 3, 3, 0]
    fresh = [accepted.seed(3, index) for index in range(3)]
    assert machine.seeds == [fresh[0], fresh[0], fresh[1], fresh[1], fresh[2], fresh[2]]
    assert not {*fresh} & {accepted.seed(number, index) for number in range(3) for index in range(9)}
    assert all(policy.audit for _, _, policy, _ in machine.calls)
    sealed = [policy.seal_below_bpb is not None for _, _, policy, _ in machine.calls]
    assert sealed == [True] * 4 + [False] * 2, "the pairs that every certificate has, on both sides"
    assert [one.seed for one in done.trials] == fresh
    assert [one.seed for one in accepted.experiments[0].control_trials] == fresh


def test_each_side_is_audited_against_the_newest_claims_that_are_stored_of_the_other(accepted, monkeypatch):
    machine = Machine(monkeypatch, n3=[BETTER], n0=[SAME])
    certified(accepted)
    first, second = (accepted.seed(3, index) for index in range(2))
    assert [claims for *_, claims in machine.calls] == [None, f"3-{first}", f"3-{first}", f"0-{second}"]


def test_a_tip_that_holds_is_one_commit_with_all_its_edits(accepted, monkeypatch):
    Machine(monkeypatch, n3=[BETTER], n0=[SAME])
    before, learned = branches(accepted), accepted.memory.tip
    done = certified(accepted)
    assert (done.verdict, done.certifies, done.parent, done.champion) == (Verdict.KEEP, (1, 2), 0, 0)
    assert done.val_bpb == pytest.approx(BETTER) and done.delta_bpb == pytest.approx(-0.1, abs=0.001)
    assert branches(accepted) == (done.kept_commit, done.kept_commit)
    git = ("git", "rev-parse", f"{done.kept_commit}^", f"{done.kept_commit}^{{tree}}", f"{before[1]}^{{tree}}")
    parent, tree, tip_tree = subprocess.check_output(git, cwd=accepted.repository.root, text=True).split()
    assert (parent, tree) == (before[0], tip_tree)
    message = accepted.repository.message(done.kept_commit)
    assert "\nEdits: 1, 2\n" in message and f"\nDelta-Bpb: {done.delta_bpb:+.6f}\n" in message
    known = accepted.memory.tip
    assert accepted.tip == accepted.champion == done
    assert (known.edits, known.worth_bpb, known.trials) == ((), 0.0, 0)
    assert known.seed == accepted.seed(3, 0) != learned.seed, "both were just measured under it"
    assert known.level.mean == BETTER


@pytest.mark.parametrize("scores", [[SAME], [2.1], [failed(Outcome.CRASH)], [BETTER, failed(Outcome.INVALID)]])
def test_a_tip_that_does_not_hold_is_rolled_back_to_the_champion(accepted, monkeypatch, scores):
    machine = Machine(monkeypatch, n3=scores, n0=[SAME])
    before, learned = branches(accepted), accepted.memory.tip
    done = certified(accepted)
    assert done.verdict in (Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID)
    assert branches(accepted) == (before[0], before[0])
    assert accepted.tip == accepted.champion == accepted.experiments[0]
    known = accepted.memory.tip
    assert (known.edits, known.worth_bpb) == ((), 0.0)
    paired = machine.numbers.count(0) > 0
    assert known.seed == (accepted.seed(3, 0) if paired else learned.seed), "which the champion has had, too"
    assert accepted.repository.branch_head(accepted.controller.tip_branch) == before[0]
    following = propose(accepted)
    assert following.parent == 0, "the next idea edits the champion"


def test_a_tip_that_is_better_and_not_provably_so_stays_worth_half_of_it(accepted, monkeypatch):
    Machine(monkeypatch, n3=[A_LITTLE], n0=[SAME])
    before = branches(accepted)
    done = certified(accepted)
    assert done.verdict is Verdict.UNCLEAR
    assert branches(accepted) == before
    assert accepted.tip.number == 2 and accepted.memory.tip.edits == (1, 2)
    assert accepted.memory.tip.worth_bpb == pytest.approx(done.delta_bpb / 2)
    assert not is_due(accepted, 0.0), "nothing is new"


@pytest.mark.parametrize(
    "scores",
    [
        {"n3": [failed(Outcome.LOST)], "n0": [SAME]},
        {"n3": [BETTER], "n0": [failed(Outcome.CRASH, reason="no GPU")]},
    ],
    ids=["lost", "the champion crashes"],
)
def test_a_certificate_that_the_machine_failed_says_nothing_and_is_asked_for_after_other_ideas(
    accepted, monkeypatch, scores
):
    Machine(monkeypatch, **scores)
    before = branches(accepted)
    assert certified(accepted).verdict is Verdict.INFRA
    assert branches(accepted) == before and accepted.memory.tip.edits == (1, 2)
    assert not is_due(accepted, 0.0)
    Machine(monkeypatch, n4=[2.1])
    run_experiment(accepted, propose(accepted, "STEPS = 6", "STEPS = 7"))
    assert is_due(accepted, 100.0)


def test_a_person_who_stops_within_a_pair_gets_no_verdict_and_the_next_start_goes_on(accepted, monkeypatch):
    machine = Machine(monkeypatch, n3=[BETTER], n0=[SAME])
    open_certificate(accepted)
    for wanted in ([3], [3, 0], [3, 0, 0], [3, 0, 0, 3]):
        listening = accepted.controller.listening(lambda wanted=wanted: machine.numbers == wanted)
        restarted = Campaign(listening, accepted.row)
        done = run_experiment(restarted, restarted.open_experiment)
        assert machine.numbers == wanted
        assert done.verdict is (None if len(wanted) < 4 else Verdict.KEEP)
    followed, known = restarted.memory.tip, Campaign(accepted.controller, accepted.row).memory.tip
    assert (followed.seed, followed.level) == (known.seed, known.level), "the same from the ledger"


def test_edits_are_certified_one_by_one_or_once_they_are_worth_it(accepted):
    assert is_due(accepted, 100.0), "each"
    config = accepted.config.model_copy(update={"certify": "together", "certify_trials": 3, "certify_sigmas": 2.0})
    together = Campaign(replace(accepted.controller, config=config), accepted.row)
    assert not is_due(together, 100.0), "two trials were made"
    assert is_due(together, 0.0), "at the end"
    fewer = config.model_copy(update={"certify_trials": 2})
    assert is_due(Campaign(replace(accepted.controller, config=fewer), accepted.row), 100.0)
    higher = fewer.model_copy(update={"certify_sigmas": 12.0})
    assert not is_due(Campaign(replace(accepted.controller, config=higher), accepted.row), 100.0)


def test_a_tip_without_edits_is_the_champion_and_never_due(campaign):
    assert not is_due(campaign, 0.0)


def test_a_certificate_that_our_own_bug_prevents_ends_the_tip_instead_of_the_night(accepted, monkeypatch):
    def buggy(*_):
        raise ValueError("bug")

    monkeypatch.setattr(certificate, "as_diff", buggy)
    done = open_certificate(accepted)
    assert done.verdict is Verdict.INVALID and "internal error" in done.reason
    assert accepted.tip.number == 0
    champion, tip = branches(accepted)
    assert tip == champion, "nothing may follow in this night that would move it"
    assert accepted.ledger.experiment(TAG, 3).certifies == (1, 2)
