"""Sealed text in a candidate's files: validation or test rows that an edit brought in. Pure.

A proposer never sees the sealed splits, but the corpora are public: a language model may know them by heart, or
get them from its author. Every changed file is therefore read in every way that a short program could read it, and
compared with the 13-word shingles of both splits:

- its text as it stands: code, comments, quotes and line breaks between words do not matter
- its string literals, with escapes resolved, joined and spaced, also over all files of `workload/` together
- reversed, word by word in reverse, and rot13
- base16, 32, 64 and 85, then zlib, gzip, bz2, lzma and raw deflate, up to four levels deep
- numbers, in lists or in text, as token ids, as characters, as bytes, as little and big endian words, as bits

**One hit refuses.** Preparation made the splits disjoint from the training text at the same 13 words, so a phrase
that many texts share (a license, a proverb, counting to twenty) is in neither sealed split, and a chance collision
of 64-bit hashes needs some 10^12 words. Only additions count: sealed text that `before` had in any reading is
not refused again.

Data that none of these readings explains is limited in size (`opaque`): numbers, and strings that are not made of
words.

Not covered: encryption and home-made codes, among them small changes before decoding (an offset on every id,
pieces of fewer than 13 words put together in another order, names in CamelCase, a word of its own for every token
id); weights of a model below the size limit; paraphrase, translation, and what
`locked_eval.preparation.shingles` does not cover. Such a code is limited by its size, not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.shingles import Hashes, shingle
from runner.edits import opaque
from runner.edits.parsing import literals
from runner.edits.readings import Budget, BudgetExceeded, Reading, read_file
from runner.records import Files

_BATCH_BYTES = 4 << 20  # of readings that are hashed at a time


@dataclass(frozen=True)
class SealedText:
    """Text that edits must not bring in.

    Args:
        validation: `(S,)` sorted unique hashes of the split's shingles; see `locked_eval.preparation.shingles`.
        test: `(S,)` the same for the other sealed split.
        tokens: raw bytes by token id.
    """

    validation: npt.NDArray[np.uint64]
    test: npt.NDArray[np.uint64]
    tokens: Sequence[bytes]


def find(before: Files, after: Files, sealed: SealedText) -> str | None:
    """Find sealed text, and data that could hide it, in the additions of an edit.

    Returns:
        A sentence that names the file and the reading, never the text; `None` when nothing was found.
    """
    known: Hashes | None = None
    try:
        for readings in _batches(before, after, sealed.tokens):
            found = shingle([reading.text for reading in readings])
            hashes = _once(found.hashes)
            for wanted in (sealed.validation, sealed.test):
                common = _common(hashes, wanted)
                if len(common) and known is None:
                    known = _known(before, sealed)
                added = common if known is None else np.setdiff1d(common, known, assume_unique=True)
                if len(added):
                    one = readings[found.document[np.flatnonzero(found.hashes == added[0])[0]]]
                    # Not which split: the reason goes to the proposer, who could ask for one phrase after another.
                    return f"{one.path} contains validation or test text ({one.how}): edits must not add any"
    except BudgetExceeded as error:
        return str(error)
    return opaque.check_size(before, after)


def _batches(before: Files, after: Files, tokens: Sequence[bytes]) -> Iterator[list[Reading]]:
    """Read the changed files, and all files together."""
    readings = _read_together(after)
    budget = Budget()
    size = 0
    for path in sorted(after):
        if before.get(path) != after[path]:
            added = read_file(path, after[path], tokens, budget)
            readings += added
            size += sum(len(reading.text) for reading in added)
            if size > _BATCH_BYTES:
                yield readings
                readings, size = [], 0
    yield readings


def _once(hashes: Hashes) -> Hashes:
    """Sort and deduplicate. Searches in ascending order stay in the processor's cache."""
    hashes = np.sort(hashes)
    first = np.ones(len(hashes), np.bool_)
    first[1:] = hashes[1:] != hashes[:-1]
    return hashes[first]


def _common(hashes: Hashes, wanted: Hashes) -> Hashes:
    if not len(wanted):
        return hashes[:0]
    place = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
    found: Hashes = hashes[wanted[place] == hashes]
    return found


def _known(before: Files, sealed: SealedText) -> Hashes:
    """Sealed shingles that the files already had, in any reading."""
    parts = [np.zeros(0, np.uint64)]
    for readings in _batches({}, before, sealed.tokens):
        hashes = _once(shingle([reading.text for reading in readings]).hashes)
        parts += [_common(hashes, sealed.validation), _common(hashes, sealed.test)]
    return np.concatenate(parts)


def _read_together(files: Files) -> list[Reading]:
    """Join the string literals of all Python files: a phrase may be split over several."""
    strings: list[str] = []
    for path in sorted(files):
        found = literals(files[path]) if path.endswith(".py") else None
        strings += found.strings if found is not None else ()
    return [
        Reading("workload/", "strings of its files, joined", separator.join(strings).encode("utf-8", "replace"))
        for separator in ("", " ")
    ]
