"""The split that each document belongs to.

- Free source: a document's split follows from the hash of its words and from nothing else about it, so the same
  document goes the same way wherever it lies. Test takes about 5 % of the bytes and validation 10 %, less when
  that many rows are not wanted, more when a corpus is small.
- Pinned source: its folders determine the splits. Without a `test/`, half of `validation/` by hash becomes the
test
  split.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.documents import Codes, Corpus, PrepareError, Split

MIN_EVAL_ROWS = 8
"""Fewer rows are no measurement."""
VALIDATION_SHARE = 0.10
TEST_SHARE = 0.05
MAX_BYTES_PER_TOKEN = 6
"""For sizing a split in bytes before a tokenizer exists: English needs 3.6 to 4.8, the rest is slack."""

_NO_WORDS = int.from_bytes(hashlib.blake2b(b"", digest_size=8).digest(), "big")


def assign(corpus: Corpus, row_tokens: int, max_rows: int) -> Codes:
    """Assign a `Split` to every document, by hash; exact duplicates are kept once, in the most sealed split.

    Args:
        row_tokens: tokens of one row of validation or test, context length + 1.
        max_rows: rows wanted of each of the two.

    Returns: `(D,)` codes.

    Raises:
        PrepareError: there is too little text for the rows, or too few documents to give each split one.
    """
    codes = np.full(len(corpus.sizes), Split.TRAIN, np.uint8)
    codes[corpus.digests == np.uint64(_NO_WORDS)] = Split.EMPTY
    # Sealed first: of equal documents the one in `test/` stays, else the one in `validation/`.
    order = np.lexsort((np.arange(len(codes)), -corpus.pinned.astype(np.int64)))
    order = order[codes[order] != Split.EMPTY]
    kept = order[np.unique(corpus.digests[order], return_index=True)[1]]
    duplicate = codes != Split.EMPTY
    duplicate[kept] = False
    codes[duplicate] = Split.DUPLICATE

    by_hash = kept[np.argsort(corpus.digests[kept])]
    least = MIN_EVAL_ROWS * row_tokens * MAX_BYTES_PER_TOKEN
    most = max_rows * row_tokens * MAX_BYTES_PER_TOKEN
    total = int(corpus.sizes[kept].sum())
    if total == 0:
        raise PrepareError("the source has no words: every document is empty")
    if corpus.is_pinned:
        _assign_pinned(corpus, by_hash, codes, most)
    else:
        _assign_free(corpus, by_hash, codes, total, least, most)
    return codes


def _assign_pinned(corpus: Corpus, by_hash: npt.NDArray[np.int64], codes: Codes, most: int) -> None:
    pinned, sizes = corpus.pinned[by_hash], corpus.sizes
    validation, test = by_hash[pinned == Split.VALIDATION], by_hash[pinned == Split.TEST]
    if not len(test):
        half = int(sizes[validation].sum()) // 2
        cut = int(np.searchsorted(np.cumsum(sizes[validation]), half, side="right"))
        test, validation = validation[:cut], validation[cut:]
    for numbers, split in ((validation, Split.VALIDATION), (test, Split.TEST)):
        before = np.cumsum(sizes[numbers]) - sizes[numbers]
        codes[numbers] = np.where(before < most, split, Split.UNUSED)


def _assign_free(
    corpus: Corpus, by_hash: npt.NDArray[np.int64], codes: Codes, total: int, least: int, most: int
) -> None:
    if total < 4 * least:
        raise PrepareError(
            f"not enough text: {total:,} bytes, and {MIN_EVAL_ROWS} rows each for validation and test "
            f"need a corpus of {4 * least:,} bytes or more"
        )
    for split, share in ((Split.TEST, TEST_SHARE), (Split.VALIDATION, VALIDATION_SHARE)):
        target = min(most, max(least, int(total * share)))
        remaining = by_hash[codes[by_hash] == Split.TRAIN]
        codes[_take(remaining, corpus.sizes, target)] = split
    train_bytes = int(corpus.sizes[codes == Split.TRAIN].sum())
    if train_bytes * 4 < total:
        raise PrepareError(
            f"too few documents: of {total:,} bytes in {len(by_hash)} documents, whole documents for validation "
            f"and test leave {train_bytes:,} bytes for training; cut the text into more files"
        )


def _take(numbers: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64], target: int) -> list[int]:
    """Take the first documents that add up to `target` bytes, skipping those that would double it."""
    taken: list[int] = []
    size = 0
    for number in numbers.tolist():
        if size >= target:
            break
        if size + sizes[number] <= 2 * target:
            taken.append(number)
            size += int(sizes[number])
    if not taken and len(numbers):  # every document is that large: the smallest costs training least
        taken.append(int(numbers[np.argmin(sizes[numbers])]))
    return taken
