"""Crops of the training stream."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from workload.data import Crops, TrainStream, open_stream  # noqa: E402  needs torch, which only images have

CPU = torch.device("cpu")


def stream_of(num_tokens, context_length=8):
    return TrainStream(
        tokens=np.arange(num_tokens, dtype="<u2"), vocab_size=num_tokens, context_length=context_length
    )


def test_targets_are_the_tokens_that_follow_the_inputs():
    inputs, targets = Crops(stream_of(1000), rows=16, seed=0, device=CPU).next()
    assert inputs.shape == targets.shape == (16, 8)
    assert inputs.dtype == targets.dtype == torch.int64
    assert torch.equal(inputs + 1, targets)  # the stream counts up
    assert torch.equal(inputs[:, 1:], targets[:, :-1])


def test_the_same_seed_draws_the_same_batches():
    first, second = (Crops(stream_of(1000), rows=4, seed=7, device=CPU) for _ in range(2))
    for _ in range(3):
        assert torch.equal(first.next()[0], second.next()[0])


def test_another_seed_draws_other_batches():
    first, second = (Crops(stream_of(1000), rows=4, seed=seed, device=CPU).next()[0] for seed in (1, 2))
    assert not torch.equal(first, second)


def test_batches_differ_from_each_other():
    crops = Crops(stream_of(1000), rows=4, seed=0, device=CPU)
    assert not torch.equal(crops.next()[0], crops.next()[0])


def test_crops_reach_both_ends_of_the_stream_and_stay_inside():
    crops = Crops(stream_of(11), rows=64, seed=0, device=CPU)  # three places for a crop of 8 + 1
    inputs, targets = crops.next()
    assert set(inputs[:, 0].tolist()) == {0, 1, 2}
    assert targets.max() == 10


def test_a_stream_is_mapped_with_its_meta(tmp_path):
    np.arange(5, dtype="<u2").tofile(tmp_path / "train.bin")
    meta = {"vocab_size": 65535, "context_length": 4, "bos_token": 65534, "num_tokens": 5}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    stream = open_stream(tmp_path)
    assert stream.tokens.tolist() == [0, 1, 2, 3, 4]
    assert (stream.vocab_size, stream.context_length) == (65535, 4)


def test_ids_above_the_signed_range_stay_positive():
    stream = TrainStream(tokens=np.full(20, 65000, dtype="<u2"), vocab_size=65535, context_length=8)
    assert Crops(stream, rows=2, seed=0, device=CPU).next()[0].unique().tolist() == [65000]
