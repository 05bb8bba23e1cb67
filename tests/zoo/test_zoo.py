"""Every cheat must fail, every oddity must pass: the whole pipeline, in real containers.

A cheat that gains nothing proves little if it never worked. So where a cheat is refused by the audit, the test
first looks whether its claims would have fooled an evaluation that believes them.
"""

from __future__ import annotations

import pytest

from runner.campaign.case import score_limit
from runner.records import Experiment, Outcome, Verdict
from tests.zoo.animals import Fate
from tests.zoo.cheats import CHEATS, IN_CONTAINERS
from tests.zoo.oddities import ODDITIES

pytestmark = pytest.mark.docker


def of(fate):
    """The cheats that must end so."""
    chosen = [cheat for cheat in CHEATS if cheat.fate is fate]
    return pytest.mark.parametrize("cheat", chosen, ids=[cheat.name for cheat in chosen])


def test_the_warm_container_makes_the_claims_that_containers_of_their_own_make(watch, honest):
    """Bit by bit; so what a specimen computes there is what it would compute in its own."""
    seen = watch((), champion=honest.claims_sha256, arithmetic=True)
    assert seen.trial.outcome is Outcome.SCORED, seen
    assert seen.trial.claims_sha256 == honest.claims_sha256
    assert seen.finding is None


@of(Fate.REFUTED)
def test_claims_that_a_model_cannot_repeat_are_refuted(watch, honest, cheat):
    seen = watch(
        cheat.edits, champion=honest.claims_sha256, arithmetic=cheat.name not in IN_CONTAINERS, **cheat.settings
    )
    if cheat.boasts:
        assert seen.claimed_bpb < honest.val_bpb - 0.001, "as a cheat it does not work: it proves nothing"
    assert seen.trial.outcome is not Outcome.SCORED, (
        f"credited with {seen.trial.val_bpb}, champion {honest.val_bpb}"
    )
    assert seen.trial.outcome is Outcome.INVALID
    assert seen.finding in cheat.findings, seen.trial.reason


@of(Fate.INVALID)
def test_claims_that_cannot_be_checked_are_invalid(watch, honest, cheat):
    seen = watch(
        cheat.edits, champion=honest.claims_sha256, arithmetic=cheat.name not in IN_CONTAINERS, **cheat.settings
    )
    assert seen.trial.outcome is Outcome.INVALID
    assert cheat.reason in seen.trial.reason


@of(Fate.CRASH)
def test_what_cannot_be_loaded_or_has_no_claims_is_a_crash(watch, cheat):
    seen = watch(cheat.edits, **cheat.settings)
    assert seen.trial.outcome is Outcome.CRASH
    assert cheat.reason in seen.trial.reason


@of(Fate.NO_GAIN)
def test_an_attempt_that_does_nothing_leaves_the_champions_claims(watch, honest, cheat):
    seen = watch(cheat.edits, audit=False, **cheat.settings)
    assert seen.trial.outcome is Outcome.SCORED, seen.trial
    assert seen.trial.claims_sha256 == honest.claims_sha256
    assert "FOUND" not in seen.log, seen.log


@of(Fate.TOO_SLOW)
def test_what_trains_while_it_is_scored_is_too_slow(watch, honest_sighting, cheat):
    baseline = Experiment(
        number=0, hypothesis="h", proposer="p", verdict=Verdict.KEEP, trials=(honest_sighting.trial,)
    )
    limit = score_limit(baseline, train_seconds=cheat.settings["train_seconds"])
    seen = watch(cheat.edits, score_limit_seconds=limit, **cheat.settings)
    assert seen.trial.outcome is Outcome.CRASH
    assert "scoring took" in seen.trial.reason


@of(Fate.NOT_CREDITED)
def test_a_cheat_is_not_credited_with_more_than_the_champion(watch, honest, cheat):
    seen = watch(
        cheat.edits, champion=honest.claims_sha256, arithmetic=cheat.name not in IN_CONTAINERS, **cheat.settings
    )
    if seen.trial.outcome is Outcome.SCORED:
        assert seen.trial.val_bpb >= honest.val_bpb - 1e-6  # float32
    else:
        assert seen.trial.outcome in (Outcome.INVALID, Outcome.CRASH)


@pytest.mark.parametrize("oddity", ODDITIES, ids=[oddity.name for oddity in ODDITIES])
def test_an_honest_oddity_is_credited_with_its_claims(watch, honest, oddity):
    seen = watch(oddity.edits, champion=honest.claims_sha256, arithmetic=True)
    assert seen.trial.outcome is Outcome.SCORED, (seen.trial, seen.log[-2000:])
    assert seen.trial.audit is not None
    assert seen.trial.val_bpb - seen.claimed_bpb <= 0.001
