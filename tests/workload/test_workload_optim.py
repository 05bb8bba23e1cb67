"""Optimizers against closed forms and against the singular value decomposition."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  needs torch, which only images have

from workload import optim  # noqa: E402
from workload.model import GPT, GPTConfig  # noqa: E402


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 64, 16), (1, 16, 64)])
def test_newton_schulz_keeps_singular_vectors_and_levels_singular_values(shape):
    # Singular values between 1 and 0.1, as the polynomial only lifts what is not far below the largest.
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    singular = torch.linspace(1.0, 0.1, min(shape[1:]))
    result = optim.newton_schulz(u * singular @ vh)
    core = u.mT @ result @ vh.mT  # diagonal exactly when the singular vectors are kept
    diagonal = core.diagonal(dim1=-2, dim2=-1)
    assert (core - torch.diag_embed(diagonal)).abs().max() < 1e-4
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    assert (result - u @ vh).norm() / (u @ vh).norm() < 0.3


def test_newton_schulz_does_not_depend_on_the_scale_of_the_gradient():
    gradient = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        optim.newton_schulz(gradient), optim.newton_schulz(1e-3 * gradient), atol=1e-3, rtol=0
    )


def test_newton_schulz_of_no_gradient_is_no_update():
    assert not optim.newton_schulz(torch.zeros(1, 4, 6)).any()


def test_newton_schulz_treats_each_matrix_alone():
    batch = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(optim.newton_schulz(batch)[2:3], optim.newton_schulz(batch[2:3]))


def test_adamw_matches_the_reference():
    torch.manual_seed(0)
    ours, reference = (nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    optimizer = optim.AdamW([ours], peak_lr=0.1)
    expected = torch.optim.AdamW(
        [reference],
        lr=0.1,
        betas=(optim.ADAM_BETA1, optim.ADAM_BETA2),
        eps=optim.ADAM_EPSILON,
        weight_decay=optim.ADAM_WEIGHT_DECAY,
    )
    for _ in range(5):
        ours.grad = torch.randn(5, 3)
        reference.grad = ours.grad.clone()
        optimizer.step(1.0)
        expected.step()
    torch.testing.assert_close(ours, reference)


def test_muon_moves_a_matrix_by_the_learning_rate_in_every_direction():
    torch.manual_seed(0)
    matrix = nn.Parameter(torch.zeros(16, 16))
    matrix.grad = torch.linalg.qr(torch.randn(16, 16)).Q  # orthogonal already: all singular values equal
    optim.Muon([matrix], peak_lr=0.5).step(0.1)
    steps = torch.linalg.svdvals(matrix.detach()) / (0.5 * 0.1)
    assert 0.6 < steps.min() <= steps.max() < 1.3
    assert (matrix * matrix.grad).sum() < 0  # downhill


@pytest.mark.parametrize("name", ["Muon", "AdamW"])
def test_no_learning_rate_means_no_change(name):
    parameter = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    before = parameter.detach().clone()
    parameter.grad = torch.ones(4, 4)
    getattr(optim, name)([parameter], peak_lr=0.1).step(0.0)
    assert torch.equal(parameter, before)


def test_every_parameter_has_exactly_one_optimizer():
    config = GPTConfig(vocab_size=97, context_length=8, num_layers=2, model_width=16, num_heads=2, head_dim=8)
    model = GPT(config)
    model.blocks[0].gain = nn.Parameter(torch.ones(3))
    model.blocks[0].filters = nn.Parameter(torch.ones(3, 2, 2))
    shared_out = [param for optimizer in optim.build_optimizers(model) for param in optimizer.params]
    assert len(shared_out) == len({id(param) for param in shared_out})
    assert {id(param) for param in shared_out} == {id(param) for param in model.parameters()}


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else():
    config = GPTConfig(vocab_size=97, context_length=8, num_layers=2, model_width=16, num_heads=2, head_dim=8)
    model = GPT(config)
    muons = [o for o in optim.build_optimizers(model) if isinstance(o, optim.Muon)]
    assert {id(p) for o in muons for p in o.params} == {id(p) for p in model.blocks.parameters()}
