"""A campaign in memory knows the same whether it followed a night or was read after a restart."""

from __future__ import annotations

import random

import numpy as np
import pytest

from runner import config
from runner.decision import history
from runner.decision.memory import Memory
from tests.support.ledgers import TAG, new_ledger
from tests.support.random_nights import random_night


@pytest.fixture
def settings(tmp_path):
    return config.load(tmp_path, {"profile": "cpu"}, environ={})


def known(memory, before_seq=None):
    """Everything that a memory is asked."""
    belief, champion, tip = memory.belief(before_seq), memory.champion, memory.tip
    return (
        tuple(memory.experiments),
        champion,
        memory.open_experiment,
        memory.num_done,
        [memory.control_due(interval) for interval in (0, 1, 3, 9, 20)],
        belief.sigma_bpb,
        belief.weights.tolist(),
        None if tip is None else [vars(tip) | {"log_shares": tip.log_shares.tolist()}],
    )


@pytest.mark.parametrize("seed", range(3))
def test_a_memory_that_followed_a_night_equals_one_that_a_restart_reads(tmp_path, settings, seed):
    rng = random.Random(seed)
    with new_ledger(tmp_path) as ledger:
        followed, opened_seq, then = Memory([], settings), None, None
        for number in random_night(ledger, rng, 25):
            (changed,) = ledger.experiments(TAG, number, number)
            followed.put(changed)
            fresh = Memory(ledger.experiments(TAG), settings)
            assert known(followed) == known(fresh)
            everything = fresh.experiments
            assert fresh.champion == history.champion(everything)
            if fresh.tip is not None:
                assert fresh.tip.number == history.tip(everything).number, "what a reader without trials sees"
            if (one := fresh.open_experiment) is None:
                continue
            if one.opened_seq != opened_seq:  # it has just been opened
                opened_seq, then = one.opened_seq, fresh.belief()
            again = fresh.belief(opened_seq)
            assert again.sigma_bpb == then.sigma_bpb, "judged as when it was opened, whatever came since"
            assert np.array_equal(again.weights, then.weights)


def test_the_tip_of_an_earlier_moment_is_remembered(tmp_path, settings):
    with new_ledger(tmp_path) as ledger:
        list(random_night(ledger, random.Random(7), 25))
        everything = ledger.experiments(TAG)
        memory = Memory(everything, settings)
        for number in range(25):
            assert memory.tip_after(number) == history.tip(everything[: number + 1]).number
