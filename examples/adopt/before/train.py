"""A small GPT, trained for a fixed time: one file, constants on top, its own data loader, its own evaluation."""

import math
import time

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

VOCAB_SIZE = 2048
CONTEXT = 128
DEPTH = 2
WIDTH = 64
HEADS = 2
BATCH = 16
TIME_BUDGET = 20.0  # seconds
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01
WARMDOWN = 0.4  # share of the time
EVAL_BATCHES = 20


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
        loss = None
        if targets is not None:
            loss = F.cross_entropy(logits.view(-1, VOCAB_SIZE), targets.reshape(-1))
        return logits, loss


class Loader:
    """Random windows of one long file of tokens."""

    def __init__(self, path, batch):
        self.data = np.memmap(path, dtype=np.uint16, mode="r")
        self.batch = batch

    def next(self):
        starts = torch.randint(len(self.data) - CONTEXT - 1, (self.batch,))
        rows = np.stack([self.data[s : s + CONTEXT + 1] for s in starts.tolist()]).astype(np.int64)
        rows = torch.from_numpy(rows).to(device)
        return rows[:, :-1], rows[:, 1:]


def lr_at(progress):
    return LEARNING_RATE * min(1.0, (1.0 - progress) / WARMDOWN)


torch.manual_seed(1337)
device = "cuda" if torch.cuda.is_available() else "cpu"
model = TinyGPT().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
train_loader = Loader("data/train.bin", BATCH)
val_loader = Loader("data/val.bin", BATCH)

started = time.time()
step = 0
while True:
    progress = (time.time() - started) / TIME_BUDGET
    if progress >= 1.0:
        break
    for group in optimizer.param_groups:
        group["lr"] = lr_at(progress)
    x, y = train_loader.next()
    _, loss = model(x, y)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if step % 50 == 0:
        print(f"step {step} loss {loss.item():.3f}", flush=True)
    step += 1

model.eval()
with torch.no_grad():
    losses = [model(*val_loader.next())[1].item() for _ in range(EVAL_BATCHES)]
val_loss = sum(losses) / len(losses)
print(f"steps {step} validation loss {val_loss:.4f} nats, {val_loss / math.log(2):.4f} bits a token")
torch.save(model.state_dict(), "model.pt")
