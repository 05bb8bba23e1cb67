"""The judge against closed forms, and every way in which claims can be wrong."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from locked_eval.judging.judge import Rejection, Score, score

TARGETS = np.array([[0, 1, 2], [2, 3, 0]], dtype=np.uint16)
BYTES = np.array([1, 2, 4, 0], dtype=np.uint16)  # token 3 is the beginning-of-text token


def claims(values):
    return np.asarray(values, dtype="<f4").tobytes()


def test_a_uniform_model_scores_log2_of_the_vocabulary_per_token():
    result = score(claims([-math.log(4)] * 6), TARGETS, BYTES)
    assert isinstance(result, Score)
    assert result.num_tokens == 5
    assert result.num_bytes == 1 + 2 + 4 + 4 + 1
    assert result.val_bpb == pytest.approx(2 * 5 / 12, rel=1e-6)


def test_tokens_that_are_no_text_count_neither_way():
    honest = score(claims([-1, -1, -1, -1, -1, -1]), TARGETS, BYTES)
    other = score(claims([-1, -1, -1, -1, -50, -1]), TARGETS, BYTES)
    assert honest.val_bpb == other.val_bpb


def test_a_perfect_model_scores_zero():
    assert score(claims([0.0, -0.0, 0, 0, 0, 0]), TARGETS, BYTES).val_bpb == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (claims([-1] * 5), "20 bytes of claims instead of 24"),
        (claims([-1] * 7), "28 bytes of claims instead of 24"),
        (b"", "0 bytes of claims"),
        (claims([-1] * 5) + b"xyz", "23 bytes"),
        (claims([-1, -1, math.nan, -1, -1, -1]), "1 claims are not finite"),
        (claims([-math.inf] * 6), "6 claims are not finite"),
        (claims([-1, 1e-6, -1, -1, -1, -1]), "1 claims are probabilities above 1"),
    ],
)
def test_claims_that_no_model_makes_are_rejected_with_the_reason(data, reason):
    result = score(data, TARGETS, BYTES)
    assert isinstance(result, Rejection)
    assert reason in result.reason
    assert result.claims_sha256 == hashlib.sha256(data).hexdigest()


def test_a_rejection_stands_even_when_the_bad_claim_would_not_count():
    result = score(claims([-1, -1, -1, -1, math.nan, -1]), TARGETS, BYTES)
    assert isinstance(result, Rejection)


def test_sums_are_kept_in_double_precision():
    targets = np.zeros((1000, 1000), dtype=np.uint16)
    result = score(claims(np.full(1_000_000, -0.1)), targets, np.array([1], dtype=np.uint16))
    assert result.val_bpb == pytest.approx(float(np.float32(0.1)) / math.log(2), rel=1e-12)
