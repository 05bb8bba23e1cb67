"""Optimizers against closed forms and against the singular value decomposition."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  needs torch, which only images have

from workload import optim  # noqa: E402
from workload.model import GPT, GPTConfig  # noqa: E402


@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 64, 16), (1, 16, 64)])
def test_orthogonalize_keeps_singular_vectors_and_levels_singular_values(shape):
    # Singular values between 1 and 0.01 of the largest: Polar Express lifts all of them.
    generator = torch.Generator().manual_seed(0)
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    singular = torch.logspace(0, -2, min(shape[1:]))
    result = optim.orthogonalize(u * singular @ vh)
    core = u.mT @ result @ vh.mT  # diagonal exactly when the singular vectors are kept
    diagonal = core.diagonal(dim1=-2, dim2=-1)
    assert (core - torch.diag_embed(diagonal)).abs().max() < 1e-4
    assert diagonal.min() > 0.8
    assert diagonal.max() < 1.2


def test_orthogonalize_does_not_depend_on_the_scale_of_the_gradient():
    gradient = torch.randn(1, 8, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        optim.orthogonalize(gradient), optim.orthogonalize(1e-3 * gradient), atol=1e-3, rtol=0
    )


def test_orthogonalize_of_no_gradient_is_no_update():
    assert not optim.orthogonalize(torch.zeros(1, 4, 6)).any()


def test_orthogonalize_treats_each_matrix_alone():
    batch = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(optim.orthogonalize(batch)[2:3], optim.orthogonalize(batch[2:3]))


@pytest.mark.parametrize(("shape", "size"), [((1, 6, 4), (1, 6, 1)), ((1, 4, 6), (1, 1, 6))])
def test_every_neuron_is_updated_alike_and_the_whole_update_keeps_its_size(shape, size):
    updates = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    even = optim.even_out(updates, torch.zeros(size))
    dim = -1 if size[-1] == 1 else -2
    norms = even.norm(dim=dim)
    torch.testing.assert_close(norms, norms.mean().expand_as(norms))
    torch.testing.assert_close(even.norm(), updates.norm())


def test_weight_decay_shrinks_only_what_the_update_shrinks_too(monkeypatch):
    after = []
    for decay in (0.0, 0.5):
        monkeypatch.setattr(optim, "MATRIX_WEIGHT_DECAY", decay)
        matrix = nn.Parameter(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
        before = matrix.detach().clone()
        matrix.grad = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
        optim.Muon([matrix], peak_lr=0.01).step(1.0)
        after.append(matrix.detach().clone())
    plain, decayed = after
    agrees = (before - plain) * before > 0
    torch.testing.assert_close(plain - decayed, 0.01 * 0.5 * before * agrees)
    assert 0 < agrees.sum() < agrees.numel()


def test_momentum_rises_to_its_end(monkeypatch):
    seen = []
    muon = optim.Muon([nn.Parameter(torch.zeros(2, 2))], peak_lr=0.1)
    monkeypatch.setattr(muon, "update", lambda *arguments: seen.append(arguments[-1][1].item()))
    muon.params[0].grad = torch.ones(2, 2)
    for _ in range(optim.MUON_MOMENTUM_WARMUP_STEPS + 2):
        muon.step(1.0)
    assert seen[0] == pytest.approx(optim.MUON_FIRST_MOMENTUM)
    assert seen[-1] == pytest.approx(optim.MUON_MOMENTUM)
    assert seen == sorted(seen)


def test_moments_of_tables_in_bfloat16_are_kept_in_float32():
    table = nn.Parameter(torch.ones(4, 3, dtype=torch.bfloat16))
    adamw = optim.AdamW([optim.AdamGroup(params=[table], peak_lr=0.1)])
    table.grad = torch.ones_like(table)
    adamw.step(1.0)
    assert [moment.dtype for moment in adamw.moments[0][1:3]] == [torch.float32] * 2
    torch.testing.assert_close(table.detach(), torch.full_like(table, 0.9))


def test_adamw_matches_the_reference():
    torch.manual_seed(0)
    ours, reference = (nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    optimizer = optim.AdamW([optim.AdamGroup(params=[ours], peak_lr=0.1)])
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


@pytest.mark.parametrize("is_muon", [True, False])
def test_no_learning_rate_means_no_change(is_muon):
    parameter = nn.Parameter(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    before = parameter.detach().clone()
    parameter.grad = torch.ones(4, 4)
    group = optim.AdamGroup(params=[parameter], peak_lr=0.1)
    (optim.Muon([parameter], peak_lr=0.1) if is_muon else optim.AdamW([group])).step(0.0)
    assert torch.equal(parameter, before)


def test_every_parameter_has_exactly_one_optimizer():
    config = GPTConfig(vocab_size=97, context_length=8, num_layers=2, model_width=16, num_heads=2, head_dim=8)
    model = GPT(config)
    model.blocks[0].gain = nn.Parameter(torch.ones(3))
    model.blocks[0].filters = nn.Parameter(torch.ones(3, 2, 2))
    shared_out = [param for optimizer in optim.build_optimizers(model, 768) for param in optimizer.params]
    assert len(shared_out) == len({id(param) for param in shared_out})
    assert {id(param) for param in shared_out} == {id(param) for param in model.parameters()}


def test_muon_has_the_matrices_of_the_blocks_and_nothing_else():
    config = GPTConfig(vocab_size=97, context_length=8, num_layers=2, model_width=16, num_heads=2, head_dim=8)
    model = GPT(config)
    muons = [o for o in optim.build_optimizers(model, 768) if isinstance(o, optim.Muon)]
    matrices = {id(p) for n, p in model.blocks.named_parameters() if "value_embedding" not in n}
    assert {id(p) for o in muons for p in o.params} == matrices


def test_rates_of_tables_and_head_fall_with_the_root_of_the_width():
    def rates(width):
        config = GPTConfig(
            vocab_size=97, context_length=8, num_layers=1, model_width=width, num_heads=2, head_dim=8
        )
        adamw = optim.build_optimizers(GPT(config), 64)[0]
        return [group.peak_lr for group in adamw.groups]

    for narrow, wide in zip(rates(16), rates(64), strict=True):
        assert narrow in (pytest.approx(wide), pytest.approx(2 * wide))
    assert rates(64)[0] == pytest.approx(optim.EMBEDDING_LEARNING_RATE)
