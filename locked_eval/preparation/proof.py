"""The proof of a data set: shared text is counted again from the written files.

It is no echo of the selection: it decodes the tokens on the disk, shingles the result and compares. It shows
that no 13-word shingle of a row of validation or test is in the training text, none of a test row is in a
validation row, no row holds a shingle of another row of its split, and the shards decode to the training
documents. Where the edge of a row cuts a word, that word is no word of the row (but the row was dropped if the
uncut text leaked).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from locked_eval.preparation import tokenizer as bpe
from locked_eval.preparation.documents import EVAL_SPLITS, Codes, Corpus, PrepareError, Split
from locked_eval.preparation.progress import Progress, Say
from locked_eval.preparation.publish import FOLDERS
from locked_eval.preparation.rows import Rows
from locked_eval.preparation.shards import TrainText, add_digest, require_bytes
from locked_eval.preparation.shingles import Hashes, Offsets, Shingles, ShingleSet, rows_repeating, shingle

_DECODED_TOKENS = 1 << 20


def prove(folder: Path, tokenizer: bpe.Tokenizer, train: TrainText, say: Say) -> dict[str, int]:
    """Count the shingles that the splits share, from the written files.

    Args:
        folder: the data set.
        train: the training documents.

    Returns: counts by name, all of them 0.

    Raises:
        PrepareError: a shingle is shared, or the shards do not decode to the training documents.
    """
    rows = {split: np.load(folder / FOLDERS[split] / "rows.npy", allow_pickle=False) for split in EVAL_SPLITS}
    hashes, row_of = zip(*(_row_shingles(rows[split], tokenizer) for split in EVAL_SPLITS), strict=True)
    sets = [ShingleSet([found]) for found in hashes]
    shared = {"train_validation": 0, "train_test": 0}
    proof = _TrainProof(folder, tokenizer, say)
    for found in proof.shingles():
        for name, sealed in zip(shared, sets, strict=True):
            shared[name] += len(sealed.find(found.hashes)[0])
    shared["validation_test"] = len(sets[0].find(hashes[1])[0])
    for name, found, numbers, split in zip(("validation", "test"), hashes, row_of, EVAL_SPLITS, strict=True):
        shared[f"{name}_rows"] = int(rows_repeating(found, numbers, len(rows[split])).sum())
    if any(shared.values()):
        raise PrepareError(f"the splits are not disjoint, shared 13-word shingles: {shared}; this is a bug")
    if proof.digest != train.digest:
        raise PrepareError("the shards do not decode to the training documents; this is a bug")
    return shared


def require_no_shared_documents(corpus: Corpus, codes: Codes) -> int:
    """Count the documents whose words are in two splits, from the final assignment; returns 0.

    Raises:
        PrepareError: there are some.
    """
    digests = [np.unique(corpus.digests[codes == split]) for split in FOLDERS]
    shared = sum(map(len, digests)) - len(np.unique(np.concatenate(digests)))
    if shared:
        raise PrepareError(f"{shared} documents are in two splits; this is a bug")
    return shared


def _row_shingles(rows: Rows, tokenizer: bpe.Tokenizer) -> tuple[Hashes, Offsets]:
    """Shingles of whole words of `(N, T + 1)` rows and the row of each, from the tokens alone."""
    texts: list[bytes] = []
    row_of: list[int] = []
    cut_before: list[bool] = []
    cut_after: list[bool] = []
    for number, row in enumerate(rows):
        bounds = [0, *np.flatnonzero(row == tokenizer.bos_token).tolist(), len(row)]
        for index, (begin, end) in enumerate(pairwise(bounds)):
            texts.append(tokenizer.decode(row[begin + (index > 0) : end]))
            row_of.append(number)
            cut_before.append(index == 0)
            cut_after.append(end == len(row))
    before, after = np.array(cut_before, np.bool_), np.array(cut_after, np.bool_)
    sizes = np.array([len(text) for text in texts], np.int64)
    found = shingle(texts)
    edge = (found.start == 0) & before[found.document]
    edge |= (found.end == sizes[found.document]) & after[found.document]
    found = found.where(~edge)
    return found.hashes, np.array(row_of, np.int64)[found.document]


class _TrainProof:
    """Reads the training shards back, for their shingles and the digest of the text that they decode to."""

    def __init__(self, folder: Path, tokenizer: bpe.Tokenizer, say: Say) -> None:
        """Args: folder: of the whole data set."""
        self._paths = sorted((folder / FOLDERS[Split.TRAIN]).glob("shard-*.bin"))
        self._tokenizer = tokenizer
        self._lengths = np.load(folder / "tokenizer" / bpe.TOKEN_BYTES_FILE, allow_pickle=False)
        self._progress = Progress(say, "proving", sum(path.stat().st_size for path in self._paths))
        self.digest = 0

    def shingles(self) -> Iterator[Shingles]:
        """Yield the shingles of all documents; `digest` is complete after the last of them."""
        for path in self._paths:
            yield from self._shard(path)

    def _shard(self, path: Path) -> Iterator[Shingles]:
        bos_token = self._tokenizer.bos_token
        stream = np.memmap(path, "<u2", mode="r")
        begin = 0
        while begin < len(stream):
            end = begin + _DECODED_TOKENS
            while end < len(stream) and stream[end] != bos_token:
                bos = np.flatnonzero(stream[end : end + _DECODED_TOKENS] == bos_token)
                end += int(bos[0]) if len(bos) else _DECODED_TOKENS
            piece = stream[begin:end]
            bounds = [*np.flatnonzero(piece == bos_token).tolist(), len(piece)]
            texts = [self._tokenizer.decode(piece[a + 1 : b]) for a, b in pairwise(bounds)]
            require_bytes(path.name, sum(map(len, texts)), int(self._lengths[piece].sum(dtype=np.int64)))
            for text in texts:
                self.digest = add_digest(self.digest, text)
            yield shingle(texts)
            self._progress.add(piece.nbytes)
            begin = end
