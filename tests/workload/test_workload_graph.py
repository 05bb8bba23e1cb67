"""The program as CUDA compiles it, traced on a CPU: one graph for the model, and few for the optimizers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from workload import optim  # noqa: E402  needs torch, which only images have
from workload.attention import make_block_mask  # noqa: E402
from workload.model import GPT, GPTConfig  # noqa: E402

CPU = torch.device("cpu")
CONFIG = GPTConfig(
    vocab_size=97, context_length=24, num_layers=4, model_width=32, num_heads=2, head_dim=16, windows="SSSL"
)


class Counting:
    """A compiler that runs what it gets, and counts it."""

    def __init__(self):
        self.graphs = 0

    def __call__(self, graph, _inputs):
        self.graphs += 1
        return graph.forward


@pytest.fixture
def compiler(monkeypatch):
    torch._dynamo.reset()
    counting = Counting()

    def fused(update, _device):
        return torch.compile(update, dynamic=False, fullgraph=True, backend=counting)

    monkeypatch.setattr(optim, "fused", fused)
    return counting


@pytest.fixture
def tokens():
    return torch.randint(CONFIG.vocab_size, (3, CONFIG.context_length), generator=torch.Generator().manual_seed(1))


def test_three_steps_compile_at_most_eight_shapes_without_a_break(compiler, tokens):
    torch.manual_seed(0)
    model = GPT(CONFIG)
    model.store_embeddings_as(torch.bfloat16)
    loss = torch.compile(model.loss, dynamic=False, fullgraph=True, backend=compiler)  # a break is an error
    optimizers = optim.build_optimizers(model, 768)
    for step in range(3):
        loss(tokens, tokens).backward()
        for optimizer in optimizers:
            optimizer.step(1 - step / 3, 1 - step / 3)
        model.zero_grad()
    assert len(optimizers) + 1 <= compiler.graphs <= 8


def test_flex_attention_is_part_of_the_same_graph(compiler, tokens):
    torch.manual_seed(0)
    model = GPT(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
        expected = model.loss(tokens, tokens)
        model.use_kernel("flex")
        for layer in range(CONFIG.num_layers):
            make_block_mask(CONFIG.context_length, CONFIG.window(layer), CPU)
        found = torch.compile(model.loss, dynamic=False, fullgraph=True, backend=compiler)(tokens, tokens)
    assert compiler.graphs == 1
    torch.testing.assert_close(found, expected)
