"""Claims: the exact p against brute force, the sealed rows once, and attempts that count."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from contextlib import contextmanager
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from runner.campaign.studies import confirm
from runner.campaign.studies.confirm import permutation_p
from runner.cli import cli
from runner.cli import studies as cli_claims
from runner.errors import BaselineError, ConfigError, Interrupted, LedgerError, RepositoryError
from runner.storage import claims as claims_store
from tests.support.scripted_campaign import ScriptedRuns, campaign, crash, keep, number_of
from tests.support.scripted_evaluator import TAG, make_repository


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
    with campaign(made) as lab:
        keep(lab, "RATE = 0.02", "RATE = 0.04")
    return made


def helps(text):
    return 2.0 - number_of(text, "RATE")  # by 20 times the noise


def confirmed(lab, earlier=(), stopping=lambda: False):
    return confirm.confirm(lab, confirm.open_pair(lab, None, None), earlier, stopping=stopping)


def test_a_claim_that_holds_asks_the_sealed_rows_once_for_each_side(root, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    with campaign(root) as lab:
        claim = confirmed(lab)
    assert claim.holds and claim.p == 1 / 252 and claim.attempt == 1
    assert runs.sealed == 2
    assert len(runs.seeds) == len(set(runs.seeds)) == 12
    assert {run.seed for run in (*claim.runs, *claim.against_runs)} == set(runs.seeds[:10])
    assert claim.delta_bpb == pytest.approx(-0.02, abs=0.002)
    assert claim.sealed_delta_bpb == pytest.approx(claim.delta_bpb)


def test_a_claim_without_a_small_p_never_sees_the_sealed_rows(root, monkeypatch):
    runs = ScriptedRuns(monkeypatch, lambda text: 2.0)
    with campaign(root) as lab:
        claim = confirmed(lab)
    assert not claim.holds and claim.sealed is None and claim.sealed_delta_bpb is None
    assert runs.sealed == 0 and len(runs.seeds) == 10


def test_a_claim_that_only_validation_shows_does_not_hold(root, monkeypatch):
    ScriptedRuns(monkeypatch, helps, gap=lambda text: 0.01 + 0.03 * (number_of(text, "RATE") > 0.03))
    with campaign(root) as lab:
        claim = confirmed(lab)
    assert claim.p < 0.01 and not claim.holds
    assert claim.sealed_delta_bpb == pytest.approx(claim.delta_bpb + 0.03)


def test_attempts_count_and_the_sealed_rows_are_not_asked_twice(root, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    path = root / "record.json"
    with campaign(root) as lab:
        for attempt in (1, 2, 3):
            earlier = confirm.load(path)
            claim = confirmed(lab, earlier)
            confirm.save(path, earlier, claim)
            assert (claim.attempt, claim.p_of_attempt) == (attempt, pytest.approx(attempt / 252))
    assert runs.sealed == 2
    first, second, third = json.loads(path.read_text())
    assert first["holds"] and second["holds"] and second["sealed"] == first["sealed"]
    assert not third["holds"] and third["sealed"] is None, "3/252 is not below 0.01"


def test_a_claim_that_is_stopped_shows_nothing(root, monkeypatch):
    runs = ScriptedRuns(monkeypatch, helps)
    with campaign(root) as lab, pytest.raises(Interrupted):
        confirmed(lab, stopping=lambda: len(runs.seeds) >= 9)
    assert len(runs.seeds) == 9 and runs.removed


def test_a_program_that_fails_claims_nothing(root, monkeypatch):
    ScriptedRuns(monkeypatch, lambda text: crash())
    with campaign(root) as lab, pytest.raises(BaselineError, match="nothing can be claimed"):
        confirmed(lab)


def test_the_claims_of_the_campaign_stay_where_they_are(root, monkeypatch):
    seen = []
    runs = ScriptedRuns(monkeypatch, helps)
    measured = runs.measure

    def saves(lab, **named):
        if named["examiner"].wants_seal(0.0):
            seen.append(sorted(path.name for path in lab.claims.iterdir()))
            claims_store.save(lab.claims, b"other", keep=named["champion"])
        return measured(lab, **named)

    monkeypatch.setattr("runner.campaign.studies.interleave.measure", saves)
    monkeypatch.setattr(confirm, "champion_claims", lambda _: hashlib.sha256(b"champion").hexdigest())
    with campaign(root) as lab:
        folder = root / "claims"
        claims_store.save(folder, b"champion")
        before = sorted(folder.iterdir())
        confirmed(replace(lab, claims=folder))
        assert sorted(folder.iterdir()) == before
        assert seen == [[path.name for path in before]] * 2, "audits compare with the champion all the same"
        assert list(lab.scratch.iterdir()) == []


def test_a_pair_is_two_programs_of_a_campaign_or_two_named_commits(root):
    with campaign(root) as lab:
        pair = confirm.open_pair(lab, None, None)
        best = lab.ledger.experiments(TAG)[1]
        assert (pair.commit, pair.against) == (best.kept_commit, lab.ledger.campaign(TAG).base_commit)
        assert confirm.open_pair(lab, best.tried_commit, "main").sha256 == pair.sha256, "by what they hold"
        with pytest.raises(ConfigError, match="same program"):
            confirm.open_pair(lab, "main", None)
        other = SimpleNamespace(**{**lab.__dict__, "config": lab.config.model_copy(update={"tag": "other"})})
        with pytest.raises(RepositoryError, match="there is no campaign"):
            confirm.open_pair(other, best.kept_commit, None)
        assert confirm.open_pair(other, best.kept_commit, "main").sha256 == pair.sha256


def test_a_record_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path):
    path = tmp_path / "record.json"
    assert confirm.load(path) == []
    for text in ("{", "{}", "[1]"):
        path.write_text(text)
        with pytest.raises(LedgerError, match="record") as caught:
            confirm.load(path)
        assert "move" in caught.value.remedy


# As a command


@pytest.fixture
def command(root, monkeypatch):
    @contextmanager
    def open_night(**_settings):
        with campaign(root) as lab:
            yield lab, SimpleNamespace(requested=False)

    monkeypatch.setattr(cli_claims, "open_night", open_night)
    monkeypatch.chdir(root)
    return lambda *words: CliRunner().invoke(cli, words)


def test_record_says_that_a_claim_holds_and_writes_it_down(command, root, monkeypatch):
    ScriptedRuns(monkeypatch, helps)
    result = command("confirm")
    assert result.exit_code == 0, result.output
    first = result.output.splitlines()[0]
    assert first.startswith("The claim holds: ") and "5 + 5 fresh runs, p = 0.0040 (asked: below 0.01)" in first
    assert "sealed test rows (as claimed), one run each" in result.output
    (path,) = (root / ".autoresearch" / "reports" / TAG).iterdir()
    assert f"wrote {path}" in result.output
    assert json.loads(path.read_text())[0]["holds"] is True


def test_record_says_that_a_claim_fails_with_exit_code_1(command, root, monkeypatch):
    ScriptedRuns(monkeypatch, lambda text: 2.0 + number_of(text, "RATE"))
    result = command("confirm", "--json")
    assert result.exit_code == 1
    found = json.loads(result.output)
    assert (found["holds"], found["sealed"], found["p"]) == (False, None, 1.0)
    again = command("confirm")
    assert again.exit_code == 1
    assert "The claim does NOT hold" in again.output and "× 2 attempts = 1.0000" in again.output
