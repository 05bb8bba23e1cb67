"""Kernels of attention against the definition, and the choice between them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from workload import attention  # noqa: E402  needs torch, which only images have

T = 32


def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, T, 3, 8, generator=generator) for _ in range(3)]


def by_definition(q, k, v, window, scale):
    out = torch.zeros_like(v)
    for t in range(T):
        first = max(0, t - window)
        scores = torch.einsum("bhd,bshd->bhs", q[:, t], k[:, first : t + 1]) * scale
        out[:, t] = torch.einsum("bhs,bshd->bhd", scores.softmax(-1), v[:, first : t + 1])
    return out


@pytest.mark.parametrize("window", [1, 7, T])
@pytest.mark.parametrize("name", ["sdpa", "flex"])  # flash needs a GPU
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_kernel_computes_attention_over_its_window(name, window):
    q, k, v = inputs()
    attention.make_block_mask(T, window, q.device)
    found = attention.KERNELS[name](q, k, v, window, 0.3)
    torch.testing.assert_close(found, by_definition(q, k, v, window, 0.3))


def test_a_kernel_that_fails_is_passed_over_and_the_fastest_of_the_others_wins(monkeypatch, capsys):
    def seconds(kernel, *_arguments):
        if kernel is attention.flash:
            raise RuntimeError("not on this card")
        return {attention.flex: 0.001, attention.sdpa: 0.002}[kernel]

    monkeypatch.setattr(attention, "_seconds", seconds)
    assert attention.fastest(T, 3, 8, [7, T], torch.device("cpu")) == "flex"
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "attention: flash cannot be used here: RuntimeError",
        "attention: flex (flex 2.00 ms sdpa 4.00 ms)",
    ]
