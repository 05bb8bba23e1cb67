"""The model: a causal transformer of the nanochat class. docs/workload.md names the source of every technique.

B rows, T tokens per row, V vocabulary, L blocks, C channels of the residual stream, H heads, D channels per head.
Scoring imports this module alone and calls `load`, so all that rebuilds a model stands in its checkpoint.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workload.attention import KERNELS

MLP_EXPANSION = 4  # hidden channels of the MLP per channel of the residual stream
ROTARY_BASE = 10000.0  # the slowest rotary channel turns once in about 2π · base tokens
QUERY_KEY_SCALE = 1.0  # times the usual 1/sqrt(D); above 1 sharpens attention, which normalized q and k bound
SHORT_WINDOW_FRACTION = 0.5  # of the context: what a block with window S sees
LOGIT_SOFTCAP = 15.0  # logits stay between ± this; 0 leaves them as they are
GATE_CHANNELS = 32  # first channels of the residual stream, which open the gates of value embeddings
EMBEDDING_INIT_STD = 1.0  # the embedding is normalized, so this sets how fast its learning rate turns it
HEAD_INIT_STD = 0.001  # nearly uniform predictions at the first step
MATRIX_INIT_GAIN = 1.0  # standard deviation of other matrices, in units of 1/sqrt(input channels)
RESIDUAL_INIT = 1.0  # of the residual stream, kept by each block
FIRST_RESIDUAL_INIT = 0.1  # of the embedding, added again by each block


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Everything that the shape of a model depends on; saved with its weights."""

    vocab_size: int
    context_length: int
    num_layers: int
    model_width: int
    num_heads: int
    head_dim: int
    mlp_expansion: float = MLP_EXPANSION
    windows: str = "L"  # a letter per block, S(hort) or L(ong), repeated; the last block is always long
    value_embeddings: bool = True  # in every second block, counted from the last
    logit_softcap: float = LOGIT_SOFTCAP

    def window(self, layer: int) -> int:
        """Return how many earlier positions a block sees."""
        short = self.windows[layer % len(self.windows)] == "S" and layer < self.num_layers - 1
        return int(self.context_length * SHORT_WINDOW_FRACTION) if short else self.context_length

    def has_value_embedding(self, layer: int) -> bool:
        """Whether a block has value embeddings."""
        return self.value_embeddings and (self.num_layers - 1 - layer) % 2 == 0


def rms_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to a root mean square of one, without a learned gain."""
    return F.rms_norm(x, (x.size(-1),))


def rotary_tables(num_positions: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, each (T, D/2) float32."""
    frequencies = ROTARY_BASE ** -(torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)  # (D/2,)
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), frequencies)  # (T, D/2)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn channel pairs (i, i + D/2) by their position's angle, so that q·k depends on distance alone.

    Args:
        x: (B, T, H, D)
        cos, sin: (T, D/2)
    """
    first, second = x.chunk(2, dim=-1)  # (B, T, H, D/2)
    cos, sin = cos[:, None, :], sin[:, None, :]  # (T, 1, D/2)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).type_as(x)


class ValueEmbedding(nn.Module):
    """A second embedding of the tokens, added to the values of one block through a gate per head."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = (config.num_heads, config.head_dim)
        self.embedding = nn.Embedding(config.vocab_size, config.num_heads * config.head_dim)
        self.gate = nn.Linear(min(GATE_CHANNELS, config.model_width), config.num_heads, bias=False)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        gate = 2 * torch.sigmoid(self.gate(x[..., : self.gate.in_features]))  # (B, T, H), 1 at first
        return gate[..., None] * self.embedding(tokens).unflatten(-1, self.heads)  # (B, T, H, D)


class Attention(nn.Module):
    """Causal self-attention over the window of one block."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = config.num_heads, config.head_dim
        self.window = config.window(layer)
        self.kernel = "sdpa"  # a training may choose a faster one
        inner = config.num_heads * config.head_dim
        self.query = nn.Linear(config.model_width, inner, bias=False)
        self.key = nn.Linear(config.model_width, inner, bias=False)
        self.value = nn.Linear(config.model_width, inner, bias=False)
        self.output = nn.Linear(inner, config.model_width, bias=False)
        self.value_embedding = ValueEmbedding(config) if config.has_value_embedding(layer) else None

    def forward(self, x: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, _ = x.shape
        heads = (B, T, self.num_heads, self.head_dim)
        q = rms_norm(rotate(self.query(x).view(heads), cos, sin))  # (B, T, H, D)
        k = rms_norm(rotate(self.key(x).view(heads), cos, sin))  # (B, T, H, D)
        v = self.value(x).view(heads)  # (B, T, H, D)
        if self.value_embedding is not None:
            v = v + self.value_embedding(tokens, x)  # (B, T, H, D)
        scale = QUERY_KEY_SCALE * self.head_dim**-0.5
        y = KERNELS[self.kernel](q.type_as(v), k.type_as(v), v, self.window, scale)  # (B, T, H, D)
        return self.output(y.reshape(B, T, -1))  # (B, T, C)


class MLP(nn.Module):
    """Two matrices around a squared ReLU."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        hidden = round(config.mlp_expansion * config.model_width)
        self.expand = nn.Linear(config.model_width, hidden, bias=False)
        self.contract = nn.Linear(hidden, config.model_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(F.relu(self.expand(x)).square())  # (B, T, C)


class Block(nn.Module):
    """Attention, then the MLP, each reading a normalized residual stream and adding to it."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(rms_norm(x), tokens, cos, sin)  # (B, T, C)
        return x + self.mlp(rms_norm(x))  # (B, T, C)


class GPT(nn.Module):
    """Token ids to logits of the next token."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.model_width)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.residual_scale = nn.Parameter(torch.empty(config.num_layers))
        self.first_residual_scale = nn.Parameter(torch.empty(config.num_layers))
        self.head = nn.Linear(config.model_width, config.vocab_size, bias=False)
        cos, sin = rotary_tables(config.context_length, config.head_dim)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Every block starts as the identity, but for a little of the embedding: what it adds starts at zero."""
        nn.init.normal_(self.embedding.weight, std=EMBEDDING_INIT_STD)
        nn.init.normal_(self.head.weight, std=HEAD_INIT_STD)
        nn.init.constant_(self.residual_scale, RESIDUAL_INIT)
        nn.init.constant_(self.first_residual_scale, FIRST_RESIDUAL_INIT)
        for block in self.blocks:
            attention, mlp = block.attention, block.mlp
            for layer in (attention.query, attention.key, attention.value, mlp.expand):
                nn.init.normal_(layer.weight, std=MATRIX_INIT_GAIN * layer.in_features**-0.5)
            nn.init.zeros_(attention.output.weight)
            nn.init.zeros_(mlp.contract.weight)
            if attention.value_embedding is not None:
                nn.init.normal_(attention.value_embedding.embedding.weight, std=self.config.model_width**-0.5)
                nn.init.zeros_(attention.value_embedding.gate.weight)

    def store_embeddings_as(self, dtype: torch.dtype) -> None:
        """Keep the tables in another precision; bfloat16 halves their traffic and their part of the checkpoint."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.to(dtype)

    def use_kernel(self, name: str) -> None:
        """Let all blocks use one of `attention.KERNELS`."""
        for block in self.blocks:
            block.attention.kernel = name

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at every position.

        Args:
            tokens: (B, T) int64, T at most `context_length`.

        Returns:
            (B, T, V) float32. Position t depends on tokens 0 … t of its own row only.
        """
        T = tokens.size(1)
        cos, sin = self.cos[:T], self.sin[:T]  # (T, D/2)
        # Here rather than in the training loop, so that training and scoring compute the same function.
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=tokens.is_cuda):
            x = self.embedding(tokens)  # (B, T, C)
            x = x.to(torch.bfloat16 if tokens.is_cuda else self.head.weight.dtype)  # half the traffic on CUDA
            x = rms_norm(x).type_as(x)
            first = x
            for layer, block in enumerate(self.blocks):
                x = (self.residual_scale[layer] * x + self.first_residual_scale[layer] * first).type_as(x)
                x = block(x, tokens, cos, sin)
            logits = self.head(rms_norm(x)).float()  # (B, T, V)
        cap = self.config.logit_softcap
        return cap * torch.tanh(logits / cap) if cap else logits

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the next tokens, nats.

        Args:
            tokens, targets: (B, T) int64
        """
        return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())

    def flops_per_token(self) -> int:
        """Floating-point operations of forward and backward for one token of a full-length row.

        6 per weight that multiplies (an embedding is a lookup), and 12 · H · D · W per block for attention, whose
        masked half is counted too: the usual convention for MFU.
        """
        config = self.config
        weights = sum(layer.weight.numel() for layer in self.modules() if isinstance(layer, nn.Linear))
        window = sum(config.window(layer) for layer in range(config.num_layers))
        return 6 * weights + 12 * config.num_heads * config.head_dim * window


def save(model: GPT, path: Path) -> None:
    """Write weights and config to one file."""
    torch.save({"config": asdict(model.config), "weights": model.state_dict()}, path)


def load(path: Path, device: torch.device) -> GPT:
    """Rebuild a saved model on `device`, in eval mode, its tables in the precision in which they were saved."""
    checkpoint = torch.load(path, map_location=device, weights_only=True)
    model = GPT(GPTConfig(**checkpoint["config"])).to(device)
    model.store_embeddings_as(checkpoint["weights"]["embedding.weight"].dtype)
    model.load_state_dict(checkpoint["weights"])
    return model.eval()
