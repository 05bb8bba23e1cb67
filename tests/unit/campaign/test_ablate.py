"""Leaving kept edits out: what comes out of a tree, what still matters, and the patch that keeps the gain."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from runner import edits
from runner.campaign.studies import ablate
from runner.campaign.studies.ablate import CHAMPION, TOGETHER, State, without
from runner.cli import cli
from runner.cli import studies as cli_claims
from runner.errors import BaselineError, ConfigError, EngineError, Interrupted, RepositoryError
from runner.records import Outcome, Patch, Trial
from tests.support.scripted_campaign import ScriptedRuns, campaign, crash, keep, number_of
from tests.support.scripted_controller import FILES, TAG, make_repository

TRAIN = "RATE = 0.02\n\n# between\n\nSTEPS = 5\n\n# between\n\nWARM = 1\n\n# between\n\nTIES = 0\n"


# Taking a change out of a tree


def tree(train):
    return {f"workload/{name}": text.encode() for name, text in {**FILES, "train.py": train}.items()}


def test_a_change_comes_out_where_it_stands_untouched_also_when_lines_moved():
    before, after = tree("A = 1\nX = 1\nY = 1\nB = 1\n"), tree("A = 1\nX = 2\nY = 1\nB = 1\n")
    tip = tree("NEW = 1\nNEWER = 1\nA = 1\nX = 2\nY = 1\nB = 3\n")
    left = edits.carry_over(tip, base=after, changed=before)
    assert left == tree("NEW = 1\nNEWER = 1\nA = 1\nX = 1\nY = 1\nB = 3\n")


@pytest.mark.parametrize(
    ("tip", "words"),
    [
        ("A = 1\nX = 3\nB = 1\n", "another change touches the same lines"),
        ("A = 1\nX = 2\nNEXT = 1\nB = 1\n", "another change touches the same lines"),
        ("A = 1\nX = 1\nB = 1\n", "nothing left of the change"),
    ],
)
def test_a_change_that_later_ones_build_on_does_not_come_out(tip, words):
    refusal = edits.carry_over(
        tree(tip), base=tree("A = 1\nX = 2\nB = 1\n"), changed=tree("A = 1\nX = 1\nB = 1\n")
    )
    assert words in refusal.reason


def test_files_come_and_go_as_a_whole_or_not_at_all():
    before = tree("A = 1\n")
    after = {**before, "workload/new.py": b"N = 1\n"}
    assert edits.carry_over({**after, "workload/x.py": b""}, base=after, changed=before) == {
        **before, "workload/x.py": b"",
    }  # fmt: skip
    changed = {**after, "workload/new.py": b"N = 2\n"}
    assert "another one changes it" in edits.carry_over(changed, base=after, changed=before).reason
    assert edits.carry_over(before, base=before, changed=after) == after, "a removed file comes back"


def test_what_is_left_must_be_a_workload():
    before, after = tree("def f():\n    x = 1\n    y = 1\n"), tree("def f():\n    x = 1\n    y = 1\n\n    z = 1\n")
    tip = tree("x = 1\n    y = 1\n\n    z = 1\n")  # no program, but a text to merge
    assert isinstance(edits.carry_over(tip, base=after, changed=before), edits.Refusal)


lines = st.lists(st.sampled_from(["a = 1\n", "b = 2\n", "c = 3\n"]), max_size=12).map("".join)


@given(lines, lines)
def test_the_newest_change_always_comes_out(before, after):
    left = edits.carry_over(tree(after), base=tree(after), changed=tree(before))
    assert left == tree(before) or before == after


# What still matters


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setitem(FILES, "train.py", TRAIN)
    made = make_repository(tmp_path / "r")
    with campaign(made) as opened:
        assert keep(opened, "RATE = 0.02", "RATE = 0.04") == 1  # helps
        assert keep(opened, "STEPS = 5", "STEPS = 6") == 2  # does nothing
        assert keep(opened, "RATE = 0.04", "RATE = 0.05") == 3  # builds on 1
        assert keep(opened, "WARM = 1", "WARM = 2") == 4  # the program needs it
        assert keep(opened, "TIES = 0", "TIES = 1") == 5  # harms by now
    return made


def score(text):
    """Lower with RATE, needs WARM = 2 with RATE = 0.05, indifferent to STEPS, worse with TIES."""
    if number_of(text, "RATE") == 0.05 and number_of(text, "WARM") == 1:
        return crash()
    return 2.0 - 10 * number_of(text, "RATE") + 0.03 * number_of(text, "TIES")


def studied(controller, monkeypatch, trials=3, scores=score, **options):
    runs = ScriptedRuns(monkeypatch, scores)
    study = ablate.open_study(controller, None, trials)
    ablate.run_study(controller, study, stopping=options.get("stopping", lambda: False))
    return study, runs


@pytest.fixture
def controller(root):
    with campaign(root) as opened:
        yield opened.controller


def test_each_keep_is_left_out_once_and_judged(controller, monkeypatch):
    study, runs = studied(controller, monkeypatch)
    ledger = controller.ledger.experiments(TAG)
    base = controller.repository.read_workload(ledger[0].kept_commit)
    tip = controller.repository.read_workload(ledger[5].kept_commit)
    assert {one.number: one.state for one in study.left_out()} == {
        1: State.BOUND, 2: State.IDLE, 3: State.MATTERS, 4: State.NEEDED, 5: State.IDLE,
    }  # fmt: skip
    third = study.left_out()[2]
    assert (third.num_trials, third.delta_bpb) == (3, pytest.approx(0.1, abs=0.005))
    assert third.not_worse < 0.01 < 0.5 < study.left_out()[1].not_worse < 0.9 < study.left_out()[4].not_worse
    assert study.left_out()[3].reason == "training exited with code 1"
    assert study.dropped == (2, 5)
    together = study.together()
    assert together.state is State.IDLE and together.delta_bpb == pytest.approx(-0.03, abs=0.005)
    assert len(study.series.scores(CHAMPION)) == 6 and len(study.series.scores(TOGETHER)) == 3
    # 1 is bound; 4 failed once and was not run again.
    assert len(runs.seeds) == len(set(runs.seeds)) == 3 * 4 + 1 + 3 * 2
    assert not runs.num_sealed and len(runs.removed) == 2
    patched = edits.apply(base, [Patch(text=study.patch())])
    assert patched["workload/train.py"] == tip["workload/train.py"].replace(b"STEPS = 6", b"STEPS = 5").replace(
        b"TIES = 1", b"TIES = 0"
    )


def test_two_edits_of_which_one_is_enough_are_not_dropped_together(controller, monkeypatch):
    def either(text):
        return 1.0 if number_of(text, "STEPS") == 6 or number_of(text, "TIES") == 1 else 1.2

    study, _ = studied(controller, monkeypatch, scores=either)
    assert {2, 5} <= set(study.dropped)
    assert study.together().state is State.MATTERS
    assert study.complete and study.patch() is None


def test_where_all_keeps_matter_the_minimal_patch_is_all_of_them(controller, monkeypatch):
    def every(text):
        return 2 - sum(number_of(text, name) for name in ("RATE", "STEPS", "WARM", "TIES"))

    study, _ = studied(controller, monkeypatch, scores=every)
    assert study.dropped == () and study.together() is None
    assert study.patch() == edits.diff(study.base, study.trees[CHAMPION])


def test_a_study_that_is_stopped_knows_what_it_has_measured_and_writes_no_patch(controller, monkeypatch):
    asked = iter([False] * 7 + [True] * 9)
    study, runs = studied(controller, monkeypatch, stopping=lambda: next(asked))
    assert len(runs.seeds) == 7 and runs.removed
    assert not study.complete and study.patch() is None
    assert any(one.num_trials for one in study.left_out())


def test_a_champion_that_fails_is_an_error(controller, monkeypatch):
    with pytest.raises(BaselineError, match="the champion itself fails now"):
        studied(controller, monkeypatch, scores=lambda text: crash())


def test_a_failing_machine_says_nothing_about_a_program(controller, monkeypatch):
    broken = Trial(seed=1, outcome=Outcome.LOST, reason="engine away")
    with pytest.raises(EngineError, match="engine away"):
        studied(controller, monkeypatch, scores=lambda text: broken)


def test_an_earlier_keep_is_studied_with_the_keeps_that_made_it(controller):
    commit = controller.ledger.experiments(TAG)[2].kept_commit
    study = ablate.open_study(controller, commit[:12], 1)
    assert [one.number for one in study.keeps] == [1, 2]
    assert set(study.trees) == {CHAMPION, without(1), without(2)}
    with pytest.raises(ConfigError, match="no keep"):
        ablate.open_study(controller, "main", 1)
    stranger = controller.repository.make_commit(
        tree=controller.repository.resolve("main^{tree}"),
        parent=commit,
        message="m",
        when="2026-01-01T00:00:00+00:00",
    )
    with pytest.raises(RepositoryError, match="not a kept commit"):
        ablate.open_study(controller, stranger, 1)
    with pytest.raises(RepositoryError, match="there is no campaign"):
        other = controller.config.model_copy(update={"tag": "other"})
        ablate.open_study(replace(controller, config=other), None, 1)


def test_a_campaign_without_a_keep_has_nothing_to_leave_out(tmp_path):
    with campaign(make_repository(tmp_path / "r")) as made, pytest.raises(ConfigError, match="no keep"):
        ablate.open_study(made.controller, None, 1)


def test_a_study_changes_no_record(controller, monkeypatch):
    before = controller.ledger.experiments(TAG)
    studied(controller, monkeypatch)
    assert controller.ledger.experiments(TAG) == before
    assert controller.sealed.of(TAG) == ()
    assert controller.ledger.database.read("SELECT * FROM trials") == []


# As a command


@pytest.fixture
def command(root, monkeypatch):
    """Run a command of the command line over the scripted campaign."""
    stop = SimpleNamespace(requested=False)

    @contextmanager
    def open_night(**_settings):
        with campaign(root) as opened:
            yield opened.controller, stop

    monkeypatch.setattr(cli_claims, "open_night", open_night)
    monkeypatch.chdir(root)
    return SimpleNamespace(run=lambda *words: CliRunner().invoke(cli, words), stop=stop, root=root)


def test_ablate_says_what_matters_and_writes_the_patch(command, monkeypatch):
    ScriptedRuns(monkeypatch, score)
    result = command.run("ablate")
    assert result.exit_code == 0, result.output
    words = [line.split("  ")[-2:] for line in result.output.splitlines()[1:6]]
    for found, expected in zip(
        words, ["depends on later keeps", "no longer matters", "still matters", "needed: ", "no longer matters"],
        strict=True,
    ):  # fmt: skip
        assert expected in found[0]
    assert "experiments 2, 5 together" in result.output
    assert "keeps the gain with 3 of 5 kept edits" in result.output
    path = command.root / ".autoresearch" / "reports" / TAG / "minimal.patch"
    assert f"wrote {path}" in result.output and path.read_text().startswith("diff --git")


def test_ablate_prints_one_json_object(command, monkeypatch):
    ScriptedRuns(monkeypatch, score)
    found = json.loads(command.run("ablate", "--json", "--trials", "2").output)
    assert (found["trials"], found["dropped"], found["complete"]) == (2, [2, 5], True)
    assert [one["state"] for one in found["keeps"]][2] == "still matters"
    assert len(found["runs"][CHAMPION]) == 4


def test_ablate_that_is_interrupted_prints_what_it_knows(command, monkeypatch):
    runs = ScriptedRuns(monkeypatch, score)
    measured = runs.measure

    def then_stop(*arguments, **named):
        command.stop.requested = len(runs.seeds) >= 6
        return measured(*arguments, **named)

    monkeypatch.setattr("runner.campaign.studies.interleave.measure", then_stop)
    result = command.run("ablate")
    assert isinstance(result.exception, Interrupted) and result.exception.exit_code == 130
    assert "experiment 2" in result.output and "wrote" not in result.output
    assert not (command.root / ".autoresearch" / "reports").exists()
