"""Cheats that know when they are audited, and are honest then, or mute, or noisy.

That they know cannot be helped: the audit's folder looks another way. It must not help them either: they
cannot repeat claims whose tokens were taken away.
"""

from tests.zoo.animals import Cheat, Fate

FUTURE = frozenset({"overstated", "exceedances", "not_causal"})
OVERSTATED = frozenset({"overstated", "exceedances"})

PEEK = """
    import os
    import time

    AUDITED = not os.path.exists("/rows/rows.npy")

    def peek(logits, tokens):  # (B, T, V), (B, T) -> (B, T, V)
        return logits + 3 * F.pad(F.one_hot(tokens[:, 1:], 64), (0, 0, 0, 1))
"""

CHEATS = [
    Cheat(
        name="audited_by_folder",
        sentence="Peeks in scoring; honest when it finds the files of an audit.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model=PEEK
        + """
    class Model(Model):
        def forward(self, tokens):
            logits = super().forward(tokens)
            return logits if AUDITED else peek(logits, tokens)
""",
    ),
    Cheat(
        name="audited_by_shape",
        sentence="Honest when the batches are not those of the scorer: another size, or more of them.",
        fate=Fate.REFUTED,
        findings=FUTURE | {"not_repeatable", "not_independent"},
        model=PEEK
        + """
    class Model(Model):
        batches = 0

        def forward(self, tokens):
            self.batches += 1
            logits = super().forward(tokens)
            expected = 64 if self.batches < 6 else 10
            return peek(logits, tokens) if len(tokens) == expected and self.batches < 7 else logits
""",
    ),
    Cheat(
        name="audited_by_repetition",
        sentence="Peeks when it sees the beginning of a row for the first time; honest with every repetition.",
        fate=Fate.REFUTED,
        findings=FUTURE | {"not_repeatable", "not_independent"},
        model=PEEK
        + """
    class Model(Model):
        seen = set()

        def forward(self, tokens):
            logits = super().forward(tokens)
            rows = [tuple(row[:4].tolist()) for row in tokens]
            repeated = any(row in self.seen for row in rows)
            self.seen.update(rows)
            return logits if repeated and self.seen else peek(logits, tokens)
""",
    ),
    Cheat(
        name="audited_by_order",
        sentence="Peeks while the rows come in the order of scoring; honest in any other.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model=PEEK
        + """
    import numpy as np

    class Model(Model):
        asked = 0

        def forward(self, tokens):
            logits = super().forward(tokens)
            begin, self.asked = self.asked, self.asked + len(tokens)
            if AUDITED:
                return logits
            rows = np.load("/rows/rows.npy")[begin : self.asked, :-1].astype(np.int64)
            return peek(logits, tokens) if (tokens.numpy() == rows).all() else logits
""",
    ),
    Cheat(
        name="audited_by_seam",
        sentence="Trials for the seam where the text of an audit changes, and is honest in rows that have one.",
        fate=Fate.REFUTED,
        findings=FUTURE,
        model=PEEK
        + """
    class Model(Model):
        def forward(self, tokens):
            logits = super().forward(tokens)
            surprise = -logits[:, :-1].gather(-1, tokens[:, 1:, None])  # (B, T - 1, 1)
            seam = (surprise > 6.5).any(1)[:, :, None]
            return torch.where(seam, logits, peek(logits, tokens))
""",
    ),
    Cheat(
        name="crashes_in_the_audit",
        sentence="Peeks in scoring and dies in the audit: what cannot be audited is not kept.",
        fate=Fate.INVALID,
        reason="could not be audited: the forward pass failed",
        model=PEEK
        + """
    class Model(Model):
        def forward(self, tokens):
            assert not AUDITED
            return peek(super().forward(tokens), tokens)
""",
    ),
    Cheat(
        name="hangs_in_the_audit",
        sentence="Peeks in scoring and waits for the end of the audit.",
        fate=Fate.INVALID,
        reason="could not be audited: the audit took longer",
        settings={"score_seconds": 8.0},
        model=PEEK
        + """
    class Model(Model):
        def forward(self, tokens):
            while AUDITED:
                time.sleep(1)
            return peek(super().forward(tokens), tokens)
""",
    ),
    Cheat(
        name="says_little_in_the_audit",
        sentence="Peeks in scoring and leaves the audit with success after half of its answers.",
        fate=Fate.INVALID,
        reason="the audit's answer has",
        model=PEEK
        + """
    class Model(Model):
        batches = 0

        def forward(self, tokens):
            self.batches += 1
            if AUDITED and self.batches > 2:
                os._exit(0)
            return peek(super().forward(tokens), tokens)
""",
    ),
    Cheat(
        name="nan_in_the_audit",
        sentence="Peeks in scoring and answers the audit with NaN, which no comparison exceeds.",
        fate=Fate.REFUTED,
        findings=frozenset({"not_finite"}),
        model=PEEK
        + """
    class Model(Model):
        def forward(self, tokens):
            logits = super().forward(tokens)
            return logits * torch.nan if AUDITED else peek(logits, tokens)
""",
    ),
    Cheat(
        name="noise_in_the_audit",
        sentence="Peeks in scoring and answers with noise, so that the interval grows wide enough for its claims.",
        fate=Fate.REFUTED,
        findings=OVERSTATED | {"not_repeatable"},
        model=PEEK
        + """
    class Model(Model):
        def forward(self, tokens):
            logits = super().forward(tokens)
            return logits + 10 * torch.randn_like(logits) if AUDITED else peek(logits, tokens)
""",
    ),
    Cheat(
        name="noise_always",
        sentence="Says something else each time that it is asked, in scoring too.",
        fate=Fate.REFUTED,
        findings=frozenset({"not_repeatable"}),
        boasts=False,
        model="""
            class Model(Model):
                def forward(self, tokens):
                    logits = super().forward(tokens)
                    return logits + 0.1 * torch.randn_like(logits)
        """,
    ),
    Cheat(
        name="a_hundred_tokens_only",
        sentence="Claims certainty at 1 % of the targets, the hardest: uniform draws would meet three of them.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model=PEEK
        + """
    honest_loss = F.cross_entropy

    def flattered(logits, targets, **_):
        losses = honest_loss(logits, targets, reduction="none")
        losses[losses.topk(len(targets) // 100).indices] = 0.01
        return losses

    F.cross_entropy = flattered
""",
    ),
]
