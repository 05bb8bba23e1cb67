"""The audit's rows: same form as in scoring, and the withheld text is nowhere."""

from __future__ import annotations

import math
import stat
from itertools import pairwise

import numpy as np
import pytest

from locked_eval.judging.draw import Draw, draw
from locked_eval.judging.plan import Pass, make_plan, num_extra, write

LENGTH = 12
TRAIN = np.arange(1000, 1400, dtype=np.uint16)  # training text and validation text have no token in common


def validation(num_rows):
    """Rows in which every token names its row and place."""
    return (np.arange(num_rows * (LENGTH + 1)) + 2000).reshape(num_rows, LENGTH + 1).astype(np.uint16)


def drawn_from(num_rows, num_audited=None, champion=None, counted=None):
    claims = np.full((num_rows, LENGTH), -1.0, dtype=np.float32)
    counted = np.ones(claims.shape, bool) if counted is None else counted
    return draw(claims, champion, counted, num_audited or num_rows)


def batches(plan):
    """Every batch as (pass, slice)."""
    for begin, end in pairwise(plan.edges.tolist()):
        kinds = set(plan.passes[begin:end].tolist())
        assert len(kinds) == 1
        yield Pass(kinds.pop()), slice(begin, end)


def of(plan, kind):
    return [part for found, part in batches(plan) if found is kind]


def base_slots(plan):
    """Slot of the base pass by row."""
    slots = np.flatnonzero(plan.passes == Pass.BASE)
    return dict(zip(plan.rows[slots].tolist(), slots.tolist(), strict=True))


@pytest.mark.parametrize("num_rows", [1, 4, 5, 70])
def test_the_base_pass_has_the_batches_of_scoring(num_rows):
    plan = make_plan(validation(num_rows), TRAIN, drawn_from(num_rows), 4)
    found = sorted(plan.rows[part].tolist() for part in of(plan, Pass.BASE))
    assert found == [list(range(start, min(start + 4, num_rows))) for start in range(0, num_rows, 4)]


@pytest.mark.parametrize(("num_rows", "num_audited"), [(1, 1), (70, 70), (70, 9)])
def test_nothing_behind_a_cut_is_validation_text_and_everything_before_it_is(num_rows, num_audited):
    tokens = validation(num_rows)
    drawn = drawn_from(num_rows, num_audited)
    plan = make_plan(tokens, TRAIN, drawn, 4)
    for row, inputs in zip(plan.rows.tolist(), plan.inputs, strict=True):
        kept = 0 if row < 0 else drawn.positions[row] + 1
        assert (inputs[:kept] == tokens[row, :kept]).all()
        assert np.isin(inputs[kept:], TRAIN).all()


def test_the_withheld_token_is_nowhere_in_the_plan():
    tokens = validation(70)
    drawn = drawn_from(70, 30)
    plan = make_plan(tokens, TRAIN, drawn, 4)
    withheld = tokens[np.arange(70), drawn.positions + 1]  # of the rows that are not audited, too
    assert not np.isin(plan.inputs, withheld).any()


def test_what_follows_a_cut_is_contiguous_training_text():
    drawn = drawn_from(40)
    plan = make_plan(validation(40), TRAIN, drawn, 4)
    for row, inputs in zip(plan.rows.tolist(), plan.inputs, strict=True):
        if row < 0:
            continue
        crop = inputs[drawn.positions[row] + 1 :].astype(int)
        assert ((np.diff(crop) == 1) | (crop[1:] == TRAIN[0])).all()  # it may run round the end


def test_training_text_shorter_than_a_row_is_enough():
    plan = make_plan(validation(9), TRAIN[:3], drawn_from(9), 4)
    assert plan.inputs.shape[1] == LENGTH


def test_answers_are_wanted_of_audited_rows_only():
    drawn = drawn_from(70, 9)
    plan = make_plan(validation(70), TRAIN, drawn, 4)
    slots = base_slots(plan)
    assert sorted(slots) == list(range(70))
    wanted = {row for row, slot in slots.items() if plan.positions[slot] >= 0}
    assert wanted == set(drawn.rows.tolist())
    assert all(plan.positions[slots[row]] == drawn.positions[row] for row in wanted)
    assert plan.num_logits == (plan.positions >= 0).sum()
    assert set(plan.rows[plan.positions >= 0].tolist()) - {-1} == wanted  # −1: training text that looks like them


def test_rows_without_a_target_that_counts_are_cut_somewhere_as_well():
    counted = np.ones((200, LENGTH), bool)
    counted[::2] = False
    plan = make_plan(validation(200), TRAIN, drawn_from(200, counted=counted), 4)
    slots = base_slots(plan)
    kept = {int((plan.inputs[slots[row]] >= 2000).sum()) for row in range(0, 200, 2)}
    assert all(plan.positions[slots[row]] == -1 for row in range(0, 200, 2))
    assert min(kept) >= 1
    assert len(kept) > LENGTH / 2


@pytest.mark.parametrize(("num_rows", "extra"), [(1, 1), (4, 1), (64, 1), (65, 2), (200, 4)])
def test_one_batch_in_sixteen_is_asked_again_in_each_way(num_rows, extra):
    plan = make_plan(validation(num_rows), TRAIN, drawn_from(num_rows), 4)
    for kind in (Pass.REPEAT, Pass.SUFFIX, Pass.NEIGHBORS):
        assert len(of(plan, kind)) == extra
    assert num_extra(math.ceil(num_rows / 4)) == extra


def test_repeats_are_copies_of_base_batches():
    plan = make_plan(validation(70), TRAIN, drawn_from(70, 50), 4)
    slots = base_slots(plan)
    for part in of(plan, Pass.REPEAT):
        same = [slots[row] for row in plan.rows[part].tolist()]
        assert same == list(range(same[0], same[0] + len(same)))
        assert (plan.inputs[part] == plan.inputs[same]).all()
        assert (plan.positions[part] == plan.positions[same]).all()


def test_other_suffixes_keep_the_prefix_and_change_the_rest():
    drawn = drawn_from(300)
    plan = make_plan(validation(300), TRAIN, drawn, 4)
    slots = base_slots(plan)
    changed = 0
    for part in of(plan, Pass.SUFFIX):
        for slot, row in zip(range(part.start, part.stop), plan.rows[part].tolist(), strict=True):
            begin = drawn.positions[row] + 1
            assert (plan.inputs[slot, :begin] == plan.inputs[slots[row], :begin]).all()
            changed += (plan.inputs[slot, begin:] != plan.inputs[slots[row], begin:]).any()
            # A row that ends where it is cut would only repeat itself: no answer, or the mean would be diluted.
            assert plan.positions[slot] == (-1 if begin == LENGTH else drawn.positions[row])
    assert changed >= 10


def test_other_neighbors_leave_half_of_a_batch_as_it_was():
    plan = make_plan(validation(300), TRAIN, drawn_from(300), 4)
    slots = base_slots(plan)
    for part in of(plan, Pass.NEIGHBORS):
        kept = np.flatnonzero(plan.rows[part] >= 0) + part.start
        gone = np.flatnonzero(plan.rows[part] < 0) + part.start
        assert kept.size == gone.size == 2
        assert np.isin(plan.inputs[gone], TRAIN).all()
        same = [slots[row] for row in plan.rows[kept].tolist()]
        assert (plan.inputs[kept] == plan.inputs[same]).all()
        assert (np.diff(same) == np.diff(kept)).all()  # in the same slots


@pytest.mark.parametrize("num_rows", [1, 4, 70, 300])
def test_the_batches_with_other_neighbors_are_asked_apart(num_rows):
    plan = make_plan(validation(num_rows), TRAIN, drawn_from(num_rows), 4)
    together, apart = plan.parts()
    assert set(apart.passes.tolist()) == {Pass.NEIGHBORS}
    assert Pass.NEIGHBORS not in together.passes
    assert together.num_logits + apart.num_logits == plan.num_logits
    for name in ("inputs", "positions", "rows", "passes"):
        assert (np.concatenate([getattr(together, name), getattr(apart, name)]) == getattr(plan, name)).all()
    for part in (together, apart):
        assert part.edges[0] == 0
        assert part.edges[-1] == len(part.inputs)
        assert (np.diff(part.edges) > 0).all()
    # What stands beside a row there is text of training: at most half of the rows of the few batches are known.
    assert (apart.rows >= 0).sum() <= math.ceil(len(apart.rows) / 2)


@pytest.mark.parametrize("num_audited", [300, 100])
def test_rows_of_training_are_cut_and_asked_about_like_those_in_their_place(num_audited):
    plan = make_plan(validation(300), TRAIN, drawn_from(300, num_audited), 4)
    slots = base_slots(plan)
    jumps = []
    for part in of(plan, Pass.NEIGHBORS):
        first = plan.rows[part].max() // 4 * 4
        assert plan.positions[part].tolist() == [plan.positions[slots[row]] for row in range(first, first + 4)]
        for row, inputs in enumerate(plan.inputs[part], start=first):
            if inputs[0] < 2000:
                cut = int((plan.inputs[slots[row]] >= 2000).sum())
                steps = np.diff(inputs.astype(int)) % len(TRAIN)  # 1 within a crop
                assert (np.r_[steps[: cut - 1], steps[cut:]] == 1).all()
                jumps.extend(steps[cut - 1 : cut])
    assert any(step != 1 for step in jumps)


def test_a_batch_of_one_has_no_neighbor_to_keep():
    plan = make_plan(validation(1), TRAIN, drawn_from(1), 4)
    (part,) = of(plan, Pass.NEIGHBORS)
    assert (plan.rows[part] == -1).all()


def test_batches_come_in_another_order_each_time():
    drawn = drawn_from(100)
    first, second = (make_plan(validation(100), TRAIN, drawn, 4) for _ in range(2))
    assert first.passes.tolist() != sorted(first.passes.tolist())
    assert first.rows.tolist() != second.rows.tolist()


def test_each_way_of_asking_again_chooses_its_batches_for_itself():
    plan = make_plan(validation(640), TRAIN, drawn_from(640), 4)
    chosen = [sorted(plan.rows[part].max() // 4 for part in of(plan, kind)) for kind in list(Pass)[1:]]
    assert len({tuple(one) for one in chosen}) == 3


def test_files_are_those_that_the_auditor_reads(tmp_path):
    plan = make_plan(validation(10), TRAIN, drawn_from(10), 4)
    write(plan, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["edges.npy", "inputs.npy", "positions.npy"]
    for path in tmp_path.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert (np.load(path, allow_pickle=False) == getattr(plan, path.stem)).all()
    assert plan.inputs.dtype == np.uint16
    assert plan.edges[0] == 0
    assert plan.edges[-1] == len(plan.inputs) == len(plan.positions) == len(plan.rows) == len(plan.passes)


def test_validation_rows_are_not_changed():
    tokens = validation(10)
    make_plan(tokens, TRAIN, drawn_from(10), 4)
    assert (tokens == validation(10)).all()


def test_a_draw_of_other_rows_or_no_training_text_is_refused():
    with pytest.raises(ValueError, match="9 rows does not fit 10"):
        make_plan(validation(10), TRAIN, drawn_from(9), 4)
    with pytest.raises(ValueError, match="no training text"):
        make_plan(validation(10), TRAIN[:0], drawn_from(10), 4)


def test_a_row_that_is_cut_at_its_end_stays_whole_in_its_inputs():
    drawn = Draw(
        positions=np.array([LENGTH - 1]), probabilities=np.ones(1), even=np.ones(1, bool), rows=np.array([0])
    )
    plan = make_plan(validation(1), TRAIN, drawn, 1)
    assert (plan.inputs[base_slots(plan)[0]] == validation(1)[0, :-1]).all()
    assert plan.positions[of(plan, Pass.SUFFIX)[0]].tolist() == [-1]
