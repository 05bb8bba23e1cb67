"""Claims: the exact p against brute force, the sealed rows once, and attempts that count."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from contextlib import contextmanager
from dataclasses import asdict, replace
from statistics import fmean
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runner.campaign.studies import confirm
from runner.campaign.studies.confirm import permutation_p
from runner.cli import cli
from runner.cli import studies as cli_claims
from runner.errors import BaselineError, ConfigError, EngineError, Interrupted, RepositoryError
from runner.storage import claims as claims_store
from tests.support.scripted_campaign import ScriptedRuns, campaign, crash, keep, number_of
from tests.support.scripted_controller import TAG, make_repository


def brute_force(better, worse):
    """Every assignment of labels, by the difference of the means."""
    values, n = [*better, *worse], len(better)
    seen = fmean(better) - fmean(worse)
    count = total = 0
    for labels in itertools.product([0, 1], repeat=len(values)):
        if sum(labels) == n:
            own = [value for value, label in zip(values, labels, strict=True) if label]
            other = [value for value, label in zip(values, labels, strict=True) if not label]
            total += 1
            count += fmean(own) - fmean(other) <= seen + 1e-12
    return count / total


@pytest.mark.parametrize("seed", range(12))
def test_p_is_that_of_brute_force(seed):
    chance = random.Random(seed)
    sizes = chance.choice([(5, 5), (3, 4), (2, 5)])
    better, worse = ([round(chance.gauss(shift, 1), chance.choice([1, 9])) for _ in range(n)]
                     for shift, n in zip((-seed / 6, 0), sizes, strict=True))  # fmt: skip
    assert permutation_p(better, worse) == pytest.approx(brute_force(better, worse))


def test_p_has_its_closed_forms():
    low, high = [1.0, 1.1, 1.2, 1.3, 1.4], [2.0, 2.1, 2.2, 2.3, 2.4]
    assert permutation_p(low, high) == 1 / 252, "complete separation"
    assert permutation_p(high, low) == 1.0
    assert permutation_p([1.0] * 5, [1.0] * 5) == 1.0, "ties count against the claim"
    assert permutation_p([*low[:4], 2.0], [1.4, *high[1:]]) == 2 / 252
    assert permutation_p([0.1 + 0.2], [0.3]) == 1.0 and permutation_p([0.3], [0.1 + 0.2]) == 0.5, "exact"


def test_p_is_uniform_where_nothing_differs():
    chance = random.Random(0)
    values = [permutation_p(*([chance.gauss(0, 1) for _ in range(5)] for _ in range(2))) for _ in range(1000)]
    for level in (0.01, 0.05, 0.5):
        assert sum(value <= level for value in values) / 1000 == pytest.approx(level, abs=0.03)
        assert sum(value < 0.01 for value in values) <= 20


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


def test_a_claim_that_holds_asks_the_sealed_rows_once_for_each_side(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    claim = confirmed(controller)
    assert claim.holds and claim.p == 1 / 252 and claim.attempt == 1
    assert runs.num_sealed == 2
    assert len(runs.seeds) == len(set(runs.seeds)) == 12
    assert {run.seed for run in (*claim.runs, *claim.against_runs)} == set(runs.seeds[:10])
    assert claim.delta_bpb == pytest.approx(-0.02, abs=0.002)
    assert claim.sealed_delta_bpb == pytest.approx(claim.delta_bpb)


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
    assert not claim.holds and claim.sealed is None and claim.sealed_delta_bpb is None
    assert runs.num_sealed == 0 and len(runs.seeds) == 10


def test_a_claim_that_only_validation_shows_does_not_hold(controller, monkeypatch):
    ScriptedRuns(monkeypatch, helps, gap=lambda text: 0.01 + 0.03 * (number_of(text, "RATE") > 0.03))
    claim = confirmed(controller)
    assert claim.p < 0.01 and not claim.holds
    assert claim.sealed_delta_bpb == pytest.approx(claim.delta_bpb + 0.03)


def test_attempts_count_and_the_sealed_rows_are_not_asked_twice(root, monkeypatch):
    """Each attempt is that of another process; the ledger alone remembers the ones before."""
    runs = ScriptedRuns(monkeypatch, helps)
    for attempt in (1, 2, 3):
        with campaign(root) as opened:
            controller = opened.controller
            programs = confirm.open_pair(controller, None, None).sha256
            claim = confirmed(controller, controller.sealed.attempts(programs))
            assert (claim.attempt, claim.p_of_attempt) == (attempt, pytest.approx(attempt / 252))
            recorded = controller.sealed.attempts(programs)
    assert runs.num_sealed == 2
    first, second, third = recorded
    assert first["holds"] and second["holds"] and second["sealed"] == first["sealed"]
    assert not third["holds"] and third["sealed"] is None, "3/252 is not below 0.01"


def test_a_claim_that_is_stopped_shows_nothing(controller, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    with pytest.raises(Interrupted):
        confirmed(controller, stopping=lambda: len(runs.seeds) >= 9)
    assert len(runs.seeds) == 9 and runs.removed


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
    before = controller.ledger.experiments(TAG)
    confirmed(controller)
    assert controller.ledger.experiments(TAG) == before
    assert controller.sealed.of(TAG) == ()
    assert controller.ledger.database.read("SELECT * FROM trials") == []


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
    assert seen == [[path.name for path in before]] * 2, "audits compare with the champion all the same"
    assert list(apart.evaluator.scratch.iterdir()) == []


def test_a_pair_is_two_programs_of_a_campaign_or_two_named_commits(controller):
    pair = confirm.open_pair(controller, None, None)
    best = controller.ledger.experiments(TAG)[1]
    assert (pair.commit, pair.against) == (best.kept_commit, controller.ledger.campaign(TAG).base_commit)
    assert confirm.open_pair(controller, best.tried_commit, "main").sha256 == pair.sha256, "by what they hold"
    with pytest.raises(ConfigError, match="same program"):
        confirm.open_pair(controller, "main", None)
    other = replace(controller, config=controller.config.model_copy(update={"tag": "other"}))
    with pytest.raises(RepositoryError, match="there is no campaign"):
        confirm.open_pair(other, best.kept_commit, None)
    assert confirm.open_pair(other, best.kept_commit, "main").sha256 == pair.sha256


def test_the_two_sides_of_a_pair_are_not_the_same_claim_the_other_way_round(controller):
    best = controller.ledger.experiments(TAG)[1].kept_commit
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
    assert first.startswith("The claim holds: ") and "5 + 5 fresh runs, p = 0.0040 (needed: below 0.01)" in first
    assert "sealed test rows (as claimed), one run each" in result.output
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
    assert "The claim does NOT hold" in again.output and "× 2 attempts = 1.0000" in again.output
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
