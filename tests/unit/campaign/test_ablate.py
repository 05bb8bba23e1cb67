"""Splitting a certificate: what comes out of a tree, which edits matter, and the patch that keeps the gain."""

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
from runner.campaign.studies.ablate import BEFORE, TIP, State, alone, without
from runner.cli import cli
from runner.cli import studies as cli_claims
from runner.errors import BaselineError, ConfigError, EngineError, Interrupted, RepositoryError
from runner.records import Outcome, Patch, Trial
from tests.support.scripted_campaign import ScriptedRuns, accept, campaign, certify, crash, keep, number_of
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


# Which edits carry the gain


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A certificate of one edit, and a second one of six."""
    monkeypatch.setitem(FILES, "train.py", TRAIN)
    made = make_repository(tmp_path / "r")
    with campaign(made) as opened:
        assert keep(opened, "# between\n\nTIES = 0", "# between\n\nTIES = 1") == 2
        assert accept(opened, "RATE = 0.02", "RATE = 0.04") == 3  # helps
        assert accept(opened, "STEPS = 5", "STEPS = 6") == 4  # does nothing
        assert accept(opened, "RATE = 0.04", "RATE = 0.05") == 5  # helps, and builds on 3
        assert accept(opened, "WARM = 1", "WARM = 2") == 6  # the program needs it
        assert accept(opened, "TIES = 1", "TIES = 2") == 7  # harms by now
        assert certify(opened) == 8
    return made


def score(text):
    """Lower with RATE, needs WARM = 2 with RATE = 0.05, indifferent to STEPS, worse with TIES."""
    if number_of(text, "RATE") == 0.05 and number_of(text, "WARM") == 1:
        return crash()
    return 2.0 - 10 * number_of(text, "RATE") + 0.03 * number_of(text, "TIES")


def studied(controller, monkeypatch, seeds=3, scores=score, **options):
    runs = ScriptedRuns(monkeypatch, scores)
    study = ablate.open_study(controller, None, seeds, whole_line=options.pop("whole_line", False))
    ablate.run_study(controller, study, stopping=options.get("stopping", lambda: False))
    return study, runs


@pytest.fixture
def controller(root):
    with campaign(root) as opened:
        yield opened.controller


def test_a_certificate_is_split_into_its_edits(controller, monkeypatch):
    study, runs = studied(controller, monkeypatch)
    found = {one.number: one for one in study.findings()}
    assert {number: one.state for number, one in found.items()} == {
        3: State.MATTERS, 4: State.IDLE, 5: State.MATTERS, 6: State.NEEDED, 7: State.IDLE,
    }  # fmt: skip
    assert [number for number, one in found.items() if one.alone] == [3], "5 builds on it"
    for number, worth in {3: -0.2, 4: 0.0, 5: -0.1, 7: 0.03}.items():
        one = found[number]
        assert one.num_seeds == 3 and one.effect.low_bpb < worth < one.effect.high_bpb
        assert one.effect.se_bpb < 0.01, "seeds move all scores by 0.05, and cancel"
    assert found[6].reason == f"{without(6)} failed: training exited with code 1"
    gain = study.gain()
    assert gain.low_bpb < -0.27 < gain.high_bpb < -0.25
    assert study.dropped == (4, 7)
    together = study.together()
    assert together.state is State.IDLE and together.effect.mean_bpb == pytest.approx(0.03, abs=0.005)
    # Seven programs, of which one failed at once; then the tip and what is left of it.
    assert len(runs.seeds) == 3 * 6 + 1 + 3 * 2 and len(set(runs.seeds)) == 6
    assert not runs.num_sealed and len(runs.removed) == 2


def test_the_minimal_patch_is_the_certified_program_without_what_does_not_matter(controller, monkeypatch):
    study, _ = studied(controller, monkeypatch)
    ledger = controller.ledger.experiments(TAG)
    base, tip = (controller.repository.read_workload(ledger[number].kept_commit) for number in (0, 8))
    patched = edits.apply(base, [Patch(text=study.patch())])
    assert patched["workload/train.py"] == tip["workload/train.py"].replace(b"STEPS = 6", b"STEPS = 5").replace(
        b"TIES = 2", b"TIES = 1"
    )


def test_a_single_edit_is_the_whole_gain_and_needs_no_third_program(controller, monkeypatch):
    commit = controller.ledger.experiments(TAG)[2].kept_commit
    study = ablate.open_study(controller, commit[:12], 1)
    assert set(study.programs) == {TIP, BEFORE} and study.plan == {1: (TIP, BEFORE)}


def test_the_whole_line_is_split_against_the_baseline(controller):
    study = ablate.open_study(controller, None, 1, whole_line=True)
    assert [one.number for one in study.scope.accepted] == [1, 3, 4, 5, 6, 7]
    assert study.scope.before == 0 and study.programs[BEFORE] == study.scope.trees[0]
    assert study.plan[1] == (alone(1), BEFORE), "7 changes its line again"


def test_an_edit_that_neither_comes_out_nor_goes_alone_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(FILES, "train.py", TRAIN)
    with campaign(make_repository(tmp_path / "r")) as opened:
        for old, new in ((2, 3), (3, 4), (4, 5)):
            accept(opened, f"RATE = 0.0{old}", f"RATE = 0.0{new}")
        certify(opened)
        study = ablate.open_study(opened.controller, None, 1)
        assert study.plan == {1: (alone(1), BEFORE), 3: (TIP, without(3))}
        found = study.findings()[1]
        assert found.state is State.BOUND and "another change touches the same lines" in found.reason


def test_two_edits_of_which_one_is_enough_are_not_dropped_together(controller, monkeypatch):
    def either(text):
        return 1.0 if number_of(text, "STEPS") == 6 or number_of(text, "TIES") == 2 else 1.2

    study, _ = studied(controller, monkeypatch, scores=either)
    assert {4, 7} <= set(study.dropped)
    assert study.together().state is State.MATTERS
    assert study.complete and study.patch() is None


def test_where_all_edits_matter_the_minimal_patch_is_all_of_them(controller, monkeypatch):
    def every(text):
        return 2 - sum(number_of(text, name) for name in ("RATE", "STEPS", "WARM", "TIES"))

    study, _ = studied(controller, monkeypatch, scores=every, seeds=6)
    assert study.dropped == () and study.together() is None
    assert study.patch() == edits.diff(study.scope.trees[0], study.programs[TIP])


def test_a_study_that_is_stopped_knows_what_it_has_measured_and_writes_no_patch(controller, monkeypatch):
    asked = iter([False] * 9 + [True] * 9)
    study, runs = studied(controller, monkeypatch, stopping=lambda: next(asked))
    assert len(runs.seeds) == 9 and runs.removed
    assert not study.complete and study.patch() is None
    assert any(one.num_seeds for one in study.findings())


def test_a_certified_program_that_fails_is_an_error(controller, monkeypatch):
    with pytest.raises(BaselineError, match="the certified program itself fails now"):
        studied(controller, monkeypatch, scores=lambda text: crash())


def test_an_old_champion_that_fails_leaves_open_what_is_measured_on_it(controller, monkeypatch):
    def scores(text):
        return crash() if number_of(text, "RATE") == 0.02 else score(text)

    study, _ = studied(controller, monkeypatch, scores=scores)
    found = {one.number: one for one in study.findings()}
    assert study.gain() is None and found[3].state is State.OPEN and BEFORE in found[3].reason
    assert found[5].state is State.MATTERS


def test_a_failing_machine_says_nothing_about_a_program(controller, monkeypatch):
    broken = Trial(seed=1, outcome=Outcome.LOST, reason="engine away")
    with pytest.raises(EngineError, match="engine away"):
        studied(controller, monkeypatch, scores=lambda text: broken)


def test_only_a_certificate_can_be_split(controller):
    with pytest.raises(ConfigError, match="no certificate"):
        ablate.open_study(controller, "main", 1)
    accepted = controller.ledger.experiments(TAG)[4].tried_commit
    with pytest.raises(RepositoryError, match="not a certified commit"):
        ablate.open_study(controller, accepted, 1)
    with pytest.raises(RepositoryError, match="there is no campaign"):
        other = controller.config.model_copy(update={"tag": "other"})
        ablate.open_study(replace(controller, config=other), None, 1)


def test_a_campaign_without_a_certificate_has_nothing_to_split(tmp_path):
    with campaign(make_repository(tmp_path / "r")) as made, pytest.raises(ConfigError, match="no certificate"):
        ablate.open_study(made.controller, None, 1)


def test_a_study_changes_no_record(controller, monkeypatch):
    before, trials = (
        controller.ledger.experiments(TAG),
        controller.ledger.database.read("SELECT count(*) FROM trials")[0][0],
    )
    studied(controller, monkeypatch)
    assert controller.ledger.experiments(TAG) == before
    assert controller.sealed.of(TAG) == ()
    assert controller.ledger.database.read("SELECT count(*) FROM trials")[0][0] == trials


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
    first, *lines = result.output.splitlines()
    assert first.startswith("experiment 8 (") and "against experiment 2: 5 edits, together -0.2" in first
    for line, words in zip(
        lines, ["alone on the champion before: matters", ": does not matter", ": matters", "needed: ",
                ": does not matter", "experiments 4, 7 together", "is carried by: 3, 5, 6."],
        strict=False,
    ):  # fmt: skip
        assert words in line
    assert "keeps the gain with 3 of 5 edits" in result.output
    path = command.root / ".autoresearch" / "reports" / TAG / "minimal.patch"
    assert f"wrote {path}" in result.output and path.read_text().startswith("diff --git")


def test_ablate_prints_one_json_object(command, monkeypatch):
    ScriptedRuns(monkeypatch, score)
    found = json.loads(command.run("ablate", "--json", "--seeds", "2").output)
    assert (found["seeds"], found["dropped"], found["complete"]) == (2, [4, 7], True)
    assert [one["state"] for one in found["edits"]][2] == "matters"
    assert len(found["runs"][TIP]) == 4 and found["gain"]["mean_bpb"] < -0.2


def test_ablate_that_is_interrupted_prints_what_it_knows(command, monkeypatch):
    runs = ScriptedRuns(monkeypatch, score)
    measured = runs.measure

    def then_stop(*arguments, **named):
        command.stop.requested = len(runs.seeds) >= 6
        return measured(*arguments, **named)

    monkeypatch.setattr("runner.campaign.studies.interleave.measure", then_stop)
    result = command.run("ablate")
    assert isinstance(result.exception, Interrupted) and result.exception.exit_code == 130
    assert "experiment 4" in result.output and "wrote" not in result.output
    assert not (command.root / ".autoresearch" / "reports").exists()
