"""The command line of the preparation."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from locked_eval.preparation.documents import PrepareError

MIN_SHARD_ROWS = 8
"""Shards of fewer rows are joined: a crop of context length + 1 tokens must have room in every one."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """A request: where the documents are, and the sizes of the data set."""

    source: Path
    output: Path
    vocab_size: int
    context_length: int
    max_eval_rows: int

    @property
    def row_tokens(self) -> int:
        """Tokens of a row: every position has an input and a target."""
        return self.context_length + 1

    @property
    def shard_tokens(self) -> int:
        """Fewest tokens of a training shard."""
        return MIN_SHARD_ROWS * self.row_tokens

    def check(self) -> None:
        """Refuse impossible sizes.

        Raises:
            PrepareError: names the size.
        """
        if not 257 <= self.vocab_size <= 65535:
            raise PrepareError(f"a vocabulary of {self.vocab_size:,} tokens is not between 257 and 65,535")
        if self.context_length < 1 or self.max_eval_rows < 1:
            raise PrepareError("context length and evaluation rows must be at least 1")


def parse(arguments: Sequence[str]) -> Options:
    """Parse the command line; exits with code 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="prepare.py", description="From a folder of documents to tokens and rows."
    )
    parser.add_argument("--source", type=Path, required=True, help="folder of documents, or one file")
    parser.add_argument("--output", type=Path, required=True, help="folder for the data set")
    parser.add_argument(
        "--vocab-size", type=int, required=True, help="tokens, including the beginning-of-text token"
    )
    parser.add_argument(
        "--context-length", type=int, required=True, help="tokens of a row without its last target"
    )
    parser.add_argument("--max-eval-rows", type=int, required=True, help="rows of validation and of test")
    return Options(**vars(parser.parse_args(arguments)))
