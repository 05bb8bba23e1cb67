"""Evaluation rows: fixed-length pieces of validation and test that share no shingle with other text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.documents import PrepareError, groups
from locked_eval.preparation.options import Options
from locked_eval.preparation.shards import require_bytes
from locked_eval.preparation.shingles import (
    Hashes,
    Mask,
    Offsets,
    ShingleSet,
    rows_repeating,
    rows_touched,
    shingle,
)
from locked_eval.preparation.splits import MIN_EVAL_ROWS
from locked_eval.preparation.tokenizer import Tokenizer

Rows = npt.NDArray[np.uint16]


class EvalText(NamedTuple):
    """The rows of validation or test, and the counts of those that were dropped."""

    num_documents: int
    num_bytes: int
    num_tokens: int
    rows: Rows  # (N, T + 1)
    num_rows_cut: int
    num_rows_in_train: int  # dropped: share a shingle with training
    num_rows_in_validation: int  # dropped: share one with validation (test only)
    num_rows_repeated: int  # dropped: hold a shingle of an earlier row


def choose_rows(
    split: str,
    documents: Sequence[bytes],
    tokenizer: Tokenizer,
    options: Options,
    in_train: ShingleSet,
    in_validation: ShingleSet,
) -> EvalText:
    """Cut a split into rows and keep those that share no shingle with other text.

    Args:
        split: its name, for errors.
        in_train: shingles that training has.
        in_validation: shingles that validation has; empty for validation itself.

    Raises:
        PrepareError: too few rows are left.
    """
    rows, num_tokens = _cut_rows(split, documents, tokenizer, options.row_tokens)
    num_rows = len(rows)
    edges = np.zeros(num_rows + 1, np.int64)
    np.cumsum(tokenizer.token_bytes()[rows].sum(axis=1, dtype=np.int64), out=edges[1:])
    touched = {"train": np.zeros(num_rows, np.bool_), "validation": np.zeros(num_rows, np.bool_)}
    inside: list[tuple[Hashes, npt.NDArray[np.int32]]] = []
    for hashes, starts, ends in _spans(documents):
        for name, others in (("train", in_train), ("validation", in_validation)):
            shared, _ = others.find(hashes)
            touched[name] |= rows_touched(starts[shared], ends[shared], edges)
        row = np.searchsorted(edges, starts, side="right") - 1
        whole = (row < num_rows) & (ends <= edges[np.minimum(row + 1, num_rows)])
        inside.append((hashes[whole], row[whole].astype(np.int32)))
    clean = ~(touched["train"] | touched["validation"])
    repeated = _repeated(inside, clean)
    kept = np.flatnonzero(clean & ~repeated)
    if len(kept) > options.max_eval_rows:  # never a prefix: text changes over a split
        kept = kept[np.arange(options.max_eval_rows) * len(kept) // options.max_eval_rows]
    text = EvalText(
        num_documents=len(documents),
        num_bytes=sum(map(len, documents)),
        num_tokens=num_tokens,
        rows=rows[kept],
        num_rows_cut=num_rows,
        num_rows_in_train=int(touched["train"].sum()),
        num_rows_in_validation=int((touched["validation"] & ~touched["train"]).sum()),
        num_rows_repeated=int(repeated.sum()),
    )
    _require_rows(split, text, options)
    return text


def _cut_rows(split: str, documents: Sequence[bytes], tokenizer: Tokenizer, row_tokens: int) -> tuple[Rows, int]:
    """`(N, T + 1)` rows of the documents' stream of tokens, and the length of that stream."""
    lengths = tokenizer.token_bytes()
    bos = np.array([tokenizer.bos_token], np.uint16)
    pieces: list[Rows] = []
    for group, _ in groups(documents):
        for tokens in tokenizer.encode(group):
            pieces += [bos, tokens]
    stream = np.concatenate([*pieces, np.zeros(0, np.uint16)])
    counted = int(lengths[stream].sum(dtype=np.int64))
    require_bytes(split, sum(map(len, documents)), counted)
    num_rows = len(stream) // row_tokens
    return stream[: num_rows * row_tokens].reshape(num_rows, row_tokens), len(stream)


def _spans(documents: Sequence[bytes]) -> Iterator[tuple[Hashes, Offsets, Offsets]]:
    """Yield shingles of documents, with their byte spans in the concatenation of all of them."""
    for group, offset in groups(documents):
        begins = np.cumsum([offset, *(len(document) for document in group)])
        found = shingle(group)
        yield found.hashes, found.start + begins[found.document], found.end + begins[found.document]


def _repeated(inside: Sequence[tuple[Hashes, npt.NDArray[np.int32]]], clean: Mask) -> Mask:
    """`(N,)` mask of the clean rows that hold a shingle of an earlier clean row."""
    selected = [(hashes[clean[row]], row[clean[row]]) for hashes, row in inside]
    if not selected:
        return np.zeros(len(clean), np.bool_)
    hashes, row = (np.concatenate(column) for column in zip(*selected, strict=True))
    return rows_repeating(hashes, row.astype(np.int64), len(clean))


def _require_rows(split: str, text: EvalText, options: Options) -> None:
    needed = min(MIN_EVAL_ROWS, options.max_eval_rows)
    if len(text.rows) < needed:
        dropped = text.num_rows_cut - len(text.rows)
        raise PrepareError(
            f"not enough text for the {split} split: {len(text.rows)} rows of {options.row_tokens:,} tokens, "
            f"{needed} needed; its {text.num_documents:,} documents of {text.num_bytes:,} bytes gave "
            f"{text.num_rows_cut} rows, of which {dropped} share text with other rows or splits"
        )
