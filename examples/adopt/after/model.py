"""A small GPT, trained for a fixed time: one file, constants on top, its own data loader, its own evaluation."""

import os

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

VOCAB_SIZE = 2048  # of the campaign: settings vocab_size and context_length
CONTEXT = 128
DEPTH = 2
WIDTH = 64
HEADS = 2
BATCH = 16
TIME_BUDGET = float(os.environ.get("DEADLINE_SECONDS", "0")) - 1.0  # scoring imports this without one
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
WARMDOWN = 0.4  # share of the time


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, HEADS, C // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TinyGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)

    def forward(self, idx, targets=None):
        x = self.tokens(idx) + self.positions(torch.arange(idx.size(1), device=idx.device))
        logits = self.head(self.norm(self.blocks(x)))
        if targets is None:
            return logits
        return F.cross_entropy(logits.view(-1, VOCAB_SIZE), targets.reshape(-1))


class Loader:
    """Random windows of one long file of tokens."""

    def __init__(self, paths, batch, device):
        self.data = np.concatenate([np.fromfile(path, dtype=np.uint16) for path in paths])
        self.batch, self.device = batch, device

    def next(self):
        starts = torch.randint(len(self.data) - CONTEXT - 1, (self.batch,))
        rows = np.stack([self.data[s : s + CONTEXT + 1] for s in starts.tolist()]).astype(np.int64)
        rows = torch.from_numpy(rows).to(self.device)
        return rows[:, :-1], rows[:, 1:]


def lr_at(progress):
    return LEARNING_RATE * min(1.0, (1.0 - progress) / WARMDOWN)


def load(path, device):
    """Rebuild what training published; the evaluation calls this and nothing else."""
    model = TinyGPT()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.to(device).eval()
