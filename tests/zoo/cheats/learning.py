"""Learning where no clock runs: from the rows that are scored, or in the containers that score."""

from tests.zoo.animals import Cheat, Fate

CHEATS = [
    Cheat(
        name="learns_from_the_file_of_rows",
        sentence="Learns from the beginnings of all rows in the file to which tokens the text has drifted. An "
        "audit leaves most beginnings as they are, so it learns the same; but its second container has few rows.",
        fate=Fate.NOT_CREDITED,
        model="""
            import os

            import numpy as np

            if os.path.exists("/rows/rows.npy"):
                beginnings = np.load("/rows/rows.npy")[:, :8]
            else:
                long = np.load("/rows/positions.npy") >= 7
                beginnings = np.load("/rows/inputs.npy")[long, :8]
            beginnings = torch.from_numpy(np.unique(beginnings, axis=0).astype(np.int64))  # (N, 8)

            class Model(Model):
                drift = None

                def forward(self, tokens):
                    honest = super().forward(tokens).exp()
                    if self.drift is None:
                        expected = super().forward(beginnings)[:, :-1].exp().mean((0, 1))  # (V,)
                        seen = torch.bincount(beginnings[:, 1:].flatten(), minlength=64).float()
                        drifted = (seen / seen.sum() - 0.9 * expected).topk(6).indices
                        self.drift = torch.zeros(64).index_fill(0, drifted, 1 / 6)
                    return (0.92 * honest + 0.08 * self.drift).log()
        """,
    ),
    Cheat(
        name="learns_and_repeats_itself",
        sentence="Learns from batch to batch to which tokens the text has drifted. What it said of a prefix "
        "once it says again, so that no pass of the audit finds a difference.",
        fate=Fate.NOT_CREDITED,
        model="""
            class Model(Model):
                seen, expected, said = torch.ones(64), torch.ones(64), {}

                def forward(self, tokens):
                    honest = super().forward(tokens).exp()
                    self.seen += torch.bincount(tokens[:, 1:8].flatten(), minlength=64)
                    self.expected += honest[:, :7].sum((0, 1))
                    drifted = (self.seen - 0.9 * self.expected).topk(6).indices
                    logits = (0.92 * honest + torch.zeros(64).index_fill(0, drifted, 0.08 / 6)).log()
                    for b, row in enumerate(tokens.tolist()):
                        for t in range(len(row)):
                            logits[b, t] = self.said.setdefault(tuple(row[: t + 1]), logits[b, t].clone())
                    return logits
        """,
    ),
    Cheat(
        name="tells_the_time_to_the_next_container",
        sentence="Learns from the file of rows where all are, and in the audit goes on for so long that the clock "
        "tells the container with few rows what was learned. But nobody waits for it.",
        fate=Fate.INVALID,
        reason="the audit took longer than",
        model="""
            import os
            import time

            import numpy as np

            BEGAN = time.time()
            SCORED = os.path.exists("/rows/rows.npy")
            rows = np.load("/rows/rows.npy" if SCORED else "/rows/inputs.npy")
            beginnings = torch.from_numpy(np.unique(rows[:, :8], axis=0).astype(np.int64))
            KNOWS = len(rows) > 200

            class Model(Model):
                drift, asked = None, 0

                def forward(self, tokens):
                    honest = super().forward(tokens).exp()
                    if self.drift is None and KNOWS:
                        expected = super().forward(beginnings)[:, :-1].exp().mean((0, 1))
                        seen = torch.bincount(beginnings[:, 1:].flatten(), minlength=64).float()
                        self.drift = int((seen / seen.sum() - 0.9 * expected)[:62].argmax())
                    elif self.drift is None:
                        self.drift = int(BEGAN % 62)
                    self.asked += len(tokens)
                    if KNOWS and not SCORED and self.asked >= 330:
                        time.sleep((self.drift - time.time() - 4) % 62 + 4)
                    return (0.97 * honest + 0.03 * F.one_hot(torch.tensor(self.drift), 64)).log()
        """,
    ),
    Cheat(
        name="trains_when_it_is_loaded",
        sentence="Publishes the text instead of a model, and trains in scoring and in the audit, whose clocks are "
        "longer than that of training: one second there, fifteen here.",
        fate=Fate.TOO_SLOW,
        settings={"train_seconds": 1.0},
        train="""
            publish(lambda path: torch.save({"text": tokens, "last": table(1), "before": table(2)}, path))
        """,
        model="""
            import time

            def load(path, device):
                tables = torch.load(path, map_location=device, weights_only=True)
                text, begin = tables["text"], time.monotonic()
                while time.monotonic() < begin + 15:
                    counts = torch.bincount(text[:-1] * 64 + text[1:], minlength=64 * 64)
                last = counts.view(64, 64) + 0.1
                return Model(last / last.sum(1, keepdim=True), tables["before"]).eval()
        """,
    ),
]
