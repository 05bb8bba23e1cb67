"""The optuna proposer: which constants it sees, how it changes them, and that the ledger is its only memory."""

from __future__ import annotations

import ast
import math
import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import edits
from runner.proposers.constants import Constant, find, replaced, scaled
from runner.proposers.optuna import OptunaProposer
from runner.records import Experiment, NoProposal, Proposal, ProposalRequest, Verdict

SOURCE = '''\
"""Größe — é in front of the constants moves bytes and characters apart."""
LEARNING_RATE = 0.02  # é 0.02
BATCH_ROWS = 32; DEPTH = 4
MOMENTUM: float = 0.95
SHIFT = -0.5
BIG = 524_288
TINY = 1e-10
NONE = 0
ZERO = 0.0
FLAG = True
TEXT = "0.02"
POWER = 2**3
SUM = 1 + 2
HEXADECIMAL = 0x10
SEED = 7
LOG_EVERY = 10
lower = 3
A = B = 4
TWICE = 1
TWICE = 2
COUNTED = 3
COUNTED += 1
(PAREN) = (5)


def f():
    LOCAL = 6
'''
FILES = {
    "workload/model.py": b"WIDTH = 64\n",
    "workload/train.py": SOURCE.encode(),
    "workload/sizes/cpu.py": b"NUM_LAYERS = 2\n",
    "workload/sizes/cuda.py": b"NUM_LAYERS = 8\n",
    "workload/notes.txt": b"RATE = 3\n",
}
NAMES = ["LEARNING_RATE", "BATCH_ROWS", "DEPTH", "MOMENTUM", "SHIFT", "BIG", "TINY", "PAREN"]


def constant(value, name="X"):
    text = value if isinstance(value, str) else repr(value)
    return Constant(path="p", name=name, value=ast.literal_eval(text), literal=text, start=0, end=len(text))


def test_plain_literals_bound_once_are_constants_and_nothing_else():
    found = find(FILES, "cpu")
    assert [one.name for one in found if one.path == "workload/train.py"] == NAMES
    assert [one.key for one in found if "sizes" in one.path] == ["workload/sizes/cpu.py:NUM_LAYERS"]
    assert find(FILES, "cuda")[1].value == 8
    assert find({"workload/broken.py": b"X = (\n"}, "cpu") == []


def test_only_the_literal_is_replaced():
    for one in find(FILES, "cpu"):
        text = replaced(FILES, one, "9.5")
        before, after = FILES[one.path].decode().split("\n"), text.split("\n")
        changed = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        assert len(changed) == 1 and one.name in changed[0][1] and "9.5" in changed[0][1]
        if one.name == "LEARNING_RATE":
            assert changed[0][1] == "LEARNING_RATE = 9.5  # é 0.02"


@pytest.mark.parametrize(
    ("value", "factor", "expected"),
    [
        (4, 2.0, "8"),
        (4, 1.01, "5"),
        (4, 0.99, "3"),
        (1, 0.25, "2"),
        (1, 4.0, "4"),
        (3, 0.25, "1"),
        (-3, 2.0, "-6"),
        (64, 1.2, "128"),
        (64, 0.3, "16"),
        (16, 0.9, "8"),
        ("524_288", 2.0, "1_048_576"),
        (48, 1.5, "72"),
        (2.0, 2.0, "4.0"),
        (10000.0, 0.5, "5000.0"),
        (0.95, 2.0, "0.9744"),
        (0.95, 0.25, "0.826"),
        (0.9999, 4.0, "0.999975"),
        (0.001, 2.0, "0.002"),
        ("1e-10", 2.0, "2e-10"),
        ("3e-4", 2.0, "6e-4"),
        (1e-10, 1.234567, "1.23e-10"),
        (-0.5, 2.0, "-0.667"),
    ],
)
def test_values_are_scaled_in_the_style_of_the_old_literal(value, factor, expected):
    assert scaled(constant(value), factor) == expected


def test_rates_are_not_fractions_and_batches_stay_powers_of_two():
    assert scaled(constant(0.3, "LEARNING_RATE"), 4.0) == "1.2"
    assert scaled(constant(8, "BATCH_ROWS"), 1.4) == "16"
    assert scaled(constant(8, "NUM_LAYERS"), 1.4) == "11"


numbers = st.one_of(
    st.integers(1, 10**9),
    st.floats(1e-12, 1e12),
    st.floats(0.001, 0.999),
    st.integers(-1000, -1),
    st.floats(-5, -0.01),
)


@given(numbers, st.floats(0.25, 4.0))
def test_a_scaled_value_is_a_different_literal_of_the_same_kind_sign_and_range(value, factor):
    result = ast.literal_eval(scaled(constant(value), factor))
    assert type(result) is type(value) and (result > 0) == (value > 0) and math.isfinite(result)
    if factor != 1.0:
        assert result != value
    if 0 < abs(value) < 1:
        assert 0 < abs(result) < 1
    if isinstance(value, int):
        assert abs(result) >= 1


# --- the search -----------------------------------------------------------------------------------------------


def request(history=(), *, files=FILES, failed=None, seed=1, number=None):
    return ProposalRequest(
        number=len(history) if number is None else number,
        program="",
        profile="cpu",
        train_seconds=20.0,
        files=files,
        history=tuple(history),
        failed=failed,
        seed=seed,
        journal=None,  # it pays for nothing
    )


BASELINE = Experiment(
    number=0, hypothesis="baseline", proposer="baseline", verdict=Verdict.KEEP, val_bpb=2.0, closed_seq=0
)


def row(proposal, number, verdict=Verdict.DISCARD, delta=0.01, parent=0):
    return Experiment(
        number=number,
        hypothesis=proposal.hypothesis,
        proposer="optuna",
        parameters=dict(proposal.parameters),
        verdict=verdict,
        delta_bpb=None if verdict in (Verdict.CRASH, Verdict.INFRA) else delta,
        champion=0,
        parent=parent,
        closed_seq=number,
    )


def propose(history=(), **options):
    proposal = OptunaProposer().propose(request(history, **options))
    assert isinstance(proposal, Proposal), proposal
    files = options.get("files", FILES)
    assert not isinstance(edits.apply(files, proposal.edits), edits.Refusal)
    return proposal


def key_of(proposal):
    ((key, factor),) = proposal.parameters.items()
    assert 0.25 <= factor <= 4.0 and factor != 1.0
    return key


def night(length, outcome=lambda key, factor: (Verdict.DISCARD, 0.01), seed=1):
    """Play a night; accepted changes move the files of the tip."""
    history, files, tip = [BASELINE], FILES, 0
    for number in range(1, length + 1):
        proposal = propose(history, files=files, seed=seed + number)
        ((key, factor),) = proposal.parameters.items()
        verdict, delta = outcome(key, factor)
        history.append(row(proposal, number, verdict, delta, tip))
        if verdict is Verdict.ACCEPT:
            files, tip = edits.apply(files, proposal.edits), number
    return history


def test_one_constant_changes_and_the_hypothesis_says_so():
    proposal = propose([BASELINE])
    (edit,) = proposal.edits
    assert key_of(proposal) == "workload/train.py:LEARNING_RATE"  # those that matter most come first
    assert proposal.hypothesis.startswith("LEARNING_RATE 0.02 → 0.0")
    assert proposal.hypothesis.endswith("(workload/train.py)")
    assert edit.path == "workload/train.py" and proposal.proposer == "optuna"


def test_the_first_round_takes_every_constant_once():
    history = night(len(find(FILES, "cpu")))
    keys = [key for one in history[1:] for key in one.parameters]
    assert sorted(keys) == sorted(one.key for one in find(FILES, "cpu"))
    assert keys[1] == "workload/train.py:BATCH_ROWS"
    assert keys[-1] != "workload/train.py:MOMENTUM"


def test_first_steps_go_both_ways_and_are_large_enough_to_be_seen():
    factors = [next(iter(propose([BASELINE], seed=seed).parameters.values())) for seed in range(40)]
    assert all(1.5 <= max(factor, 1 / factor) <= 3.0 for factor in factors)
    assert {factor > 1 for factor in factors} == {True, False}


def certificate(number, verdict, *accepted):
    return Experiment(
        number=number, hypothesis="", proposer="certificate", verdict=verdict, certifies=accepted, champion=0,
        parent=0, closed_seq=number,
    )  # fmt: skip


@pytest.mark.parametrize("certified", [False, True], ids=["on the tip", "certified"])
def test_an_accepted_step_is_followed_by_one_more_the_same_way(certified):
    """A certificate that keeps it is a new number for the same program."""
    first = propose([BASELINE])
    files = edits.apply(FILES, first.edits)
    history = [BASELINE, row(first, 1, Verdict.ACCEPT, -0.1)]
    history += [certificate(2, Verdict.KEEP, 1)] if certified else []
    second = propose(history, files=files)
    assert second.parameters == first.parameters and second.edits != first.edits
    third = propose([*history, row(second, 3, parent=2 if certified else 1)], files=files)
    assert key_of(third) != key_of(second)


def test_what_was_tried_on_the_champion_counts_again_after_a_roll_back():
    """What was tried before the acceptance is not proposed again once that is gone."""
    tiny = {"workload/model.py": b"DEPTH = 2\n", "workload/train.py": b""}
    before = [propose([BASELINE], files=tiny)]
    accepted = propose([BASELINE, row(before[0], 1)], files=tiny)
    assert accepted.edits != before[0].edits
    history = [
        BASELINE,
        row(before[0], 1),
        row(accepted, 2, Verdict.ACCEPT, -0.1),
        certificate(3, Verdict.DISCARD, 2),
    ]
    seen = {before[0].edits, accepted.edits}
    while isinstance(again := OptunaProposer().propose(request(history, files=tiny)), Proposal):
        assert again.edits not in seen
        seen.add(again.edits)
        history.append(row(again, len(history)))
    assert again.exhausted


def test_the_same_ledger_and_seed_give_the_same_proposal():
    for length in (0, 3, 12):
        history = night(length)
        assert propose(history, seed=5) == propose(history, seed=5)
    assert len({propose([BASELINE], seed=seed).hypothesis for seed in range(5)}) > 1


def test_no_value_comes_twice_on_the_same_tip():
    tiny = {"workload/model.py": b"DEPTH = 3\n", "workload/train.py": b"HEADS = 2\n"}
    history, seen = [BASELINE], set()
    while True:
        proposal = OptunaProposer().propose(request(history, files=tiny, seed=len(history)))
        if isinstance(proposal, NoProposal):
            break
        assert proposal.edits not in seen
        seen.add(proposal.edits)
        history.append(row(proposal, len(history), Verdict.CRASH if len(history) % 3 else Verdict.DISCARD))
        assert len(history) < 60
    assert proposal.exhausted and len(seen) > 8


def test_an_infrastructure_fault_says_nothing_about_a_value():
    first = propose([BASELINE])
    again = propose([BASELINE, row(first, 1, Verdict.INFRA)], number=1)
    assert again == propose([BASELINE], number=1)


def test_tpe_finds_the_constant_and_the_direction_that_help():
    """A world in which only a larger MOMENTUM helps, and each BATCH_ROWS change crashes."""

    def outcome(key, factor):
        if key.endswith("BATCH_ROWS"):
            return Verdict.CRASH, None
        if key.endswith("MOMENTUM"):
            return Verdict.DISCARD, -0.02 * math.log(factor)
        return Verdict.DISCARD, 0.005 + 0.001 * random.Random(key).random()

    counts = {}
    for one in night(60, outcome)[11:]:
        key = next(iter(one.parameters)).split(":")[1]
        counts[key] = counts.get(key, 0) + 1
    assert counts["MOMENTUM"] == max(counts.values())
    assert counts.get("BATCH_ROWS", 0) <= 2


def test_a_constant_that_is_gone_does_not_confuse_the_study():
    history = night(14)
    files = {**FILES, "workload/train.py": b"LEARNING_RATE = 0.02\nNEW_KNOB = 3\n"}
    known = propose(history, files=files)
    assert key_of(known) == "workload/train.py:NEW_KNOB"


def test_a_crash_is_retried_with_half_the_step():
    first = propose([BASELINE])
    ((key, factor),) = first.parameters.items()
    failed = row(first, 1, Verdict.CRASH)
    second = propose([BASELINE, failed], failed=failed)
    assert second.parameters == {key: pytest.approx(math.sqrt(factor))}
    assert "half the step that failed in #1" in second.hypothesis


def test_a_retry_without_a_smaller_step_is_no_proposal():
    files = {"workload/model.py": b"DEPTH = 2\n", "workload/train.py": b""}
    failed = Experiment(
        number=1,
        hypothesis="",
        proposer="optuna",
        parameters={"workload/model.py:DEPTH": 1.5},
        verdict=Verdict.CRASH,
    )
    result = OptunaProposer().propose(request([BASELINE, failed], files=files, failed=failed))
    assert isinstance(result, NoProposal) and not result.exhausted
    other = Experiment(number=1, hypothesis="", proposer="anthropic", verdict=Verdict.CRASH)
    result = OptunaProposer().propose(request([BASELINE, other], failed=other))
    assert isinstance(result, NoProposal) and not result.exhausted


def test_a_workload_without_constants_ends_the_campaign():
    result = OptunaProposer().propose(request(files={"workload/model.py": b"", "workload/train.py": b""}))
    assert isinstance(result, NoProposal) and result.exhausted


def test_heavy_libraries_are_imported_only_when_chosen():
    code = (
        "import sys, runner.proposers; print([m for m in ('anthropic', 'optuna', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    code = "import sys, runner.proposers.optuna; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
