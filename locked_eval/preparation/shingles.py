"""Shingles of 13 words, the measure of shared text; hashed with numpy, fast enough for gigabytes.

A word is a run of ASCII letters and digits, lower-cased, and of bytes >= 0x80, so that letters of every script
count. Everything else separates. A character of a script written without spaces (kana, Chinese, Hangul: UTF-8 lead
bytes E3 to ED) is a word of its own.

Hashes are 64 bits. A chance collision makes two different shingles look equal, which drops a row or a document too
many and never one too few.

Not covered: paraphrase, translation, changed spelling, upper and lower case outside ASCII, Thai and other
scripts without spaces that are not named above, and overlaps of fewer than 13 words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SHINGLE_WORDS = 13
"""Length used by the contamination studies of GPT-3 and its successors."""

Hashes = npt.NDArray[np.uint64]
Offsets = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_BLOCK_BYTES = 1 << 18  # eight-byte intermediates of one block stay in the processor's cache
_BYTE_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse mod 2^64
_WORD_BASE = 0xC2B2AE3D27D4EB4F
_MIX = np.uint64(0xBF58476D1CE4E5B9)  # splitmix64's first multiplier
_MASK64 = (1 << 64) - 1

_SEPARATOR, _WORD, _OWN_WORD = 0, 1, 2


def _fold(byte: int) -> int:
    """The byte after lower-casing, 0 for a separator."""
    if byte >= 0x80:
        return byte
    character = chr(byte).lower()
    return ord(character) if character.isalnum() else 0


def _byte_class(byte: int) -> int:
    if 0xE3 <= byte <= 0xED:
        return _OWN_WORD
    return _WORD if _fold(byte) else _SEPARATOR


_CLASSES = np.array([_byte_class(byte) for byte in range(256)], np.uint8)
# A random 64-bit value per letter instead of its small code spreads short words over all bits.
_LETTERS = np.random.default_rng(13).integers(1, 1 << 63, 256, dtype=np.uint64)[
    [_fold(byte) for byte in range(256)]
]
_LETTERS[_CLASSES == _SEPARATOR] = 0
_TO_WORDS = bytes(_fold(byte) or 0x20 for byte in range(256))


class Shingles(NamedTuple):
    """Every run of `SHINGLE_WORDS` words of a batch of documents; none crosses a document's end."""

    hashes: Hashes  # (S,)
    document: Offsets  # (S,) index of its document in the batch, ascending
    start: Offsets  # (S,) byte offset of its first word in the document
    end: Offsets  # (S,) byte offset behind its last word

    def where(self, mask: Mask) -> Shingles:
        """The shingles that a `(S,)` mask selects."""
        return Shingles(self.hashes[mask], self.document[mask], self.start[mask], self.end[mask])


def normalize(text: bytes) -> bytes:
    """Return the words with one space between them; texts with equal results count as the same document."""
    return b" ".join(text.translate(_TO_WORDS).split())


@lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """`(count,)` powers of the byte base mod 2^64, and of its inverse."""
    tables = []
    for base in (_BYTE_BASE, pow(_BYTE_BASE, -1, 1 << 64)):
        steps = np.full(count, base, np.uint64)
        steps[0] = 1
        tables.append(np.multiply.accumulate(steps))
    return tables[0], tables[1]


def _block_words(text: npt.NDArray[np.uint8]) -> tuple[Hashes, Offsets, Offsets]:
    """Hash, start and end of every word of a `(n,)` block that begins and ends between words.

    With the prefix sums `P` of `letter[i] · base^i`, a word's hash is `(P[end] − P[start]) / base^start`:
    the same wherever the word stands.
    """
    size = len(text)
    classes = np.zeros(size + 2, np.uint8)  # one separator before and behind
    classes[1:-1] = _CLASSES[text]
    here, before = classes[1:], classes[:-1]  # (n + 1,)
    # A boundary closes the word before it, opens one, or both.
    ends = np.flatnonzero((before != _SEPARATOR) & ((here == _SEPARATOR) | (here == _OWN_WORD)))
    starts = np.flatnonzero((here != _SEPARATOR) & ((before == _SEPARATOR) | (here == _OWN_WORD)))
    powers, inverses = _powers(1 << max(size - 1, 1).bit_length())
    sums = np.zeros(size + 1, np.uint64)
    np.cumsum(_LETTERS[text] * powers[:size], out=sums[1:])
    words = (sums[ends] - sums[starts]) * inverses[starts]
    words ^= words >> np.uint64(32)
    words *= _MIX
    words ^= words >> np.uint64(29)
    return words, starts, ends


def _block_end(text: npt.NDArray[np.uint8], start: int) -> int:
    """Find where a block that begins at `start` may end without cutting a word."""
    end, reach = start + _BLOCK_BYTES, 1 << 10
    while end < len(text):
        separators = np.flatnonzero(_CLASSES[text[max(start, end - reach) : end]] == _SEPARATOR)
        if len(separators):
            return max(start, end - reach) + int(separators[-1]) + 1
        reach = _BLOCK_BYTES  # a word of a kilobyte: scan the whole block, then the next
        end += _BLOCK_BYTES
    return len(text)


def _chain(words: Hashes, count: int) -> Hashes:
    """`(W,)` word hashes → `(W − count + 1,)` polynomial hashes of `count` words each, by doubling."""
    total = len(words)
    if total < count:
        return np.zeros(0, np.uint64)
    sums, length = np.zeros(total + 1, np.uint64), 0
    block, span = words, 1
    while span <= count:
        if count & span:  # put the block before what was joined so far
            size = total - span - length + 1
            factor = np.uint64(pow(_WORD_BASE, length, 1 << 64))
            sums = block[:size] * factor + sums[span : span + size]
            length += span
        if span * 2 <= count:
            block = block[:-span] * np.uint64(pow(_WORD_BASE, span, 1 << 64)) + block[span:]
        span *= 2
    return sums


def shingle(documents: Sequence[bytes]) -> Shingles:
    """Hash every shingle of a batch of documents.

    Memory: about 8 bytes per byte of text; keep batches below some tens of megabytes.
    """
    text = np.frombuffer(b"\n".join([*documents, b""]), np.uint8)
    begins = np.zeros(len(documents) + 1, np.int64)
    np.cumsum([len(document) + 1 for document in documents], out=begins[1:])
    parts: list[tuple[Hashes, Offsets, Offsets]] = []
    start = 0
    while start < len(text):
        end = _block_end(text, start)
        words, starts, ends = _block_words(text[start:end])
        parts.append((words, starts + start, ends + start))
        start = end
    if not parts:
        nothing = np.zeros(0, np.int64)
        return Shingles(np.zeros(0, np.uint64), nothing, nothing, nothing)
    words, starts, ends = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    hashes = _chain(words, SHINGLE_WORDS)
    count = len(hashes)
    first_words = np.searchsorted(starts, begins)  # (D + 1,) index of each document's first word
    first = np.repeat(np.arange(len(documents)), np.diff(first_words))  # (W,) document of each word
    found = Shingles(
        hashes,
        first[:count],
        starts[:count] - begins[first[:count]],
        ends[SHINGLE_WORDS - 1 :][:count] - begins[first[:count]],
    )
    return found.where(first[:count] == first[SHINGLE_WORDS - 1 :][:count])


def _sorted_once(parts: Sequence[Hashes]) -> Hashes:
    """The result of `np.unique`, 25 times faster: numpy 2.3 and later hash integers one by one there."""
    values: Hashes = np.concatenate(parts)
    values.sort()
    is_first = np.ones(len(values), np.bool_)
    is_first[1:] = values[1:] != values[:-1]
    return values[is_first]


class ShingleSet:
    """A set of hashes with a fast answer for hashes that are not in it, which nearly all are.

    A bit table, indexed by the leading bits of the hash, comes first; the binary search of the sorted hashes sees
    only those that pass. It has 16 to 32 bits a hash, so one foreign hash in 16 or fewer passes.
    """

    def __init__(self, hashes: Iterable[Hashes]) -> None:
        """Args: hashes: arrays of hashes, in any order, repeated or not."""
        self.sorted: Hashes = _sorted_once([np.zeros(0, np.uint64), *hashes])
        bits = max(16, (16 * len(self.sorted)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._table = np.zeros(1 << (bits - 3), np.uint8)
        if len(self.sorted):
            index = self.sorted >> self._shift
            place, bit = index >> np.uint64(3), np.uint8(1) << (index & np.uint64(7)).astype(np.uint8)
            groups = np.flatnonzero(np.concatenate([[True], place[1:] != place[:-1]]))
            self._table[place[groups]] = np.bitwise_or.reduceat(bit, groups)

    def __len__(self) -> int:
        return len(self.sorted)

    def find(self, hashes: Hashes) -> tuple[Offsets, Offsets]:
        """Find which of `(S,)` hashes are in the set.

        Returns: their indices, in no order, and their places in `self.sorted`.
        """
        index = hashes >> self._shift
        byte = self._table[index >> np.uint64(3)]
        passed = np.flatnonzero((byte >> (index & np.uint64(7)).astype(np.uint8)) & np.uint8(1))
        if not len(passed):
            return passed, passed
        # In ascending order neighboring searches meet in the processor's cache: three times faster.
        passed = passed[np.argsort(hashes[passed])]
        wanted = hashes[passed]
        place = np.minimum(np.searchsorted(self.sorted, wanted), len(self.sorted) - 1)
        real = self.sorted[place] == wanted
        return passed[real], place[real]

    def contains(self, hashes: Hashes) -> Mask:
        """`(S,)` mask of the hashes that are in the set."""
        mask = np.zeros(len(hashes), np.bool_)
        mask[self.find(hashes)[0]] = True
        return mask


def near_duplicates(shingles: Shingles, shared: Mask, num_documents: int) -> Mask:
    """`(D,)` mask of the documents that share more than half of their shingles.

    Args:
        shared: `(S,)` mask of the shingles that the other split has too.
    """
    total = np.bincount(shingles.document, minlength=num_documents)
    return np.bincount(shingles.document[shared], minlength=num_documents) * 2 > total


def rows_touched(starts: Offsets, ends: Offsets, edges: Offsets) -> Mask:
    """`(N,)` mask of the rows that overlap any of the spans.

    A row that holds only a part of a span counts: stricter than requiring all 13 words inside it.

    Args:
        starts, ends: `(S,)` byte spans in the text that was cut into rows.
        edges: `(N + 1,)` ascending byte offsets: row r is `edges[r] : edges[r + 1]`.
    """
    num_rows = len(edges) - 1
    first = np.maximum(np.searchsorted(edges, starts, side="right") - 1, 0)
    last = np.searchsorted(edges, ends, side="left")  # one past the last row
    inside = first < np.minimum(last, num_rows)
    changes = np.zeros(num_rows + 1, np.int64)
    np.add.at(changes, first[inside], 1)
    np.add.at(changes, np.minimum(last[inside], num_rows), -1)
    return np.cumsum(changes)[:num_rows] > 0


def rows_repeating(hashes: Hashes, rows: Offsets, num_rows: int) -> Mask:
    """`(N,)` mask of the rows that hold a shingle of an earlier row.

    Args:
        hashes: `(S,)` shingles that lie within one row each.
        rows: `(S,)` the row of each.
    """
    mask = np.zeros(num_rows, np.bool_)
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    if len(hashes):
        opens = np.concatenate([[True], hashes[1:] != hashes[:-1]])
        first = rows[np.flatnonzero(opens)][np.cumsum(opens) - 1]  # (S,) first row of each one's hash
        mask[rows[rows != first]] = True
    return mask
