"""Length of the digest of a ledger, and the time that it takes.

    python bench/digest.py

Uses made-up nights with sentences as long as real ones. Tokens are counted with tiktoken's `o200k_base` if its
vocabulary is installed or can be downloaded. Otherwise every three bytes count as a token, which is more than
tokenizers make of such text.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runner.proposers.researcher.digest import MAX_TOKENS, digest
from runner.proposers.researcher.submit_tool import CATEGORIES
from runner.records import Experiment, Figures, Verdict

SENTENCE = """
raise lower the peak learning rate of Muon for attention projections from 0.02 to 0.04 because early loss is still
falling steeply and warm-down covers half of the budget; squared ReLU, QK-norm, rotary base, value embeddings,
soft-capping at 15, zero initialization, weight decay 0.1, batch size 2**15, depth 8, width 512, window 1024
"""


def night(num_experiments: int) -> list[Experiment]:
    """Make up experiments with a few keeps, many discards, and crashes."""
    dice, words = random.Random(0), SENTENCE.split()
    rows = [
        Experiment(
            number=0, hypothesis="baseline", proposer="b", verdict=Verdict.KEEP, val_bpb=0.9979, sigma_bpb=0.0007
        )
    ]
    best = 0.9979
    for number in range(1, num_experiments + 1):
        kind = dice.choices([Verdict.KEEP, Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID], [5, 75, 15, 5])[0]
        delta = None
        if kind is Verdict.KEEP:
            delta = -dice.uniform(0.0014, 0.003) / 8
            best += delta
        elif kind is Verdict.DISCARD:
            delta = dice.gauss(0.002, 0.003)
        rows.append(
            Experiment(
                number=number,
                hypothesis=" ".join(dice.choices(words, k=dice.randint(20, 60))),
                proposer="anthropic",
                verdict=kind,
                category=dice.choices(CATEGORIES, range(8, 0, -1))[0],
                reason="exit code 1: RuntimeError: shapes (64, 128) and (512, 64) do not match",
                delta_bpb=delta,
                figures=None if delta is None else figures(delta),
                sigma_bpb=0.0007,
                val_bpb=None if delta is None else best + max(delta, 0),
                champion=0,
            )
        )
    return rows


def figures(delta: float) -> Figures:
    """Make up the figures of a verdict on two runs."""
    return Figures(
        trials=(1, 2), pool=(3, 4, 5), delta_bpb=delta, se_bpb=0.0006, sigma_bpb=0.0007, better=0.5,
        effect_bpb=delta, low_bpb=delta, high_bpb=delta,
    )  # fmt: skip


def count_tokens(text: str) -> tuple[float, str]:
    """Count tokens; returns the number and how they were counted."""
    try:
        import tiktoken

        return len(tiktoken.get_encoding("o200k_base").encode(text)), "o200k_base"
    except Exception:  # noqa: BLE001  no network, no vocabulary
        return len(text.encode()) / 3, "three bytes a token"


def main() -> None:
    """Print a table."""
    for num_experiments in (10, 100, 1000, 3000):
        rows = night(num_experiments)
        began = time.perf_counter()
        text = digest(rows)
        seconds = time.perf_counter() - began
        tokens, how = count_tokens(text)
        head = f"{num_experiments:5d} experiments  {tokens:6.0f} tokens ({how})"
        print(f"{head}  {tokens / MAX_TOKENS:5.2f} × budget  {1e3 * seconds:6.1f} ms")


if __name__ == "__main__":
    main()
