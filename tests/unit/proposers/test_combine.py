"""Near misses combined: which they are, when a stack is due, which edits fit, and that each is used once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runner import edits
from runner.campaign.candidate import candidate_files
from runner.campaign.commit_message import kept_message, tried_message
from runner.campaign.ideas import IdeaQueue
from runner.config import load
from runner.decision.keep_rule import LAST_SIGMAS, NEAR_MISS_SIGMAS
from runner.decision.memory import Memory
from runner.proposers import combine
from runner.records import Experiment, Patch, Proposal, Replace, Verdict
from runner.report.explain import explain
from runner.report.notes import stack_line, stacks
from tests.support.near_misses import FIGURES, SIGMA, discarded
from tests.support.scripted_controller import TAG, campaign, controller, make_repository
from tests.support.trials import scored

TRAIN = "".join(f"{name} = 1\n\n" for name in "ABCDEF")
BASE = {"workload/__init__.py": b"", "workload/model.py": b"W = 1\n", "workload/train.py": TRAIN.encode()}


def changed(name, value, files=BASE):
    """The files with another value of a constant."""
    made = edits.apply(files, [Replace(path="workload/train.py", old=f"{name} = 1\n", new=f"{name} = {value}\n")])
    assert not isinstance(made, edits.Refusal)
    return made


def missed(number, name, sigmas, value=2, base=BASE, champion=0, **changes):
    """A near miss that sets a constant, probably worth this many noise standard deviations."""
    diff = edits.diff(base, changed(name, value, base))
    return discarded(number, sigmas, hypothesis=f"{name} to {value}", champion=champion, diff=diff, **changes)


BASELINE = Experiment(number=0, hypothesis="baseline", proposer="baseline", verdict=Verdict.KEEP)
THREE = [missed(1, "A", 2.0), missed(2, "B", 1.0), missed(3, "C", 2.5)]


def stack(experiments, kept=None, *, champion=0, stack_sigmas=5.0, ending=False):
    kept = {0: BASE} if kept is None else kept
    return combine.stack(
        combine.shelf([BASELINE, *experiments]), kept.__getitem__, champion=champion, sigma_bpb=SIGMA,
        stack_sigmas=stack_sigmas, ending=ending,
    )  # fmt: skip


def made(proposal, files=BASE):
    """The program of a stack."""
    return edits.apply(files, proposal.edits)["workload/train.py"].decode()


def test_near_misses_are_combined_once_they_are_worth_it():
    assert stack(THREE[:2]) is None, "three sigmas of five"
    proposal = stack(THREE)
    assert proposal.combines == (1, 2, 3)
    assert made(proposal) == TRAIN.replace("A = 1", "A = 2").replace("B = 1", "B = 2").replace("C = 1", "C = 2")
    assert proposal.hypothesis == "3 near misses together: #1 A to 2; #2 B to 2; #3 C to 2"
    assert (proposal.proposer, proposal.category) == ("stack", "combination")


def test_at_the_end_a_smaller_sum_suffices_and_never_a_larger_one_is_required():
    least = [missed(1, "A", 0.5), missed(2, "B", LAST_SIGMAS - 0.4)]
    assert stack(least) is None
    assert stack(least, ending=True).combines == (1, 2)
    assert stack([missed(1, "A", 0.1), missed(2, "B", 0.1)], ending=True) is None
    assert stack([missed(1, "A", 0.1), missed(2, "B", 0.1)], ending=True, stack_sigmas=0.2) is not None


def test_zero_sigmas_switch_stacks_off():
    assert stack(THREE, stack_sigmas=0) is stack(THREE, stack_sigmas=0, ending=True) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"verdict": Verdict.KEEP},
        {"verdict": Verdict.CRASH, "figures": None},
        {"figures": replace(FIGURES, effect_bpb=-0.9 * NEAR_MISS_SIGMAS * SIGMA)},
        {"figures": replace(FIGURES, effect_bpb=SIGMA)},
        {"figures": None},
        {"combines": (8, 9)},
    ],
    ids=["kept", "crashed", "worth too little", "worse", "stopped early", "a stack"],
)
def test_nothing_else_lies_on_the_shelf(changes):
    assert combine.shelf([BASELINE, missed(1, "A", 3.0, **changes)]) == []


def test_the_best_comes_first_and_each_is_used_once_whatever_its_stack_became():
    assert [one.number for one in combine.shelf(THREE)] == [3, 1, 2]
    for verdict in (Verdict.DISCARD, Verdict.KEEP, Verdict.CRASH, Verdict.INFRA, None):
        used = missed(4, "D", 9.0, combines=(1, 3), verdict=verdict)
        assert [one.number for one in combine.shelf([*THREE, used])] == [2]


def test_of_two_that_change_the_same_line_the_better_one_is_tried_and_the_other_stays():
    other = missed(4, "A", 3.0, value=5)
    proposal = stack([*THREE, other])
    assert proposal.combines == (2, 3, 4)
    assert "A = 5\n" in made(proposal)
    used = missed(5, "D", 9.0, combines=proposal.combines)
    assert [one.number for one in combine.shelf([*THREE, other, used])] == [1]


def test_the_edits_that_fit_must_be_worth_it_without_the_rest():
    assert stack([missed(1, "A", 3.0), missed(2, "A", 2.9, value=5), missed(3, "B", 1.0)]) is None


def test_one_alone_is_no_stack():
    assert stack([missed(1, "A", 50.0)]) is None


def test_the_same_change_twice_is_made_once():
    assert stack([missed(1, "A", 50.0), missed(2, "A", 50.0)]) is None
    assert stack([missed(1, "A", 50.0), missed(2, "A", 50.0), missed(3, "B", 1.0)]).combines == (1, 3)


def test_near_misses_of_earlier_champions_are_carried_over():
    """B is kept in between, and C was tried on top of it."""
    later = changed("B", 7)
    history = [missed(1, "A", 3.0), missed(2, "B", 9.0, value=7, verdict=Verdict.KEEP)]
    history += [missed(3, "C", 3.0, base=later, champion=2), missed(4, "B", 3.0, value=3)]
    proposal = stack(history, {0: BASE, 2: later}, champion=2)
    assert proposal.combines == (1, 3), "an edit of the lines that the keep replaced no longer fits"
    assert made(proposal, later) == TRAIN.replace("A = 1", "A = 2").replace("B = 1", "B = 7").replace(
        "C = 1", "C = 2"
    )


def test_new_files_fit_beside_each_other():
    history = []
    for number in (1, 2):
        files = {**BASE, f"workload/n{number}.py": b"N = 1\n"}
        history.append(replace(missed(number, "A", 3.0), diff=edits.diff(BASE, files)))
    tree = edits.apply(BASE, stack(history).edits)
    assert set(tree) == {*BASE, "workload/n1.py", "workload/n2.py"}


def test_a_campaign_learns_the_noise_of_a_stack_and_not_how_often_edits_help(tmp_path):
    config = load(tmp_path, {"profile": "cpu"}, environ={})
    plain = Memory([BASELINE, *THREE], config).belief()
    twice = tuple(scored(2.0 + seed / 10, seed) for seed in (1, 2))
    combined = missed(4, "D", 9.0, combines=(1, 2), trials=twice)
    learned = Memory([BASELINE, *THREE, combined], config).belief()
    assert (learned.weights == plain.weights).all()
    assert learned.sigma_bpb != plain.sigma_bpb
    alone = missed(4, "D", 9.0)
    assert (Memory([BASELINE, *THREE, alone], config).belief().weights != plain.weights).any()


def record_near_miss(ledger, files, old, new):
    """A near miss in the ledger that replaces one line of the champion's files."""
    path = "workload/model.py" if "WIDTH" in old else "workload/train.py"
    after = edits.apply(files, [Replace(path=path, old=old, new=new)])
    proposal = Proposal(hypothesis=new, edits=(), proposer="p")
    number = ledger.open_experiment(TAG, proposal, diff=edits.diff(files, after), champion=0)
    ledger.close_experiment(
        TAG, number, verdict=Verdict.DISCARD, reason="r", val_bpb=2.0, delta_bpb=-SIGMA, sigma_bpb=SIGMA,
        figures=replace(FIGURES, effect_bpb=-2.6 * SIGMA),
    )  # fmt: skip


def test_a_stack_is_recorded_and_explained(tmp_path):
    root = make_repository(tmp_path / "repository")
    with controller(root) as made:
        files = made.repository.read_workload("HEAD")
        record_near_miss(made.ledger, files, "RATE = 0.02", "RATE = 0.03")
        record_near_miss(made.ledger, files, "WIDTH = 64", "WIDTH = 65")
    with campaign(root, noise_prior_bpb=SIGMA) as night:
        single = IdeaQueue(campaign=night, proposer=None, budget_usd=0.0, stacks=False)
        assert single.next_stack(ending=True) is None, "a person who asked for one experiment gets that one"
        queue = replace(single, stacks=True)
        one = queue.next_stack(ending=False)
        assert queue.next_stack(ending=True) is None, "a used near miss is not used again"
        assert one == night.ledger.experiment(TAG, 3)
        assert (one.combines, one.champion, one.verdict) == ((1, 2), 0, None)
        tree = candidate_files(night, one)
        assert (tree["workload/model.py"], tree["workload/train.py"]) == (
            b"WIDTH = 65\n",
            b"RATE = 0.03\nSTEPS = 5\n",
        )
        assert tree == edits.apply(files, (Patch(text=one.diff),))
    kept = replace(one, verdict=Verdict.KEEP, val_bpb=1.99, delta_bpb=-0.01, sigma_bpb=SIGMA)
    assert "It combines the near misses 1, 2." in explain(kept)
    assert "\nCombines: 1, 2\n" in kept_message(kept)
    assert "\nCombines: 1, 2\n" in tried_message(one)
    assert "Combines" not in tried_message(replace(one, combines=()))


def test_an_edit_that_makes_a_stack_too_large_to_be_stored_is_left_out():
    history = []
    for number, files in ((1, 3), (2, 2), (3, 0)):
        size = edits.MAX_FILE_BYTES * 9 // 10 if files else 10
        line = b"x = 1" + b" " * 994 + b"\n"  # long ones: a diff takes its time by lines
        new = {f"workload/n{number}_{file}.py": line * (size // 1000 or 1) for file in range(files or 1)}
        history.append(replace(missed(number, "A", 3.0), diff=edits.diff(BASE, {**BASE, **new})))
    assert stack(history).combines == (1, 3)


def test_the_summary_reports_what_became_of_near_misses():
    assert stack_line(stacks([BASELINE, missed(1, "A", -1.0)])) is None
    assert stack_line(stacks([BASELINE, THREE[0]])) == "Near misses: 1 near miss, not tried together so far."
    history = [*THREE, missed(4, "D", 3.0, combines=(1, 3), verdict=Verdict.KEEP)]
    history.append(missed(5, "D", 3.0, combines=(2, 9), verdict=None))
    assert (
        stack_line(stacks(history)) == "Near misses: 3 near misses, 2 of them tried together in 1 stack; 1 kept."
    )
