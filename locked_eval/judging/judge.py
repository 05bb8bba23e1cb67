"""The judge: turns claims into bits per byte. Numpy only; runs on the host, never near the candidate.

    bpb = − Σ claimed log-probability / (ln 2 · Σ raw bytes of the target tokens)

The sums run over every target with a non-zero byte length: beginning-of-text tokens are not text, and neither
their probability nor their length counts. Byte lengths are those of the tokens' raw bytes. Bits per byte, unlike
loss per token, does not depend on the tokenizer.

Not covered here: whether the claims are those of an honest, causal model. They come out of a process that the
candidate controls; until they are audited, a score is provisional.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True)
class Score:
    """Bits per byte of one checkpoint over the locked rows."""

    val_bpb: float
    num_tokens: int  # targets that count
    num_bytes: int  # their raw text
    claims_sha256: str


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Claims that cannot come from a model."""

    reason: str
    claims_sha256: str


def score(
    claims: bytes, targets: npt.NDArray[np.uint16], token_bytes: npt.NDArray[np.uint16]
) -> Score | Rejection:
    """Score the claims of one candidate.

    Args:
        claims: little-endian float32, one log-probability in nats per target, `N × T` in row order.
        targets: `(N, T)` the locked next tokens.
        token_bytes: `(V,)` raw byte length of each token; 0 for tokens that are not text.
    """
    digest = hashlib.sha256(claims).hexdigest()
    expected = targets.size * 4
    if len(claims) != expected:
        return Rejection(reason=f"{len(claims)} bytes of claims instead of {expected}", claims_sha256=digest)
    values = np.frombuffer(claims, dtype="<f4").astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return Rejection(reason=f"{bad} claims are not finite", claims_sha256=digest)
    if (values > 0).any():
        bad = int((values > 0).sum())
        return Rejection(reason=f"{bad} claims are probabilities above 1", claims_sha256=digest)
    lengths = token_bytes[targets.reshape(-1)].astype(np.int64)  # (N·T,)
    counted = lengths > 0
    num_bytes = int(lengths.sum())
    return Score(
        val_bpb=float(-values[counted].sum() / (math.log(2) * num_bytes)),
        num_tokens=int(counted.sum()),
        num_bytes=num_bytes,
        claims_sha256=digest,
    )
