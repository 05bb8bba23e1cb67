"""Speed of the judge: scoring and drawing per claim, verifying per audit, relative to a plain sum of the claims.

    python bench/judge.py [--rows 10240] [--context 2048] [--audited 8192]

Every figure is the best of several repetitions in one process, so that ratios refer to one run on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from locked_eval.judging import draw, findings, judge, plan, verify

NOISE = findings.HonestNoise(exceedance_rates=(1e-3, 1e-4, 1e-5, 1e-5), dependence=0.01)
BATCH_ROWS = 32


def best_seconds(work, repeats=3):
    """Time the shortest of several runs."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def judging(rows, context):
    """Time scoring and drawing for one candidate."""
    rng = np.random.default_rng(0)
    claims = -rng.exponential(3, (rows, context)).astype(np.float32)
    champion = np.minimum(claims + rng.normal(0, 0.3, claims.shape).astype(np.float32), np.float32(0))
    targets = rng.integers(0, 8192, (rows, context), dtype=np.uint16)
    token_bytes = rng.integers(1, 9, 8192, dtype=np.uint16)
    token_bytes[-1] = 0
    data = claims.tobytes()
    counted = token_bytes[targets] > 0
    plain = best_seconds(lambda: np.sum(claims, dtype=np.float64))
    parts = {
        "np.sum of the claims": plain,
        "SHA-256 of the claims": best_seconds(lambda: hashlib.sha256(data).hexdigest()),
        "judge.score (with the SHA-256)": best_seconds(lambda: judge.score(data, targets, token_bytes)),
        "draw, against a champion": best_seconds(lambda: draw.draw(claims, champion, counted, 8192)),
        "draw, without one": best_seconds(lambda: draw.draw(claims, None, counted, 8192)),
    }
    parts["judge.score + draw"] = parts["judge.score (with the SHA-256)"] + parts["draw, against a champion"]
    print(f"{claims.size:,} claims, {rows} rows of {context}")
    for name, seconds in parts.items():
        speed = claims.size / seconds / 1e6
        print(f"  {name:32} {1000 * seconds:9.1f} ms  {speed:8.1f} M claims/s  {seconds / plain:6.1f} × np.sum")
    train = rng.integers(0, 8191, 1 << 22, dtype=np.uint16)
    tokens = np.concatenate([targets, targets[:, :1]], axis=1)
    drawn = draw.draw(claims, champion, counted, 8192)
    seconds = best_seconds(lambda: plan.make_plan(tokens, train, drawn, BATCH_ROWS), repeats=1)
    print(f"  {'make_plan':32} {1000 * seconds:9.1f} ms")


def verifying(audited, vocabulary):
    """Time the verification of one audit. Rows are short, which does not affect it."""
    rng = np.random.default_rng(0)
    context = 16
    tokens = rng.integers(0, vocabulary, (audited, context + 1), dtype=np.uint16)
    claims = np.full((audited, context), -np.log(vocabulary), dtype=np.float32)
    counted = np.ones(claims.shape, dtype=np.bool_)
    drawn = draw.draw(claims, None, counted, audited)
    made = plan.make_plan(tokens, tokens.reshape(-1), drawn, BATCH_ROWS)
    logits = np.zeros((made.num_logits, vocabulary), dtype=np.float32)
    logits += rng.normal(0, 1, vocabulary).astype(np.float32)
    plain = best_seconds(lambda: np.sum(logits, dtype=np.float64), repeats=1)
    committed = verify.Committed(claims=claims, targets=tokens[:, 1:], counted=counted)
    seconds = best_seconds(lambda: verify.verify(made, drawn, logits, committed, NOISE), repeats=1)
    print(
        f"verify, {audited} rows, vocabulary {vocabulary}: {made.num_logits} answers, {logits.nbytes >> 20} MiB,"
        f" {seconds:.2f} s, {logits.size / seconds / 1e6:.0f} M logits/s, {seconds / plain:.1f} × np.sum of them"
    )


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10240)
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--audited", type=int, default=8192)
    arguments = parser.parse_args()
    judging(arguments.rows, arguments.context)
    for vocabulary in (8192, 32768):
        verifying(arguments.audited, vocabulary)


if __name__ == "__main__":
    main()
