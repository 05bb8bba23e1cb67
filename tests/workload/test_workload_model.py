"""The promises of the contract: causal, row by row, and the same after a round trip through a file."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from workload.model import GPT, GPTConfig, load, save  # noqa: E402  needs torch, which only images have

CONFIG = GPTConfig(
    vocab_size=97, context_length=24, num_layers=2, model_width=32, num_heads=2, head_dim=16, windows="SL"
)


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
    # Per block q, k, v, o of 32 × 32 and an MLP of 2 · 32 · 128; a gate of 32 × 2; a head of 97 × 32.
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 128) + 32 * 2 + 97 * 32
    assert GPT(CONFIG).flops_per_token() == 6 * weights + 12 * 32 * (12 + 24)


def test_every_second_block_has_value_embeddings_and_the_last_is_one_of_them():
    config = replace(CONFIG, num_layers=5, windows="SSSL")
    assert [config.has_value_embedding(layer) for layer in range(5)] == [True, False, True, False, True]
    assert [config.window(layer) for layer in range(5)] == [12, 12, 12, 24, 24]


def test_a_short_window_hides_what_is_farther_away():
    torch.manual_seed(0)
    model = GPT(replace(CONFIG, num_layers=3, windows="S", value_embeddings=False))
    torch.nn.init.normal_(model.blocks[0].attention.output.weight)
    torch.nn.init.normal_(model.head.weight)
    row = torch.zeros(1, CONFIG.context_length, dtype=torch.int64)
    changed = row.clone()
    changed[0, 3] = 1
    same = (logits_of(model, row) == logits_of(model, changed)).all(-1)[0]
    assert same.tolist() == [not 3 <= t <= 3 + 12 for t in range(CONFIG.context_length)]


def test_a_model_with_tables_in_bfloat16_comes_back_with_identical_logits(model, tokens, tmp_path):
    model.store_embeddings_as(torch.bfloat16)
    save(model, tmp_path / "checkpoint")
    loaded = load(tmp_path / "checkpoint", torch.device("cpu"))
    assert loaded.embedding.weight.dtype == torch.bfloat16
    assert torch.equal(logits_of(model, tokens), logits_of(loaded, tokens))


def test_logits_stay_below_their_cap(model, tokens):
    torch.nn.init.normal_(model.head.weight, std=10.0)
    assert logits_of(model, tokens).abs().max() <= 15.0
    uncapped = GPT(replace(CONFIG, logit_softcap=0.0))
    uncapped.load_state_dict(model.state_dict())
    assert logits_of(uncapped, tokens).abs().max() > 15.0
