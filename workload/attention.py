"""Attention over the last tokens of a row: three kernels for one function, and the choice of the fastest.

B rows, T tokens per row, H heads, D channels per head. A window of W lets position t see the positions t - W … t.
Scoring and CPUs use `sdpa`, which needs no compiler and gives equal bits for equal inputs; a training on CUDA
measures them first, since none is the fastest on every card.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Kernel = Callable[[Tensor, Tensor, Tensor, int, float], Tensor]
"""Queries, keys, and values, each (B, T, H, D), a window, and a scale of q·k to (B, T, H, D)."""

TRIAL_ROWS = 4  # rows of the measurement; enough to fill a card at 2,048 tokens
TRIAL_PASSES = 5  # forward and backward; the fastest counts


def sdpa(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """PyTorch's own choice of a kernel; it has no windows, so a short one costs as much as a full one."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    T = q.size(-2)
    if window >= T:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    else:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=window_mask(T, window, q.device), scale=scale)
    return y.transpose(1, 2)


def window_mask(T: int, window: int, device: torch.device) -> Tensor:
    """(T, T): which keys a query may see."""
    position = torch.arange(T, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance <= window)


def flash(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """FlashAttention with its own windows; needs CUDA, Ampere or newer, and half precision."""
    from torch.nn.attention.varlen import varlen_attn

    B, T, H, D = q.shape
    edges = torch.arange(0, (B + 1) * T, T, dtype=torch.int32, device=q.device)  # (B + 1,)
    flat = (x.reshape(B * T, H, D) for x in (q, k, v))
    sides = (window if window < T else -1, 0)  # -1: no limit
    y = varlen_attn(*flat, edges, edges, T, T, scale=scale, window_size=sides)
    return y.view(B, T, H, D)


def flex(q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
    """FlexAttention: a Triton kernel that skips what no query of a block may see. Fast only when compiled."""
    from torch.nn.attention.flex_attention import flex_attention

    mask = BLOCK_MASKS[q.size(1), window]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, H, T, D)
    return flex_attention(q, k, v, block_mask=mask, scale=scale).transpose(1, 2)


BLOCK_MASKS: dict[tuple[int, int], object] = {}
"""The blocks of (T, T) that `flex` computes, by T and window; made before anything is compiled."""


def make_block_mask(T: int, window: int, device: torch.device) -> None:
    """Add to `BLOCK_MASKS`."""
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key <= window)

    BLOCK_MASKS[T, window] = create_block_mask(visible, None, None, T, T, device=device)


KERNELS: dict[str, Kernel] = {"flash": flash, "flex": flex, "sdpa": sdpa}


def fastest(T: int, heads: int, head_dim: int, windows: list[int], device: torch.device) -> str:
    """Measure forward and backward of every kernel for the windows of a model; returns the name of the fastest.

    A kernel that the card or the build of PyTorch lacks is passed over; `sdpa` always works. `flex` takes many
    seconds to compile, so it is not tried where `flash` has windows already.
    """
    seconds: dict[str, float] = {}
    for name, kernel in KERNELS.items():
        if name == "flex" and "flash" in seconds:
            continue
        try:
            seconds[name] = sum(_seconds(kernel, T, heads, head_dim, window, device) for window in windows)
        except Exception as error:  # noqa: BLE001  the compilers and libraries behind these raise anything
            print(f"attention: {name} cannot be used here: {type(error).__name__}", flush=True)
    chosen = min(seconds, key=seconds.__getitem__)
    measured = " ".join(f"{name} {1e3 * value:.2f} ms" for name, value in seconds.items())
    print(f"attention: {chosen} ({measured})", flush=True)
    return chosen


def _seconds(kernel: Kernel, T: int, heads: int, head_dim: int, window: int, device: torch.device) -> float:
    """Seconds of the fastest of some passes, without the first one, which compiles."""
    shape = (TRIAL_ROWS, T, heads, head_dim)
    q, k, v = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    if kernel is flex:
        make_block_mask(T, window, device)
        kernel = torch.compile(kernel, dynamic=False)
    times = []
    for _ in range(1 + TRIAL_PASSES):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        kernel(q, k, v, window, head_dim**-0.5).sum().backward()
        torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
