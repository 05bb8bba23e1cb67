"""An index of a whole corpus that answers one question: does this text repeat it? Numpy only.

Only letters count: bytes of ASCII letters, lower-cased, and of letters beyond ASCII. Spaces, line ends, digits,
punctuation and typography are skipped, so that the same text is the same wherever lines break, however it is
quoted, numbered or spelled out letter by letter.

The letters themselves determine which stretches are remembered. An anchor is a place whose next
eight letters hash to a multiple of four; the `SPAN_LETTERS` letters from there on go into a
Bloom filter whose every key lies in one word of 64 bits (one access to memory; Putze, Sanders and Singler 2007). A
text has its anchors at the same places as the corpus, so a repetition gives a run of *consecutive* anchors that
are all in the filter. `NUM_CONSECUTIVE` of them are a repetition: some 35 letters, or eight words of English,
are found every second time, and twice as many practically always (`docs/data.md` has the figures). One
anchor is in the filter by chance 3 times in 1,000, four in a row less than once in 10^9.

The filter takes 0.4 bytes a byte of text, up to `MAX_TABLE_BYTES`. A larger corpus has fewer anchors, so that
chance hits stay as rare and only the shortest repetition that is found grows.

Not covered: the exceptions of `runner.corpus.redaction`, upper and lower case beyond ASCII, accents left out,
digits, scripts of four-byte characters, and repetitions that are shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SPAN_LETTERS = 20
NUM_CONSECUTIVE = 4
MAX_TABLE_BYTES = 1 << 30

_ANCHOR_BITS = 2  # one place in four
_TABLE_SHARE = 0.4  # bytes of filter a byte of text: 16 bits an anchor
_NUM_KEY_BITS = 5
_BLOCK_LETTERS = 1 << 15  # eight-byte intermediates of one block stay in the processor's cache
_BASE = 0x9E3779B97F4A7C15
_MASK64 = (1 << 64) - 1

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]


def _mix(hashes: Hashes) -> Hashes:
    """splitmix64's finalizer: every bit of the result depends on every bit of the hash."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))


_LOWER = np.array([ord(chr(byte).lower()) if byte < 0x80 else byte for byte in range(256)], np.uint8)
_IS_LETTER = np.array([chr(byte).isalpha() if byte < 0x80 else True for byte in range(256)], np.bool_)
_VALUES = _mix((np.arange(256, dtype=np.uint64) + np.uint64(1)) * np.uint64(_BASE))
# Number of bytes after a lead byte whose characters are not letters, or hardly ever: U+0080 to U+00BF (signs of
# Latin-1), U+2000 to U+2FFF (typography, symbols, lines), U+F000 to U+FFFF (forms, U+FFFD), and emoji.
_SIGNS = {0xC2: 1, 0xE2: 2, 0xEF: 2, 0xF0: 3, 0xF1: 3, 0xF2: 3, 0xF3: 3, 0xF4: 3}
_SIGN_BYTES = np.array([_SIGNS.get(byte, 0) for byte in range(256)], np.uint8)


class Letters(NamedTuple):
    """The letters of a text."""

    values: Bytes  # (n,) lower-cased
    places: Places  # (n,) byte offset of each in the text


def find_letters(text: bytes) -> Letters:
    """Find the letters of a UTF-8 text."""
    raw = np.frombuffer(text, np.uint8)
    keep = _IS_LETTER[raw]
    signs = _SIGN_BYTES[raw]
    if signs.any():
        for offset in range(4):
            here = np.flatnonzero(signs >= max(offset, 1))
            keep[np.minimum(here + offset, len(raw) - 1)] = False
    places = np.flatnonzero(keep)
    return Letters(_LOWER[raw[places]], places)


class _Anchors(NamedTuple):
    places: Places  # (A,) first letter of each, ascending
    hashes: Hashes  # (A,) of the letters from there on


def _power(exponent: int) -> np.uint64:
    return np.uint64(pow(_BASE, exponent, 1 << 64))


def _anchors(letters: Bytes, anchor_bits: int) -> _Anchors:
    """The anchors of `(n,)` letters whose span lies within them."""
    found: list[tuple[Places, Hashes]] = []
    last = len(letters) - SPAN_LETTERS + 1  # one past the last place where a span can begin
    for start in range(0, max(last, 0), _BLOCK_LETTERS):
        one = _VALUES[letters[start : min(start + _BLOCK_LETTERS, last) + SPAN_LETTERS - 1]]
        two = one[:-1] * _power(1) + one[1:]
        four = two[:-2] * _power(2) + two[2:]
        eight = four[:-4] * _power(4) + four[4:]
        size = len(one) - SPAN_LETTERS + 1
        chosen = (eight[:size] ^ (eight[:size] >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
        place = np.flatnonzero(chosen >> np.uint64(64 - anchor_bits) == 0)
        # 20 = 8 + 8 + 4
        span = eight[place] * _power(12) + eight[place + 8] * _power(4) + four[place + 16]
        found.append((place + start, _mix(span)))
    if not found:
        return _Anchors(np.zeros(0, np.int64), np.zeros(0, np.uint64))
    places, hashes = zip(*found, strict=True)
    return _Anchors(np.concatenate(places), np.concatenate(hashes))


def _keys(hashes: Hashes, num_words: int) -> tuple[npt.NDArray[np.intp], Hashes]:
    """`(S,)` the word of the filter that each hash belongs to, and the bits that it sets there."""
    word = ((hashes >> np.uint64(32)) * np.uint64(num_words)) >> np.uint64(32)
    bits = np.zeros(len(hashes), np.uint64)
    for number in range(_NUM_KEY_BITS):
        bits |= np.uint64(1) << ((hashes >> np.uint64(6 * number)) & np.uint64(63))
    return word.astype(np.intp), bits


class Stretch(NamedTuple):
    """A range of letters of a text that repeats the corpus."""

    begin: int
    end: int  # one past the last


class CorpusIndex:
    """The index, ready for questions about texts."""

    def __init__(self, table: npt.NDArray[np.uint64], known: Sequence[bytes] = ()) -> None:
        """Args:
        table: `(1 + W,)` as `IndexBuilder` makes it; may be memory-mapped.
        known: texts that may be repeated, whatever the corpus holds.
        """
        self._anchor_bits = int(table[0])
        self._words = table[1:]
        hashes = [_anchors(find_letters(text).values, self._anchor_bits).hashes for text in known]
        self._known = np.unique(np.concatenate([np.zeros(0, np.uint64), *hashes]))

    @classmethod
    def open(cls, path: Path, known: Sequence[bytes] = ()) -> CorpusIndex:
        """Memory-map an index; only the pages that a question needs are read."""
        return cls(np.load(path, mmap_mode="r", allow_pickle=False), known)

    def stretches(self, letters: Bytes) -> list[Stretch]:
        """Find where `(n,)` letters repeat the corpus, in order, without overlaps."""
        anchors = _anchors(letters, self._anchor_bits)
        if len(anchors.places) < NUM_CONSECUTIVE:
            return []
        word, bits = _keys(anchors.hashes, len(self._words))
        hit = (self._words[word] & bits) == bits
        hit &= ~self._touches_known(anchors, len(letters))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], hit, [False]]).astype(np.int8)))
        found: list[Stretch] = []
        for first, behind in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            if behind - first >= NUM_CONSECUTIVE:
                begin = int(anchors.places[first])
                end = int(anchors.places[behind - 1]) + SPAN_LETTERS
                if found and begin < found[-1].end:
                    begin = found.pop().begin
                found.append(Stretch(begin, end))
        return found

    def _touches_known(self, anchors: _Anchors, num_letters: int) -> npt.NDArray[np.bool_]:
        """`(A,)` mask of the anchors with a letter of a known text in their span: one may follow another."""
        changes = np.zeros(num_letters + 1, np.int64)
        known = anchors.places[np.isin(anchors.hashes, self._known)]
        np.add.at(changes, known, 1)
        np.add.at(changes, known + SPAN_LETTERS, -1)
        num_known = np.zeros(num_letters + 1, np.int64)  # before each place
        np.cumsum(np.cumsum(changes[:-1]) > 0, out=num_known[1:])
        return num_known[anchors.places + SPAN_LETTERS] > num_known[anchors.places]


class IndexBuilder:
    """Builds an index from the documents of a corpus, some megabytes at a time."""

    def __init__(self, num_bytes: int) -> None:
        """Args: num_bytes: of all documents together."""
        anchor_bits, wanted = _ANCHOR_BITS, int(num_bytes * _TABLE_SHARE)
        while wanted > MAX_TABLE_BYTES:
            anchor_bits, wanted = anchor_bits + 1, wanted // 2
        self._table = np.zeros(1 + max(wanted // 8, 64), np.uint64)
        self._table[0] = anchor_bits
        self.num_anchors = 0

    def add(self, documents: Sequence[bytes]) -> None:
        """Add documents. The seam between two is added as well, and harms nothing: no text has it."""
        anchors = _anchors(find_letters(b"\n".join(documents)).values, int(self._table[0]))
        words = self._table[1:]
        word, bits = _keys(anchors.hashes, len(words))
        np.bitwise_or.at(words, word, bits)
        self.num_anchors += len(word)

    def finish(self, known: Sequence[bytes] = ()) -> CorpusIndex:
        """Return the index of the added documents, without a file."""
        return CorpusIndex(self._table, known)

    def save(self, path: Path) -> None:
        """Write the index for `CorpusIndex.open`."""
        np.save(path, self._table.astype("<u8", copy=False), allow_pickle=False)
