"""Claims: pairs under common seeds, the error of all attempts together, and the sealed rows once."""

from __future__ import annotations

import hashlib
import json
from contextlib import contextmanager
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import wilcoxon

from runner.campaign.studies import confirm
from runner.cli import cli
from runner.cli import studies as cli_claims
from runner.errors import BaselineError, ConfigError, EngineError, Interrupted, RepositoryError
from runner.storage import claims as claims_store
from tests.support.scripted_campaign import ScriptedRuns, campaign, crash, keep, number_of
from tests.support.scripted_controller import TAG, make_repository

# The plan


def test_all_attempts_together_spend_less_than_the_total_error_and_each_can_succeed():
    levels = [confirm.level(attempt) for attempt in range(1, 30)]
    assert sum(levels) < confirm.TOTAL_ERROR
    assert all(2.0 ** -(confirm.NUM_PAIRS * attempt) <= one for attempt, one in enumerate(levels, 1))


def held(effect_sigmas, seed_share, num_attempts, replicates=20_000):
    """Share of series of attempts of which one has a p that is small enough."""
    shape = (replicates, confirm.NUM_PAIRS * num_attempts)
    noise = np.sqrt(2 * (1 - seed_share))  # of a difference, in sigmas
    differences = np.random.default_rng(1).normal(effect_sigmas, noise, shape)
    found = np.zeros(replicates, dtype=bool)
    for attempt in range(1, num_attempts + 1):
        pairs = differences[:, : confirm.NUM_PAIRS * attempt]
        found |= wilcoxon(pairs, axis=1, alternative="less", method="exact").pvalue <= confirm.level(attempt)
    return found.mean()


def test_seven_pairs_have_a_power_of_84_percent_at_one_sigma():
    """With a seed share of 0.87, as measured with the workload on a CPU."""
    assert held(-1.0, 0.87, 1) == pytest.approx(0.84, abs=0.01)
    assert held(-1.0, 0.87, 2) > 0.99, "a second attempt builds on the first"
    assert held(-1.0, 0.0, 1) == pytest.approx(0.15, abs=0.01), "where seeds share nothing"


def test_a_program_that_is_no_better_is_confirmed_in_less_than_one_percent_of_series_of_attempts():
    assert 0.005 < held(0.0, 0.87, 4) < confirm.TOTAL_ERROR


# An attempt


@pytest.fixture
def root(tmp_path):
    made = make_repository(tmp_path / "r")
    with campaign(made) as opened:
        keep(opened, "RATE = 0.02", "RATE = 0.04")
    return made


@pytest.fixture
def controller(root):
    with campaign(root) as opened:
        yield opened.controller


def helps(text):
    return 2.0 - number_of(text, "RATE")  # by 20 times the noise


def confirmed(controller, earlier=(), stopping=lambda: False):
    """An attempt that is recorded as the command records it."""
    pair = confirm.open_pair(controller, None, None)

    def record(claim):
        controller.sealed.record_attempt(pair.sha256, claim.attempt, asdict(claim))

    return confirm.confirm(controller, pair, earlier, record, stopping=stopping)


def test_both_sides_are_measured_under_the_same_seeds_and_what_they_share_cancels(controller, monkeypatch):
    """What seeds share is two and a half times the effect here."""
    runs = ScriptedRuns(monkeypatch, helps)
    claim = confirmed(controller)
    assert claim.holds and claim.p == 1 / 128 and claim.attempt == 1
    seeds = [run.seed for run in claim.runs]
    assert len(set(seeds)) == 7 and seeds == [run.seed for run in claim.against_runs]
    assert runs.seeds[:14:2] == runs.seeds[1:14:2] == seeds, "interleaved"
    assert claim.difference.mean_bpb == pytest.approx(-0.02, abs=0.002)
    assert -0.022 < claim.difference.low_bpb < claim.difference.high_bpb < -0.018


def test_a_claim_that_holds_asks_the_sealed_rows_once_for_each_side_under_one_more_seed(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    claim = confirmed(controller)
    assert runs.num_sealed == 2 and len(runs.seeds) == 16
    own, other = claim.sealed
    assert own.seed == other.seed and own.seed not in [run.seed for run in claim.runs]
    found = claim.sealed_difference
    assert found.mean_bpb == own.test_bpb - other.test_bpb == pytest.approx(-0.02, abs=0.005)
    assert found.se_bpb == pytest.approx(claim.difference.se_bpb * 7**0.5)
    assert found.low_bpb < found.mean_bpb < found.high_bpb < 0


def test_an_attempt_that_dies_while_the_sealed_rows_are_asked_counts(root, monkeypatch):
    ScriptedRuns(monkeypatch, helps)
    with campaign(root) as opened:
        monkeypatch.setattr(confirm, "_seal", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            confirmed(opened.controller)
        programs = confirm.open_pair(opened.controller, None, None).sha256
        (attempt,) = opened.controller.sealed.attempts(programs)
    assert attempt["p"] < 0.01 and attempt["sealed"] is None and not attempt["holds"]


def test_a_claim_without_a_small_p_never_sees_the_sealed_rows(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, lambda text: 2.0)
    claim = confirmed(controller)
    assert not claim.holds and claim.sealed is None and claim.sealed_difference is None
    assert runs.num_sealed == 0 and len(runs.seeds) == 14


def test_a_claim_that_only_validation_shows_does_not_hold(controller, monkeypatch):
    ScriptedRuns(monkeypatch, helps, gap=lambda text: 0.01 + 0.03 * (number_of(text, "RATE") > 0.03))
    claim = confirmed(controller)
    assert claim.p < 0.01 and not claim.holds
    assert claim.sealed_difference.mean_bpb == pytest.approx(0.01, abs=0.005)


def attempts_at(root, num):
    """Attempts, each that of another process; the ledger alone remembers the ones before."""
    for _ in range(num):
        with campaign(root) as opened:
            controller = opened.controller
            programs = confirm.open_pair(controller, None, None).sha256
            yield confirmed(controller, controller.sealed.attempts(programs))


def test_a_further_attempt_adds_its_pairs_and_a_third_one_can_succeed(root, monkeypatch):
    """The commit is better, but by bad luck not in the first pairs of two attempts."""
    unlucky = iter([0.025, *[0.0] * 6, 0.1])

    def score(text):
        return helps(text) + (next(unlucky, 0.0) if number_of(text, "RATE") > 0.03 else 0.0)

    ScriptedRuns(monkeypatch, score)
    first, second, third = attempts_at(root, 3)
    assert not first.holds and first.p == 2 / 128
    assert not second.holds and second.level < second.p < confirm.TOTAL_ERROR
    assert third.holds and third.p <= third.level == pytest.approx(0.00032)
    assert [claim.num_pairs for claim in (first, second, third)] == [7, 14, 21]
    assert len(third.runs) == 7 and third.difference.mean_bpb == pytest.approx(-0.014, abs=0.002), "of all pairs"


def test_the_sealed_rows_are_not_asked_twice_about_one_pair(root, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    first, second = attempts_at(root, 2)
    assert first.holds and second.holds and second.sealed == first.sealed
    assert runs.num_sealed == 2


def test_pairs_under_other_conditions_are_left_out_but_their_attempt_counts(controller, monkeypatch):
    ScriptedRuns(monkeypatch, helps)
    before = asdict(confirmed(controller)) | {"conditions": {"data": "other"}, "sealed": None}
    claim = confirmed(controller, [before])
    assert (claim.attempt, claim.num_pairs, claim.p) == (2, 7, 1 / 128)
    assert not claim.holds, "1/128 is above the second attempt's level"


def test_a_claim_that_is_stopped_shows_nothing(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    with pytest.raises(Interrupted):
        confirmed(controller, stopping=lambda: len(runs.seeds) >= 9)
    assert len(runs.seeds) == 9 and runs.removed


def test_no_loss_of_a_running_training_is_shown(controller, monkeypatch):
    told = []
    for name in ("note", "line"):
        monkeypatch.setattr(controller.observer, name, told.append, raising=False)
    runs = ScriptedRuns(monkeypatch, helps)
    measured = runs.measure

    def prints(evaluator, *arguments):
        evaluator.observer.line("step 9 loss 3.0 tokens/s 1000")
        return measured(evaluator, *arguments)

    monkeypatch.setattr("runner.campaign.studies.interleave.measure", prints)
    confirmed(controller)
    assert len(told) == 14 and not any("loss" in words for words in told)


def test_a_program_that_fails_claims_nothing(controller, monkeypatch):
    ScriptedRuns(monkeypatch, lambda text: crash())
    with pytest.raises(BaselineError, match="there is no claim"):
        confirmed(controller)


def test_a_trial_without_a_sealed_score_is_an_error_of_the_machine(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    monkeypatch.setattr(confirm._SealedBook, "sealed", lambda *_: None)
    with pytest.raises(EngineError, match="no score on the sealed rows"):
        confirmed(controller)
    assert runs.removed


def test_a_claim_changes_no_record_of_the_campaign(controller, monkeypatch):
    """Its sealed scores too belong to the claim, and not to experiment 0."""
    ScriptedRuns(monkeypatch, helps)
    before, trials = (
        controller.ledger.experiments(TAG),
        controller.ledger.database.read("SELECT count(*) FROM trials")[0][0],
    )
    confirmed(controller)
    assert controller.ledger.experiments(TAG) == before
    assert controller.sealed.of(TAG) == ()
    assert controller.ledger.database.read("SELECT count(*) FROM trials")[0][0] == trials


def test_the_claims_of_the_campaign_stay_where_they_are(controller, root, monkeypatch):
    seen = []
    runs = ScriptedRuns(monkeypatch, helps)
    measured = runs.measure

    def saves(evaluator, request, book, policy, champion_claims):
        if policy(0.0).seal_below_bpb is not None:
            seen.append(sorted(path.name for path in evaluator.claims.iterdir()))
            claims_store.save(evaluator.claims, b"other", keep=champion_claims)
        return measured(evaluator, request, book, policy, champion_claims)

    monkeypatch.setattr("runner.campaign.studies.interleave.measure", saves)
    monkeypatch.setattr(confirm, "champion_claims", lambda _: hashlib.sha256(b"champion").hexdigest())
    folder = root / "claims"
    claims_store.save(folder, b"champion")
    before = sorted(folder.iterdir())
    apart = replace(controller, evaluator=replace(controller.evaluator, claims=folder))
    confirmed(apart)
    assert sorted(folder.iterdir()) == before
    (champion,) = (path.name for path in before)
    assert [champion in names for names in seen] == [True, True], "audits compare with the champion all the same"
    assert list(apart.evaluator.scratch.iterdir()) == []


def test_a_pair_is_two_programs_of_a_campaign_or_two_named_commits(controller):
    pair = confirm.open_pair(controller, None, None)
    best = controller.ledger.experiments(TAG)[2]
    assert (pair.commit, pair.against) == (best.kept_commit, controller.ledger.campaign(TAG).base_commit)
    assert confirm.open_pair(controller, best.tried_commit, "main").sha256 == pair.sha256, "by what they hold"
    with pytest.raises(ConfigError, match="same program"):
        confirm.open_pair(controller, "main", None)
    other = replace(controller, config=controller.config.model_copy(update={"tag": "other"}))
    with pytest.raises(RepositoryError, match="there is no campaign"):
        confirm.open_pair(other, best.kept_commit, None)
    assert confirm.open_pair(other, best.kept_commit, "main").sha256 == pair.sha256


def test_comments_and_layout_make_no_new_pair(controller):
    """They would make the next attempt the first one again."""
    pair = confirm.open_pair(controller, None, None)
    text = pair.files["workload/train.py"]

    def with_train(data):
        return replace(pair, files={**pair.files, "workload/train.py": data}).sha256

    assert with_train(b"# better now\n\n" + text.replace(b" = ", b"  =  ")) == pair.sha256
    assert with_train(text + b"EXTRA = 1\n") != pair.sha256


def test_the_two_sides_of_a_pair_are_not_the_same_claim_the_other_way_round(controller):
    best = controller.ledger.experiments(TAG)[2].kept_commit
    there, back = (confirm.open_pair(controller, *pair) for pair in ((best, "main"), ("main", best)))
    assert there.sha256 != back.sha256


# As a command


@pytest.fixture
def command(root, monkeypatch):
    @contextmanager
    def open_night(**_settings):
        with campaign(root) as opened:
            yield opened.controller, SimpleNamespace(requested=False)

    monkeypatch.setattr(cli_claims, "open_night", open_night)
    monkeypatch.chdir(root)
    return lambda *words: CliRunner().invoke(cli, words)


def attempts(root):
    """All attempts in the ledger."""
    with campaign(root) as opened:
        controller = opened.controller
        return controller.sealed.attempts(confirm.open_pair(controller, None, None).sha256)


def test_confirm_reports_that_a_claim_holds_and_records_the_attempt(command, root, monkeypatch):
    ScriptedRuns(monkeypatch, helps)
    result = command("confirm")
    assert result.exit_code == 0, result.output
    first = result.output.splitlines()[0]
    assert first.startswith("The claim holds: ")
    assert "in 7 pairs under fresh seeds, p = 0.0078 (needed: at most 0.008)" in first
    assert "sealed test rows (as claimed), one pair under a common seed" in result.output
    assert "\nsealed difference  -0.0" in result.output and ", standard error 0.0" in result.output
    assert [one["holds"] for one in attempts(root)] == [True]
    assert not (root / ".autoresearch" / "reports").exists(), "a folder that may be deleted holds no attempt"


def test_confirm_reports_that_a_claim_fails_with_exit_code_1(command, root, monkeypatch):
    ScriptedRuns(monkeypatch, lambda text: 2.0 + number_of(text, "RATE"))
    result = command("confirm", "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert (found["holds"], found["sealed"], found["p"]) == (False, None, 1.0)
    again = command("confirm")
    assert again.exit_code == 1
    assert "The claim does NOT hold" in again.output and "(needed in attempt 2: at most 0.0016)" in again.output
    assert [one["attempt"] for one in attempts(root)] == [1, 2], "an attempt that failed counts"


def test_an_attempt_that_was_stopped_is_not_recorded(command, root, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    measured = runs.measure

    def then_fail(*arguments):
        if len(runs.seeds) == 9:
            raise Interrupted("stopped", "again")
        return measured(*arguments)

    monkeypatch.setattr("runner.campaign.studies.interleave.measure", then_fail)
    assert isinstance(command("confirm").exception, Interrupted)
    assert attempts(root) == []
