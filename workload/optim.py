"""Optimizers: Muon for the matrices of the blocks, AdamW for embeddings, head, gates and scalars.

Muon replaces the update of a matrix by the nearest (semi-)orthogonal one, so that every direction of
the matrix learns at the same speed (Jordan et al. 2024). Embedding and head are tables of rows that are
hardly ever updated together; they keep an update per element. docs/workload.md names the other sources.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

MATRIX_LEARNING_RATE = 0.04  # Muon: an orthogonal update has this norm per direction
EMBEDDING_LEARNING_RATE = 0.6  # AdamW: a change per element and step, beside elements of size 1
HEAD_LEARNING_RATE = 0.004  # AdamW: of the head, and of whatever is neither matrix nor embedding
RESIDUAL_LEARNING_RATE = 0.005  # AdamW: of what blocks keep of the residual stream
FIRST_RESIDUAL_LEARNING_RATE = 0.5  # AdamW: of what blocks add of the embedding

MUON_MOMENTUM = 0.95  # share of the running gradient that survives a step
MUON_FIRST_MOMENTUM = 0.85  # the same at the first step: early gradients soon point elsewhere
MUON_MOMENTUM_WARMUP_STEPS = 300  # from the first to the final momentum
MATRIX_WEIGHT_DECAY = 0.2  # at first, times the learning rate, where it agrees with the update; falls to zero
VARIANCE_BETA = 0.95  # average of the squared size of a neuron's update
ADAM_BETA1 = 0.8  # gradient average; short, since runs are short
ADAM_BETA2 = 0.95  # squared gradient average
FIRST_RESIDUAL_BETA1 = 0.96  # one number per block, learned at a high rate: average longer
ADAM_EPSILON = 1e-10  # rows of rare tokens have tiny gradients and should still learn
ADAM_WEIGHT_DECAY = 0.0  # per step, times the learning rate; rows of rare tokens would fade between updates

POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
"""a, b, c of a·x + b·x³ + c·x⁵, one polynomial per iteration: the best for what the one before it leaves, if the
singular values start between 0.001 and 1 (Amsel et al. 2025)."""
NORM_MARGIN = 1.02  # the polynomials must not see a singular value above 1, and bfloat16 rounds


def orthogonalize(gradients: Tensor) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of the given ones.

    The odd polynomials act on the singular values alone and drive them towards 1; only those far below the
    largest one stay small.

    Args:
        gradients: (N, rows, columns), N matrices of one shape.

    Returns:
        (N, rows, columns) in the input's dtype.
    """
    x = gradients.bfloat16() if gradients.is_cuda else gradients  # bfloat16 is slower than float32 on a CPU
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT  # the Gram matrix below is then the smaller of the two
    x = x / (NORM_MARGIN * x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # the largest singular value is now below 1
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.mT  # (N, m, m)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).type_as(gradients)


def even_out(updates: Tensor, variance: Tensor) -> Tensor:
    """Divide the update of every neuron by its usual size; the size of the whole update stays (NorMuon).

    Args:
        updates: (N, rows, columns)
        variance: (N, rows, 1) or (N, 1, columns), the running average, along the longer side; is updated.
    """
    dim = -1 if variance.size(-1) == 1 else -2
    variance.lerp_(updates.square().mean(dim, keepdim=True), 1 - VARIANCE_BETA)
    even = updates * variance.clamp_min(1e-10).rsqrt()  # (N, rows, columns)
    norms = [x.norm(dim=(-2, -1), keepdim=True) for x in (updates, even)]  # (N, 1, 1) each
    return even * (norms[0] / norms[1].clamp_min(1e-10))


def muon_update(matrices: Tensor, gradients: Tensor, running: Tensor, variance: Tensor, rates: Tensor) -> None:
    """Nesterov momentum, an orthogonal update, and weight decay where it agrees with the update.

    Args:
        matrices, gradients, running: (N, rows, columns); running is the average gradient.
        variance: see `even_out`.
        rates: (3,) learning rate, momentum, weight decay; a tensor, since a compiler takes numbers as constants.
    """
    lr, momentum, decay = rates.unbind()
    running.lerp_(gradients, 1 - momentum)
    updates = even_out(orthogonalize(gradients.lerp(running, momentum)), variance)  # (N, rows, columns)
    rows, columns = updates.shape[-2:]
    # A tall orthogonal matrix changes each of its outputs less: make up for it.
    updates = updates * max(1.0, rows / columns) ** 0.5
    agrees = updates * matrices > 0  # both make the element smaller
    matrices.sub_(lr * (updates + decay * matrices * agrees))


class Muon:
    """The update above, for matrices of one shape, which become views of one tensor.

    These two classes are not `torch.optim.Optimizer`s: its base class imports the compiler at first use,
    which takes more than a second of a CPU run.
    """

    def __init__(self, params: list[nn.Parameter], *, peak_lr: float) -> None:
        self.params = params  # N of (rows, columns)
        self.peak_lr = peak_lr
        self.steps = 0
        self.matrices = torch.stack([param.detach() for param in params])  # (N, rows, columns)
        for param, matrix in zip(params, self.matrices, strict=True):
            param.data = matrix
        self.running = torch.zeros_like(self.matrices)
        rows, columns = params[0].shape
        size = (len(params), rows, 1) if rows >= columns else (len(params), 1, columns)
        self.variance = self.matrices.new_zeros(size)
        self.update = fused(muon_update, self.matrices.device)

    @torch.no_grad()
    def step(self, lr_factor: float, decay_factor: float = 1.0) -> None:
        """Update every matrix from its gradient, at shares of the peak learning rate and of the weight decay."""
        risen = min(1.0, self.steps / MUON_MOMENTUM_WARMUP_STEPS)
        momentum = MUON_FIRST_MOMENTUM + risen * (MUON_MOMENTUM - MUON_FIRST_MOMENTUM)
        self.steps += 1
        rates = torch.tensor([lr_factor * self.peak_lr, momentum, decay_factor * MATRIX_WEIGHT_DECAY])
        gradients = torch.stack([param.grad for param in self.params])  # (N, rows, columns)
        self.update(self.matrices, gradients, self.running, self.variance, rates.to(gradients.device))


@dataclass(frozen=True, kw_only=True)
class AdamGroup:
    """Parameters that AdamW treats alike."""

    params: list[nn.Parameter]
    peak_lr: float
    beta1: float = ADAM_BETA1
    beta2: float = ADAM_BETA2


Moments = list[tuple[nn.Parameter, Tensor, Tensor, float, float]]
"""Parameter, mean of its gradient and of the squared gradient (float32), and how much of each survives a step."""


def adamw_update(moments: Moments, gradients: list[Tensor], rates: Tensor) -> None:
    """Adam with bias correction and decoupled weight decay, for P parameters at once.

    Args:
        rates: (P, 3) learning rate over the first bias, root of the second bias, and decay of the parameters.
    """
    for (param, mean, square, beta1, beta2), grad, rate in zip(moments, gradients, rates, strict=True):
        step, root_bias, decay = rate.unbind()
        grad = grad.float()
        mean.lerp_(grad, 1 - beta1)
        square.lerp_(grad.square(), 1 - beta2)
        update = step * mean / (square.sqrt() / root_bias + ADAM_EPSILON)
        param.copy_((1 - decay) * param - update)


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); every group has its own rate and averages."""

    def __init__(self, groups: list[AdamGroup]) -> None:
        self.params = [param for group in groups for param in group.params]
        self.groups = [group for group in groups for _ in group.params]  # of each parameter
        self.moments: Moments = [
            (param, torch.zeros_like(param, dtype=torch.float32), torch.zeros_like(param, dtype=torch.float32),
             group.beta1, group.beta2)
            for param, group in zip(self.params, self.groups, strict=True)
        ]  # fmt: skip
        self.steps = 0
        self.update = fused(adamw_update, self.params[0].device)

    @torch.no_grad()
    def step(self, lr_factor: float, decay_factor: float = 1.0) -> None:
        """Update every parameter from its gradient, at shares of the peak learning rates and weight decay."""
        self.steps += 1
        rates = torch.tensor([self._rates(group, lr_factor, decay_factor) for group in self.groups])  # (P, 3)
        gradients = [param.grad for param in self.params]
        self.update(self.moments, gradients, rates.to(gradients[0].device))

    def _rates(self, group: AdamGroup, lr_factor: float, decay_factor: float) -> tuple[float, float, float]:
        lr = lr_factor * group.peak_lr
        mean_bias, square_bias = 1 - group.beta1**self.steps, 1 - group.beta2**self.steps
        return lr / mean_bias, square_bias**0.5, lr * decay_factor * ADAM_WEIGHT_DECAY


def fused(update, device: torch.device):
    """An update as few kernels on CUDA; on a CPU, compiling takes longer than it saves."""
    return torch.compile(update, dynamic=False, fullgraph=True) if device.type == "cuda" else update


def build_optimizers(model: nn.Module, rate_width: int) -> list[Muon | AdamW]:
    """Optimizers that share out all parameters of the model.

    AdamW's rates for tables and head are those for `rate_width` channels; they go with one over the root of the
    channels.

    Parameters that end in `embedding.weight` or have `head` in their names are AdamW's, and so are gates; other
    matrices are Muon's, one optimizer per shape; whatever has not two dimensions (gains, biases) joins the head.
    """
    tables: list[nn.Parameter] = []
    head_and_rest: list[nn.Parameter] = []
    matrices: dict[torch.Size, list[nn.Parameter]] = {}
    residual, first_residual = model.residual_scale, model.first_residual_scale
    for name, param in model.named_parameters():
        if param is residual or param is first_residual:
            continue
        if name.endswith("embedding.weight"):
            tables.append(param)
        elif "head" in name or "gate" in name or param.ndim != 2:
            head_and_rest.append(param)
        else:
            matrices.setdefault(param.shape, []).append(param)
    scale = (model.config.model_width / rate_width) ** -0.5
    return [
        AdamW([
            AdamGroup(params=tables, peak_lr=scale * EMBEDDING_LEARNING_RATE),
            AdamGroup(params=head_and_rest, peak_lr=scale * HEAD_LEARNING_RATE),
            AdamGroup(params=[residual], peak_lr=RESIDUAL_LEARNING_RATE),
            AdamGroup(
                params=[first_residual], peak_lr=FIRST_RESIDUAL_LEARNING_RATE, beta1=FIRST_RESIDUAL_BETA1
            ),
        ]),
        *(Muon(same_shape, peak_lr=MATRIX_LEARNING_RATE) for same_shape in matrices.values()),
    ]  # fmt: skip
