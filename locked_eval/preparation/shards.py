"""Training shards: little-endian uint16 tokens, the beginning-of-text token before every document.

A document goes whole into the shard that is shortest so far, so that every shard has text from all over the corpus
and leaving one out changes no distribution. A corpus of few or short documents has fewer shards.
"""

from __future__ import annotations

import hashlib
import heapq
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from locked_eval.preparation.documents import Codes, Corpus, PrepareError, Split
from locked_eval.preparation.progress import Progress, Say
from locked_eval.preparation.tokenizer import Tokenizer

NUM_SHARDS = 32


class TrainText(NamedTuple):
    """Counts and digest of the text in the training shards."""

    num_documents: int
    num_bytes: int
    num_tokens: int
    num_shards: int
    digest: int  # `add_digest` of every document


def write_train(
    corpus: Corpus, codes: Codes, tokenizer: Tokenizer, folder: Path, shard_tokens: int, say: Say
) -> TrainText:
    """Encode the training documents into shards in `folder`.

    Args:
        shard_tokens: shorter shards are joined.

    Raises:
        PrepareError: there are fewer tokens than one shard needs.
    """
    lengths = tokenizer.token_bytes()
    num_documents = num_bytes = counted = digest = 0
    bos = np.array([tokenizer.bos_token], "<u2").tobytes()
    shards = [(0, number) for number in range(NUM_SHARDS)]  # a heap: the shortest comes first
    progress = Progress(say, "encoding", int(corpus.sizes[codes == Split.TRAIN].sum()))
    with ExitStack() as stack:
        files = [stack.enter_context(_shard(folder, number).open("wb")) for _, number in shards]
        for batch in corpus.read(codes == Split.TRAIN):
            for document, tokens in zip(batch.documents, tokenizer.encode(batch.documents), strict=True):
                num_tokens, number = shards[0]
                files[number].write(bos + tokens.astype("<u2").tobytes())
                heapq.heapreplace(shards, (num_tokens + len(tokens) + 1, number))
                digest = add_digest(digest, document)
                num_bytes += len(document)
                counted += int(lengths[tokens].sum(dtype=np.int64))
            num_documents += len(batch.documents)
            progress.add(sum(map(len, batch.documents)))
    require_bytes("train", num_bytes, counted)
    num_tokens = sum(length for length, _ in shards)
    num_shards = _join_short(folder, shards, shard_tokens)
    if num_tokens < shard_tokens:
        raise PrepareError(
            f"not enough text for the training split: {num_tokens:,} tokens, {shard_tokens:,} needed"
        )
    return TrainText(num_documents, num_bytes, num_tokens, num_shards, digest)


def _join_short(folder: Path, shards: list[tuple[int, int]], shard_tokens: int) -> int:
    """Append every shard that is too short to the next longer one, and renumber the rest.

    Args:
        shards: heap of the tokens and the number of each.

    Returns: the number of shards that are left, at least one.
    """
    while len(shards) > 1 and shards[0][0] < shard_tokens:
        num_tokens, number = heapq.heappop(shards)
        more, other = shards[0]
        with _shard(folder, other).open("ab") as file:
            file.write(_shard(folder, number).read_bytes())
        _shard(folder, number).unlink()
        heapq.heapreplace(shards, (num_tokens + more, other))
    for place, number in enumerate(sorted(number for _, number in shards)):
        _shard(folder, number).rename(_shard(folder, place))
    return len(shards)


def require_bytes(split: str, expected: int, counted: int) -> None:
    """Compare the bytes of a split's text with those that its tokens stand for.

    Raises:
        PrepareError: they differ.
    """
    if expected != counted:
        raise PrepareError(
            f"the tokens of {split} stand for {counted:,} bytes, its text has {expected:,}; this is a bug"
        )


def add_digest(digest: int, document: bytes) -> int:
    """Running sum of SHA-256 over documents: independent of their order and shards."""
    return (digest + int.from_bytes(hashlib.sha256(document).digest(), "big")) % (1 << 256)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:02d}.bin"
