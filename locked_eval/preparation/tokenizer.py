"""Byte-pair encoding: `rustbpe` trains, `tiktoken` encodes. Stored as text, never as a pickle.

tokenizer/
├── ranks.txt         one token a line: base64 of its bytes, a space, its id
├── pattern.txt       the regular expression that cuts text into pieces before merging
└── token_bytes.npy   (V,) uint16: raw bytes of each token; 0 for the beginning-of-text token

The beginning-of-text token is the last id, V − 1. No text encodes to it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.documents import PrepareError

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)"
    r"|[^\r\n\p{L}\p{N}]?+\p{L}+"
    r"|\p{N}{1,2}"
    r"| ?[^\s\p{L}\p{N}]++[\r\n]*"
    r"|\s{0,255}[\r\n]"
    r"|\s{1,255}(?!\S)"
    r"|\s+"
)
"""GPT-4's pattern with two changes: numbers in pairs of digits (a small vocabulary has no room for a thousand
triples), and runs of white space bounded, because a long one overflows the stack of both libraries."""

SAMPLE_BYTES = 500_000_000
"""A vocabulary is learned from at most this much: every k-th training document, with the smallest k that fits."""

RANKS_FILE = "ranks.txt"
PATTERN_FILE = "pattern.txt"
TOKEN_BYTES_FILE = "token_bytes.npy"  # noqa: S105  a file name, not a secret

_TRAINING_BUFFER = 256  # documents that rustbpe holds at a time; its default of 8192 long ones takes gigabytes

Tokens = npt.NDArray[np.uint16]


class Tokenizer:
    """A trained vocabulary."""

    def __init__(self, tokens: Sequence[bytes], pattern: str) -> None:
        """Args: tokens: raw bytes by id, without the beginning-of-text token."""
        import tiktoken

        self.pattern = pattern
        self.vocab_size = len(tokens) + 1
        self.bos_token = len(tokens)
        self._tokens = list(tokens)
        self._encoding: Any = tiktoken.Encoding(
            "autoresearch",
            pat_str=pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(tokens)},
            special_tokens={},
        )

    def encode(self, documents: Sequence[bytes]) -> Iterator[Tokens]:
        """Yield the tokens of each UTF-8 document, without the beginning-of-text token. Uses all cores."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            yield from pool.map(self._encode_one, documents)

    def _encode_one(self, document: bytes) -> Tokens:
        found = self._encoding.encode_to_numpy(document.decode("utf-8"), disallowed_special=())
        return np.asarray(found, np.uint16)

    def decode(self, tokens: Tokens) -> bytes:
        """Raw bytes of tokens that are text."""
        table = self._tokens
        return b"".join([table[token] for token in tokens.tolist()])

    def token_bytes(self) -> npt.NDArray[np.uint16]:
        """`(V,)` raw byte length of every token.

        Lengths are of the token's bytes, not of its decoded text: a token that is a part of a character decodes to
        a replacement mark of three bytes.
        """
        lengths = [len(self._encoding.decode_single_token_bytes(token)) for token in range(self.bos_token)]
        return np.array([*lengths, 0], np.uint16)

    def save(self, folder: Path) -> None:
        """Write the three files."""
        lines = [f"{base64.b64encode(token).decode('ascii')} {rank}\n" for rank, token in enumerate(self._tokens)]
        (folder / RANKS_FILE).write_text("".join(lines), "ascii")
        (folder / PATTERN_FILE).write_text(self.pattern, "utf-8")
        np.save(folder / TOKEN_BYTES_FILE, self.token_bytes().astype("<u2"), allow_pickle=False)


def load(folder: Path) -> Tokenizer:
    """Read a tokenizer back. The caller checks the hashes of its files."""
    lines = (folder / RANKS_FILE).read_text("ascii").splitlines()
    ranks = {int(rank): base64.b64decode(token) for token, rank in (line.split(" ") for line in lines)}
    return Tokenizer([ranks[rank] for rank in range(len(ranks))], (folder / PATTERN_FILE).read_text("utf-8"))


def train(documents: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn a vocabulary. The same documents in the same order give the same vocabulary.

    Args:
        vocab_size: counts the beginning-of-text token; at least 257 (that token and the single bytes).

    Raises:
        PrepareError: the text has too few different pairs for that many tokens.
    """
    import rustbpe

    trainer = rustbpe.Tokenizer()
    trainer.train_from_iterator(iter(documents), vocab_size - 1, buffer_size=_TRAINING_BUFFER, pattern=PATTERN)
    ranks = {int(rank): bytes(token) for token, rank in trainer.get_mergeable_ranks()}
    if len(ranks) != vocab_size - 1:
        raise PrepareError(
            f"not enough text for a vocabulary of {vocab_size:,} tokens: "
            f"the training split is enough for {len(ranks) + 1:,}"
        )
    return Tokenizer([ranks[rank] for rank in range(len(ranks))], PATTERN)
