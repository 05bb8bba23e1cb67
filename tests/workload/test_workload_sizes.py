"""Every tier on meta tensors: shapes and types, parameters, operations, and memory, without a card."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from workload.model import GPT  # noqa: E402  needs torch, which only images have
from workload.train import config_of  # noqa: E402

STREAM = SimpleNamespace(vocab_size=8192, context_length=2048)
TIERS = {8: "cuda_8gb", 12: "cuda_12gb", 16: "cuda_16gb", 24: "cuda_24gb", 40: "cuda_40gb", 80: "cuda_80gb",
         140: "cuda_140gb"}  # fmt: skip
ROOM = 0.75  # of a card, for what is counted here: its driver, kernels and fragments need the rest


class Imitation(torch.autograd.Function):
    """Attention that computes nothing, and saves what a flash kernel saves."""

    @staticmethod
    def forward(ctx, q, k, v):
        ctx.save_for_backward(q, k, v, torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32))
        return torch.empty_like(q)

    @staticmethod
    def backward(ctx, _gradient):
        return ctx.saved_tensors[:3]


def meta_model(sizes, monkeypatch):
    """A model without data, in the precision of its activations on CUDA."""
    monkeypatch.setitem(
        importlib.import_module("workload.attention").KERNELS, "sdpa", lambda q, k, v, *_: Imitation.apply(q, k, v)
    )
    with torch.device("meta"):
        return GPT(config_of(sizes, STREAM)).to(torch.bfloat16)


def saved_bytes(model, rows):
    """What one forward pass keeps for the backward pass, without fusion: an upper limit for the compiled one."""
    own = {id(parameter) for parameter in model.parameters()}
    kept = {}

    def keep(tensor):
        if id(tensor) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor  # views of one storage count once
        return tensor

    tokens = torch.zeros(rows, STREAM.context_length, dtype=torch.int64, device="meta")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model.loss(tokens, tokens)
    loss.backward()
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def accounts(sizes, monkeypatch):
    """Parameters, operations for a token, and bytes at the peak of a step."""
    model = meta_model(sizes, monkeypatch)
    tables = sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Embedding))
    others = sum(p.numel() for p in model.parameters()) - tables
    # Tables: weight and gradient of 2 bytes, two moments of 4. Others: weight, gradient and at most two of 4.
    state = 12 * tables + 16 * others
    logits = sizes.FORWARD_ROWS * STREAM.context_length * STREAM.vocab_size * 4
    return tables + others, model.flops_per_token(), state + saved_bytes(model, sizes.FORWARD_ROWS) + 2 * logits


def test_every_tier_fits_its_card_and_tiers_grow(monkeypatch):
    found = {}
    for gigabytes, name in TIERS.items():
        found[name] = accounts(importlib.import_module(f"workload.sizes.{name}"), monkeypatch)
        parameters, operations, peak = found[name]
        print(f"{name}: {parameters / 1e6:.1f} M, {operations / 1e6:.0f} MFLOP, {peak / 2**30:.1f} GiB")
        assert peak < ROOM * gigabytes * 1e9
    for column in zip(*found.values(), strict=True):
        assert list(column) == sorted(column)


@pytest.mark.parametrize("name", [*TIERS.values(), "cuda", "cpu"])
def test_sizes_are_consistent(name):
    sizes = importlib.import_module(f"workload.sizes.{name}")
    assert sizes.HEAD_DIM % 2 == 0  # rotary turns pairs
    assert sizes.BATCH_ROWS % min(sizes.FORWARD_ROWS, sizes.BATCH_ROWS) == 0
    assert set(sizes.WINDOWS) <= set("SL")
    assert sizes.CLOSING_SECONDS > 0


def test_a_card_without_a_tier_gets_the_sizes_of_80_gb():
    cuda, tier = (importlib.import_module(f"workload.sizes.{name}") for name in ("cuda", "cuda_80gb"))
    assert all(getattr(cuda, name) == value for name, value in vars(tier).items() if name.isupper())
