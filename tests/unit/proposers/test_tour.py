"""The tour of `make demo`: its patches fit the workload, and the ledger says which one comes next."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from runner import edits
from runner.config import Config
from runner.errors import ProposerError
from runner.proposers.replay import read_patch
from runner.proposers.tour import FOLDER, Tour, TourProposer
from runner.records import Experiment, NoProposal, ProposalRequest, Verdict
from tests.support.synthetic_verdicts import FIGURES

ROOT = Path(__file__).resolve().parents[3]
TOUR = Tour.read(ROOT / FOLDER)
WORKLOAD = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / "workload").rglob("*.py")}
BETTER, WORSE = replace(FIGURES, delta_bpb=-0.01), replace(FIGURES, delta_bpb=0.01)


def proposals():
    """Every packed patch once, in the order of the tour."""
    of_stops = [one for stop in TOUR.stops for one in (*stop.patches, stop.repair) if one is not None]
    return [*of_stops, read_patch(TOUR.your_turn)]


def next_of(history, failed=None):
    request = ProposalRequest(
        number=len(history), program="", profile="cpu", train_seconds=1, files=WORKLOAD, history=tuple(history),
        failed=failed, seed=0, journal=None,
    )  # fmt: skip
    return TourProposer(TOUR).propose(request)


def row(proposal, number, verdict, figures=None):
    return Experiment(
        number=number, hypothesis=proposal.hypothesis, proposer=proposal.proposer,
        parameters=proposal.parameters, verdict=verdict, figures=figures,
    )  # fmt: skip


def without_text(source):
    """The syntax tree of a program without comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value = ast.Constant(0)
    return ast.dump(tree)


@pytest.mark.parametrize("proposal", proposals(), ids=lambda one: one.hypothesis.split("\n")[0])
def test_every_patch_applies_to_the_workload_alone(proposal):
    assert not isinstance(edits.apply(WORKLOAD, proposal.edits), edits.Refusal)


def test_every_patch_still_applies_after_all_others_were_kept():
    crash = next(stop.patches[0] for stop in TOUR.stops if stop.repair is not None)
    files = WORKLOAD
    for proposal in proposals():
        applied = edits.apply(files, proposal.edits)
        assert not isinstance(applied, edits.Refusal), proposal.hypothesis
        files = files if proposal == crash else applied


def test_edits_that_are_said_to_change_nothing_change_no_instruction():
    stop = next(stop for stop in TOUR.stops if stop.until_lucky)
    for proposal in stop.patches:
        after = edits.apply(WORKLOAD, proposal.edits)
        changed = [path for path in WORKLOAD if WORKLOAD[path] != after[path]]
        assert len(changed) == 1
        assert without_text(WORKLOAD[changed[0]]) == without_text(after[changed[0]])


def test_every_verdict_of_a_candidate_is_meant_once():
    of_certificates = {Verdict.KEEP, Verdict.UNCLEAR}
    assert {stop.meant for stop in TOUR.stops} == set(Verdict) - {Verdict.INFRA} - of_certificates


def test_the_settings_of_the_tour_are_settings():
    assert set(TOUR.settings) <= set(Config.model_fields)


def test_the_stops_come_in_order_and_the_ledger_remembers_them():
    history, titles = [], []
    while not isinstance(proposal := next_of(history), NoProposal):
        history.append(row(proposal, len(history) + 1, TOUR.stop_of(row(proposal, 1, None))[1].meant, BETTER))
        titles.append(TOUR.stop_of(history[-1])[1].title)
    assert titles == [stop.title for stop in TOUR.stops]
    assert proposal.exhausted and TourProposer(TOUR).is_over(history)


@pytest.mark.parametrize(("figures", "goes_on"), [(BETTER, False), (WORSE, True)])
def test_edits_that_change_nothing_are_tried_until_one_is_lucky(figures, goes_on):
    number = next(index for index, stop in enumerate(TOUR.stops) if stop.until_lucky)
    stop = TOUR.stops[number]
    before = [one for earlier in TOUR.stops[:number] for one in earlier.patches]
    history = [row(one, index, Verdict.KEEP) for index, one in enumerate(before, 1)]
    first = next_of(history)
    assert first == stop.patches[0]
    following = next_of([*history, row(first, 9, Verdict.DISCARD, figures)])
    assert (following == stop.patches[1]) is goes_on


def test_a_crash_is_followed_by_its_repair_and_nothing_else_is():
    stop = next(stop for stop in TOUR.stops if stop.repair is not None)
    crash, other = row(stop.patches[0], 1, Verdict.CRASH), row(TOUR.stops[0].patches[0], 2, Verdict.CRASH)
    assert next_of([crash], failed=crash) == stop.repair
    answer = next_of([other], failed=other)
    assert isinstance(answer, NoProposal) and not answer.exhausted


def test_what_the_infrastructure_lost_is_tried_again():
    first = next_of([])
    assert next_of([row(first, 1, Verdict.INFRA)]) == first


def test_a_damaged_index_is_refused(tmp_path):
    (tmp_path / "tour.toml").write_text('your_turn = "x"\n[[stop]]\ntitle = "t"\n')
    with pytest.raises(ProposerError, match=r"tour\.toml cannot be used") as caught:
        Tour.read(tmp_path)
    assert caught.value.remedy == f"git checkout -- {FOLDER}"
