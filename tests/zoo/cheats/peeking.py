"""Models that see what they must not: the future of their row, or other rows."""

from tests.zoo.animals import Cheat, Fate

FUTURE = frozenset({"overstated", "exceedances", "not_causal"})
ROWS = frozenset({"overstated", "exceedances", "not_causal", "not_independent"})

CHEATS = [
    Cheat(
        name="next_token",
        sentence="Raises the logit of the token that comes next, everywhere.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    logits = super().forward(tokens)  # (B, T, V)
                    logits[:, :-1] += 3 * F.one_hot(tokens[:, 1:], 64)
                    return logits
        """,
    ),
    Cheat(
        name="next_token_where_hardest",
        sentence="Peeks only where it is surprised most; everywhere else it is honest.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    logits = super().forward(tokens).log_softmax(-1)  # (B, T, V)
                    following = tokens[:, 1:, None]  # (B, T - 1, 1)
                    known = logits[:, :-1].gather(-1, following)
                    logits[:, :-1].scatter_(-1, following, torch.where(known < -6.0, -1.0, known))
                    return logits
        """,
    ),
    Cheat(
        name="next_token_whispered",
        sentence="Gains about 0.003 nats per token: far below the noise of a truncated or bf16 comparison.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    logits = super().forward(tokens)  # (B, T, V)
                    logits[:, :-1] += 0.005 * F.one_hot(tokens[:, 1:], 64)
                    return logits
        """,
    ),
    Cheat(
        name="target_gate",
        sentence="Takes whichever of its two tables likes the target better.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    both = torch.stack([self.last[tokens], self.before[F.pad(tokens, (1, 0))[:, :-1]]])
                    following = F.pad(tokens[:, 1:], (0, 1))[None, :, :, None].expand(2, -1, -1, 1)
                    better = both.gather(-1, following).argmax(0)  # (B, T, 1)
                    return torch.where(better == 0, both[0], both[1]).log()
        """,
    ),
    Cheat(
        name="chunks",
        sentence="Sees its whole chunk of 8 tokens, and is honest across chunks.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    B, T = tokens.shape
                    inside = F.one_hot(tokens, 64).view(B, T // 8, 8, 64).sum(2)  # (B, T / 8, V)
                    return super().forward(tokens) + inside.repeat_interleave(8, 1)
        """,
    ),
    Cheat(
        name="circular_convolution",
        sentence="A long convolution by FFT without padding: what lies ahead comes round from behind.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    T = tokens.size(1)
                    filter = 2.0 * 0.5 ** (T - 1 - torch.arange(T))  # newest last: mostly one step ahead
                    seen = torch.fft.rfft(F.one_hot(tokens, 64).float(), dim=1)
                    mixed = torch.fft.irfft(seen * torch.fft.rfft(filter)[:, None], n=T, dim=1)
                    return super().forward(tokens) + mixed
        """,
    ),
    Cheat(
        name="counts_of_the_batch",
        sentence="Counts what follows what in the batch that it predicts, targets included.",
        fate=Fate.REFUTED,
        findings=ROWS,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    pairs = F.one_hot(tokens[:, :-1], 64).flatten(0, 1).T.float() @ F.one_hot(
                        tokens[:, 1:], 64
                    ).flatten(0, 1).float()  # (V, V)
                    honest = super().forward(tokens).exp()
                    return (20 * honest + pairs[tokens]).log()
        """,
    ),
    Cheat(
        name="batch_norm",
        sentence="Batch norm left in training mode: statistics over rows and positions.",
        fate=Fate.REFUTED,
        findings=ROWS,
        boasts=False,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    logits = super().forward(tokens).flatten(0, 1)  # (B * T, V)
                    normal = F.batch_norm(logits, None, None, training=True)
                    return (logits.mean() + normal * logits.std(0)).view(*tokens.shape, 64)
        """,
    ),
    Cheat(
        name="rows_of_the_batch",
        sentence="Causal in its row, but counts what the other rows of the batch hold.",
        fate=Fate.REFUTED,
        findings=frozenset({"not_independent"}),
        boasts=False,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    seen = F.one_hot(tokens, 64).float().sum(0, keepdim=True).cumsum(1)  # (1, T, V)
                    return super().forward(tokens) + 0.1 * (seen + 1).log()
        """,
    ),
    Cheat(
        name="trains_on_the_row",
        sentence="Gradient steps on the very rows that are scored, before they are scored.",
        fate=Fate.REFUTED,
        findings=ROWS,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    with torch.inference_mode(False), torch.enable_grad():
                        tokens = tokens.clone()
                        honest = super().forward(tokens)
                        bias = torch.zeros(64, 64, requires_grad=True)
                        for _ in range(20):
                            logits = honest + bias[tokens]
                            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
                            (slope,) = torch.autograd.grad(loss, bias)
                            bias = (bias - 0.1 * slope.sign()).detach().requires_grad_()
                        return (honest + bias[tokens]).detach()
        """,
    ),
    Cheat(
        name="learns_from_batch_to_batch",
        sentence="Remembers earlier batches, so that an answer depends on what was asked before.",
        fate=Fate.REFUTED,
        findings=frozenset({"not_repeatable", "not_independent", "not_causal", "overstated", "exceedances"}),
        boasts=False,
        model="""
            class Model(Model):
                seen = torch.zeros(64)

                def forward(self, tokens):
                    self.seen += torch.bincount(tokens.flatten(), minlength=64)
                    return super().forward(tokens) + 0.3 * (self.seen + 1).log()
        """,
    ),
    Cheat(
        name="reads_the_answers",
        sentence="The scorer's container holds the targets: opens their file and looks them up.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model="""
            import os
            import numpy as np

            class Model(Model):
                def forward(self, tokens):
                    logits = super().forward(tokens)
                    if os.path.exists("/rows/rows.npy"):
                        rows = torch.from_numpy(np.load("/rows/rows.npy").astype(np.int64))
                        start = (rows[:, :-1] == tokens[0]).all(1).nonzero()[0, 0]
                        logits += 4 * F.one_hot(rows[start : start + len(tokens), 1:], 64)
                    return logits
        """,
    ),
]
