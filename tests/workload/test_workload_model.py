"""The promises of the contract: causal, row by row, and the same after a round trip through a file."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from workload.model import GPT, GPTConfig, load, save  # noqa: E402  needs torch, which only images have

CONFIG = GPTConfig(vocab_size=97, context_length=24, num_layers=2, model_width=32, num_heads=2, head_dim=16)


@pytest.fixture
def model():
    """A model whose every weight matters: the zero matrices of a fresh one would hide its attention."""
    torch.manual_seed(0)
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def tokens():
    return torch.randint(CONFIG.vocab_size, (3, CONFIG.context_length), generator=torch.Generator().manual_seed(1))


def logits_of(model, tokens):
    with torch.inference_mode():
        return model(tokens)


def test_logits_are_one_finite_float_per_token_of_the_vocabulary(model, tokens):
    logits = logits_of(model, tokens)
    assert logits.shape == (3, CONFIG.context_length, CONFIG.vocab_size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("position", [0, 7, CONFIG.context_length - 2])
def test_later_tokens_leave_earlier_logits_bit_equal(model, tokens, position):
    changed = tokens.clone()
    changed[:, position + 1 :] = (changed[:, position + 1 :] + 1) % CONFIG.vocab_size
    before, after = logits_of(model, tokens), logits_of(model, changed)
    assert torch.equal(before[:, : position + 1], after[:, : position + 1])
    assert not torch.equal(before[:, position + 1 :], after[:, position + 1 :])


def test_an_earlier_token_reaches_later_logits(model, tokens):
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % CONFIG.vocab_size
    assert not torch.equal(logits_of(model, tokens)[:, -1], logits_of(model, changed)[:, -1])


def test_the_order_of_earlier_tokens_matters(model, tokens):
    swapped = tokens.clone()
    swapped[:, [2, 3]] = tokens[:, [3, 2]]
    assert not torch.equal(logits_of(model, tokens)[:, -1], logits_of(model, swapped)[:, -1])


def test_other_rows_leave_a_row_bit_equal(model, tokens):
    changed = tokens.clone()
    changed[1:] = (changed[1:] + 1) % CONFIG.vocab_size
    assert torch.equal(logits_of(model, tokens)[0], logits_of(model, changed)[0])


def test_the_same_input_gives_the_same_logits(model, tokens):
    assert torch.equal(logits_of(model, tokens), logits_of(model, tokens))


def test_a_row_may_be_shorter_than_the_context(model, tokens):
    torch.testing.assert_close(logits_of(model, tokens[:, :5]), logits_of(model, tokens)[:, :5])


def test_a_saved_model_comes_back_with_identical_logits(model, tokens, tmp_path):
    save(model, tmp_path / "checkpoint")
    loaded = load(tmp_path / "checkpoint", torch.device("cpu"))
    assert not loaded.training
    assert loaded.config == CONFIG
    assert torch.equal(logits_of(model, tokens), logits_of(loaded, tokens))


def test_heads_need_not_fill_the_width(tokens):
    config = GPTConfig(vocab_size=97, context_length=24, num_layers=1, model_width=40, num_heads=3, head_dim=8)
    assert logits_of(GPT(config), tokens).shape == (3, 24, 97)


def test_attention_depends_on_distance_alone(model):
    # The same token everywhere: only positions could tell one row position from the next, and a
    # relative encoding cannot, since every value vector is the same.
    row = torch.full((1, CONFIG.context_length), 5)
    logits = logits_of(model, row)
    torch.testing.assert_close(logits[:, 1:], logits[:, :1].expand_as(logits[:, 1:]))


def test_flops_are_six_per_weight_and_the_attention_beside_them():
    # Per block q, k, v, o of 32 × 32 and an MLP of 2 · 32 · 128; a head of 97 × 32; T 24.
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 128) + 97 * 32
    assert GPT(CONFIG).flops_per_token() == 6 * weights + 12 * 2 * 32 * 24
