"""Optimizers: Muon for the matrices of the blocks, AdamW for embedding, head and anything else.

Muon replaces the update of a matrix by the nearest (semi-)orthogonal one, so that every direction of
the matrix learns at the same speed (Jordan et al. 2024). Embedding and head are tables of rows that are
hardly ever updated together; they keep an update per element.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

MATRIX_LEARNING_RATE = 0.04  # Muon: an orthogonal update has this norm per direction
EMBEDDING_LEARNING_RATE = 0.6  # AdamW: a change per element and step, beside elements of size 1
HEAD_LEARNING_RATE = 0.004  # AdamW: of the head, and of whatever is neither matrix nor embedding

MUON_MOMENTUM = 0.95  # share of the running gradient that survives a step
MATRIX_WEIGHT_DECAY = 0.01  # per step, times the learning rate
NEWTON_SCHULZ_STEPS = 5  # singular values end near 1 after five; more only costs time
ADAM_BETA1 = 0.8  # gradient average; short, since runs are short
ADAM_BETA2 = 0.95  # squared gradient average
ADAM_EPSILON = 1e-10  # rows of rare tokens have tiny gradients and should still learn
ADAM_WEIGHT_DECAY = 0.0  # per step, times the learning rate; rows of rare tokens would fade between updates

QUINTIC = (3.4445, -4.7750, 2.0315)
"""a, b, c of a·x + b·x³ + c·x⁵: steep at 0, and what it maps stays around 1 (Jordan et al. 2024)."""


def newton_schulz(gradients: Tensor, steps: int = NEWTON_SCHULZ_STEPS) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of the given ones.

    The odd polynomial acts on the singular values alone and drives them towards 1 (roughly 0.7 to 1.2);
    only those far below the largest one stay small.

    Args:
        gradients: (N, rows, columns), N matrices of one shape.

    Returns:
        (N, rows, columns) in the input's dtype.
    """
    x = gradients.bfloat16() if gradients.is_cuda else gradients  # bfloat16 is slower than float32 on a CPU
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT  # the Gram matrix below is then the smaller of the two
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # the largest singular value is now at most 1
    a, b, c = QUINTIC
    for _ in range(steps):
        gram = x @ x.mT  # (N, m, m)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).type_as(gradients)


class Muon:
    """Nesterov momentum, then an orthogonal update, for matrices of one shape, treated as one batch.

    These two classes are not `torch.optim.Optimizer`s: its base class imports the compiler at first use,
    which takes more than a second of a CPU run.
    """

    def __init__(self, params: list[nn.Parameter], *, peak_lr: float) -> None:
        self.params = params  # N of (rows, columns)
        self.peak_lr = peak_lr
        self.running = torch.zeros_like(torch.stack([p.detach() for p in params]))  # (N, rows, columns)
        on_cuda = params[0].is_cuda
        self.orthogonalize = torch.compile(newton_schulz, dynamic=False) if on_cuda else newton_schulz

    @torch.no_grad()
    def step(self, lr_factor: float) -> None:
        """Update every matrix from its gradient, at `lr_factor` times the peak learning rate."""
        lr = lr_factor * self.peak_lr
        gradients = torch.stack([p.grad for p in self.params])  # (N, rows, columns)
        self.running.lerp_(gradients, 1 - MUON_MOMENTUM)
        updates = self.orthogonalize(gradients.lerp(self.running, MUON_MOMENTUM))  # (N, rows, columns)
        rows, columns = updates.shape[-2:]
        # A tall orthogonal matrix changes each of its outputs less: make up for it.
        updates *= lr * max(1.0, rows / columns) ** 0.5
        for param, update in zip(self.params, updates, strict=True):
            param.mul_(1 - lr * MATRIX_WEIGHT_DECAY).sub_(update)


class AdamW:
    """Adam with bias correction and decoupled weight decay (Loshchilov and Hutter 2019)."""

    def __init__(self, params: list[nn.Parameter], *, peak_lr: float) -> None:
        self.params = params
        self.peak_lr = peak_lr
        self.steps = 0
        self.mean = [torch.zeros_like(p) for p in params]  # of the gradient
        self.square = [torch.zeros_like(p) for p in params]  # mean of the squared gradient

    @torch.no_grad()
    def step(self, lr_factor: float) -> None:
        """Update every parameter from its gradient, at `lr_factor` times the peak learning rate."""
        lr = lr_factor * self.peak_lr
        self.steps += 1
        mean_bias, square_bias = 1 - ADAM_BETA1**self.steps, 1 - ADAM_BETA2**self.steps
        for param, mean, square in zip(self.params, self.mean, self.square, strict=True):
            mean.lerp_(param.grad, 1 - ADAM_BETA1)
            square.mul_(ADAM_BETA2).addcmul_(param.grad, param.grad, value=1 - ADAM_BETA2)
            scale = (square / square_bias).sqrt_().add_(ADAM_EPSILON)
            param.mul_(1 - lr * ADAM_WEIGHT_DECAY).addcdiv_(mean, scale, value=-lr / mean_bias)


def build_optimizers(model: nn.Module) -> list[Muon | AdamW]:
    """Optimizers that share out all parameters of the model.

    Parameters with `embedding` or `head` in their names are AdamW's; other matrices are Muon's, one
    optimizer per shape; whatever has not two dimensions (gains, biases) joins the head.
    """
    embedding: list[nn.Parameter] = []
    head_and_rest: list[nn.Parameter] = []
    matrices: dict[torch.Size, list[nn.Parameter]] = {}
    for name, param in model.named_parameters():
        if "embedding" in name:
            embedding.append(param)
        elif "head" in name or param.ndim != 2:
            head_and_rest.append(param)
        else:
            matrices.setdefault(param.shape, []).append(param)
    return [
        AdamW(embedding, peak_lr=EMBEDDING_LEARNING_RATE),
        AdamW(head_and_rest, peak_lr=HEAD_LEARNING_RATE),
        *(Muon(same_shape, peak_lr=MATRIX_LEARNING_RATE) for same_shape in matrices.values()),
    ]
