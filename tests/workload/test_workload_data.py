"""Crops of the training shards."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from workload.data import Crops, TrainStream, open_stream  # noqa: E402  needs torch, which only images have

CPU = torch.device("cpu")


def stream_of(*sizes, context_length=8):
    """Shards of so many tokens that count up through all of them."""
    tokens = np.arange(sum(sizes), dtype="<u2")
    shards = np.split(tokens, np.cumsum(sizes)[:-1])
    return TrainStream(shards=shards, vocab_size=sum(sizes), context_length=context_length)


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


def test_crops_reach_both_ends_of_every_shard_and_cross_none():
    crops = Crops(stream_of(11, 9, 10), rows=200, seed=0, device=CPU)  # 3, 1 and 2 places for a crop of 8 + 1
    inputs, targets = crops.next()
    assert set(inputs[:, 0].tolist()) == {0, 1, 2, 11, 20, 21}
    assert torch.equal(inputs + 1, targets)
    assert set(targets[:, -1].tolist()) == {8, 9, 10, 19, 28, 29}


def test_every_start_is_equally_likely_whatever_its_shard():
    inputs, _ = Crops(stream_of(11, 9, 10), rows=60_000, seed=0, device=CPU).next()
    counts = inputs[:, 0].unique(return_counts=True)[1]
    assert counts.numel() == 6
    assert ((counts - 10_000).abs() < 500).all()  # five standard deviations


def test_shards_are_mapped_in_the_order_of_their_names_with_their_meta(tmp_path):
    for number in (10, 2, 0):
        np.arange(number, number + 5, dtype="<u2").tofile(tmp_path / f"shard-{number:02d}.bin")
    meta = {"vocab_size": 65535, "context_length": 4, "bos_token": 65534}
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    stream = open_stream(tmp_path)
    assert [shard[0] for shard in stream.shards] == [0, 2, 10]
    assert all(isinstance(shard, np.memmap) and len(shard) == 5 for shard in stream.shards)
    assert (stream.vocab_size, stream.context_length) == (65535, 4)


def test_ids_above_the_signed_range_stay_positive():
    stream = TrainStream(shards=[np.full(20, 65000, dtype="<u2")], vocab_size=65535, context_length=8)
    assert Crops(stream, rows=2, seed=0, device=CPU).next()[0].unique().tolist() == [65000]
