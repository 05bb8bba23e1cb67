"""Honest models that look strange: what an audit must not mistake for a cheat."""

from __future__ import annotations

from tests.zoo.animals import Oddity

HEAD = """
    import torch
    import torch.nn.functional as F
    from torch import nn

    V, T, C = 64, 32, 32
"""

LOAD = """
    def load(path, device):
        net = build().to(device)
        net.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        return net.eval()
"""

TRAIN = """
    import os
    from pathlib import Path

    import numpy as np
    import torch
    import torch.nn.functional as F

    from workload.checkpoint import publish
    from workload.model import build

    RATE = 0.003  # of every step, in the direction of the gradient's signs

    torch.manual_seed(int(os.environ["SEED"]))
    shards = sorted(Path(os.environ["DATA_DIR"]).glob("*.bin"))
    text = np.concatenate([np.fromfile(path, "<u2") for path in shards])
    text = torch.from_numpy(text.astype(np.int64))
    net = build()
    for _ in range(20):
        batch = text[torch.randint(len(text) - 33, (16, 1)) + torch.arange(33)]  # (B, T + 1)
        logits = net(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())
        parameters = list(net.parameters())
        with torch.no_grad():  # no torch.optim: to import it takes longer than all the rest
            for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters)):
                parameter -= RATE * slope.sign()
    publish(lambda path: torch.save(net.state_dict(), path))
"""

EMBED_AND_ATTEND = """
    class Attention(nn.Module):
        def __init__(self, window=T):
            super().__init__()
            self.mix, self.out = nn.Linear(C, 3 * C), nn.Linear(C, C)
            steps = torch.arange(T)
            distance = steps[:, None] - steps[None, :]
            self.register_buffer("mask", (distance >= 0) & (distance < window))

        def forward(self, x):  # (B, T, C)
            q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.mix(x).chunk(3, -1))
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask[: x.size(1), : x.size(1)])
            return self.out(y.transpose(1, 2).flatten(2))

    class Net(nn.Module):
        def __init__(self, window=T, dropout=0.0):
            super().__init__()
            self.embedding, self.positions = nn.Embedding(V, C), nn.Embedding(T, C)
            self.attention = Attention(window)
            self.mlp = nn.Sequential(nn.LayerNorm(C), nn.Linear(C, 4 * C), nn.GELU(), nn.Linear(4 * C, C))
            self.norm, self.dropout, self.head = nn.LayerNorm(C), nn.Dropout(dropout), nn.Linear(C, V)

        def body(self, tokens):  # (B, T) -> (B, T, C)
            x = self.embedding(tokens) + self.positions.weight[: tokens.size(1)]
            x = x + self.dropout(self.attention(F.layer_norm(x, (C,))))
            return self.norm(x + self.dropout(self.mlp(x)))

        def forward(self, tokens):  # (B, T) -> (B, T, V)
            return self.head(self.body(tokens))
"""


def oddity(name: str, sentence: str, model: str, train: str = TRAIN) -> Oddity:
    """A candidate from its `build()`; a model that defines `load` itself keeps its own."""
    return Oddity(
        name=name, sentence=sentence, model=HEAD + model + ("" if "def load" in model else LOAD), train=train
    )


ODDITIES = [
    oddity(
        name="transformer",
        sentence="Learned positions, one matrix for embedding and head, dropout that eval mode turns off.",
        model=EMBED_AND_ATTEND
        + """
    def build():
        net = Net(dropout=0.3)
        nn.init.normal_(net.embedding.weight, std=0.1)
        net.head.weight = net.embedding.weight
        return net
""",
    ),
    oddity(
        name="sliding_window",
        sentence="Attention over the last four tokens only.",
        model=EMBED_AND_ATTEND
        + """
    def build():
        return Net(window=4)
""",
    ),
    oddity(
        name="untrained",
        sentence="Publishes before the first step.",
        model=EMBED_AND_ATTEND
        + """
    build = Net
""",
        train=TRAIN.replace("range(20)", "range(0)"),
    ),
    oddity(
        name="recurrent",
        sentence="A recurrent network.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(V, C), nn.Linear(C, V)
            self.gru = nn.GRU(C, C, batch_first=True)

        def forward(self, tokens):
            return self.head(self.gru(self.embedding(tokens))[0])

    build = Net
""",
    ),
    oddity(
        name="linear_attention",
        sentence="Running sums over the row instead of attention.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.mix, self.head = nn.Embedding(V, C), nn.Linear(C, 3 * C), nn.Linear(2 * C, V)

        def forward(self, tokens):
            x = self.embedding(tokens)
            q, k, v = self.mix(x).chunk(3, -1)  # (B, T, C)
            k, q = F.elu(k) + 1, F.elu(q) + 1
            state = torch.einsum("btc,btd->btcd", k, v).cumsum(1)  # (B, T, C, C)
            scale = (q * k.cumsum(1)).sum(-1, keepdim=True)
            return self.head(torch.cat((x, torch.einsum("btc,btcd->btd", q, state) / scale), -1))

    build = Net
""",
    ),
    oddity(
        name="long_convolution",
        sentence="A padded convolution by FFT: causal, but the future reaches the past by rounding.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(V, C), nn.Linear(C, V)
            self.filter = nn.Parameter(torch.randn(T, C) * 0.1)

        def forward(self, tokens):
            x = self.embedding(tokens)  # (B, T, C)
            n = 2 * tokens.size(1)
            seen = torch.fft.rfft(x, n=n, dim=1) * torch.fft.rfft(self.filter[: tokens.size(1)], n=n, dim=0)
            return self.head(x + torch.fft.irfft(seen, n=n, dim=1)[:, : tokens.size(1)])

    build = Net
""",
    ),
    oddity(
        name="mixture_of_experts",
        sentence="Each token chooses its expert; tokens of all rows are sorted and computed together.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.router, self.head = nn.Embedding(V, C), nn.Linear(C, 4), nn.Linear(C, V)
            self.experts = nn.ModuleList(nn.Linear(C, C) for _ in range(4))

        def forward(self, tokens):
            x = self.embedding(tokens).flatten(0, 1)  # (B * T, C)
            weight, chosen = self.router(x).softmax(-1).max(-1)
            y = torch.zeros_like(x)
            for number, expert in enumerate(self.experts):
                mine = chosen == number
                y[mine] = F.relu(expert(x[mine])) * weight[mine, None]
            return self.head(x + y).unflatten(0, tokens.shape)

    build = Net
""",
    ),
    oddity(
        name="padded_vocabulary",
        sentence="80 outputs inside, of which 64 leave.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(80, C), nn.Linear(C, 80)

        def forward(self, tokens):
            return self.head(self.embedding(tokens))[..., :V]

    build = Net
""",
    ),
    oddity(
        name="bfloat16_weights",
        sentence="Weights, sums and logits of eight significant bits.",
        model=EMBED_AND_ATTEND
        + """
    def build():
        return Net().bfloat16()
""",
    ),
    oddity(
        name="autocast",
        sentence="float32 weights, bfloat16 products.",
        model=EMBED_AND_ATTEND
        + """
    class Mixed(Net):
        def forward(self, tokens):
            with torch.autocast(tokens.device.type, dtype=torch.bfloat16):
                return super().forward(tokens)

    build = Mixed
""",
    ),
    oddity(
        name="float64",
        sentence="Computes in double precision, claims are rounded.",
        model=EMBED_AND_ATTEND
        + """
    def build():
        return Net().double()
""",
    ),
    oddity(
        name="half_precision_logits",
        sentence="Returns float16.",
        model=EMBED_AND_ATTEND
        + """
    class Half(Net):
        def forward(self, tokens):
            return super().forward(tokens).half()

    build = Half
""",
    ),
    oddity(
        name="compiled",
        sentence="Traced ahead of time; another graph for the last, smaller batch.",
        model=EMBED_AND_ATTEND
        + """
    build = Net

    def load(path, device):
        net = Net()
        net.load_state_dict(torch.load(path, weights_only=True))
        return torch.compile(net.eval(), backend="aot_eager", dynamic=False)
""",
    ),
    oddity(
        name="small_batches_inside",
        sentence="Takes its rows 24 at a time, whatever it is given.",
        model=EMBED_AND_ATTEND
        + """
    class Split(Net):
        def forward(self, tokens):
            return torch.cat([super(Split, self).forward(part) for part in tokens.split(24)])

    build = Split
""",
    ),
    oddity(
        name="token_by_token",
        sentence="Keeps keys and values from step to step, as in generation, and forgets them after each call.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.mix, self.head = nn.Embedding(V, C), nn.Linear(C, 3 * C), nn.Linear(C, V)

        def forward(self, tokens):
            keys, values, logits = [], [], []
            for t in range(tokens.size(1)):
                x = self.embedding(tokens[:, t])  # (B, C)
                q, k, v = self.mix(x).chunk(3, -1)
                keys.append(k)
                values.append(v)
                weights = torch.einsum("bc,btc->bt", q, torch.stack(keys, 1)).mul(C**-0.5).softmax(-1)
                logits.append(self.head(x + torch.einsum("bt,btc->bc", weights, torch.stack(values, 1))))
            return torch.stack(logits, 1)

    build = Net
""",
    ),
    oddity(
        name="huge_logits",
        sentence="Logits of many thousands: certain, often wrong; minus infinity for a token that never comes.",
        model=EMBED_AND_ATTEND
        + """
    class Certain(Net):
        def forward(self, tokens):
            logits = super().forward(tokens) * 1000 + 5000
            return logits + torch.zeros(V).index_fill(0, torch.tensor(62), -torch.inf)

    build = Certain
""",
        train=TRAIN.replace("RATE = 0.003", "RATE = 0.00001"),
    ),
    oddity(
        name="tiny_logits",
        sentence="Hardly anything but uniform.",
        model=EMBED_AND_ATTEND
        + """
    class Shy(Net):
        def forward(self, tokens):
            return super().forward(tokens) * 1e-4

    build = Shy
""",
    ),
    oddity(
        name="bigram",
        sentence="One table, nothing else.",
        model="""
    def build():
        return nn.Embedding(V, V)
""",
    ),
    oddity(
        name="strange_strides",
        sentence="Logits that lie in memory the other way round.",
        model="""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(V, C), nn.Linear(C, V, bias=False)

        def forward(self, tokens):
            x = self.embedding(tokens).flatten(0, 1)  # (B * T, C)
            return (self.head.weight @ x.T).unflatten(1, tokens.shape).movedim(0, -1)

    build = Net
""",
    ),
]
