"""Redaction of logs: lines in which a candidate prints text of the corpus are withheld.

A proposer must never see the data, and a person who reads a log should not have to worry about it. Every log is
redacted before the ledger stores it; people and models get the stored log. A log is read

- as it stands, letters only: case, punctuation, quotes, digits, white space and line breaks do not matter, so one
  word or one character per line is the same text
- with escapes resolved: the output of `repr`, `bytes` and JSON
- backwards, and in rot13
- by columns: the first word of every line, the second one, …, the last one
- decoded, as `runner.edits.readings` decodes the literals of a program: numbers as token ids, as
  characters or as bytes, base16, 32, 64 and 85, packed or not

and every line that takes part in a repetition of the corpus (`locked_eval.preparation.index`: some eight words) is
replaced. A line that equals an earlier one apart from its numbers counts once: thousands of texts contain `epoch
loss epoch loss epoch loss`. Error messages of Python and torch may be repeated: see
`runner.corpus.known_messages`.

**Not covered.** A program that wants to send its author a message can: a log has room for some kilobytes, and a
code is indistinct from noise. Repetitions of fewer than eight words or so are not found (lines of six words with
other prose between them, a word of the text between any two others), nor are words in another order, paraphrase,
encryption and home-made codes, messages in `runner.corpus.known_messages`, and the cases that
`locked_eval.preparation.index` does not cover. Such a channel is bounded by the size of a log, and by the fact
that a model sees a log only after a crash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from locked_eval.preparation.index import CorpusIndex, Stretch, find_letters
from runner.corpus.known_messages import known_messages
from runner.edits.readings import decode_runs

WITHHELD = "[line withheld: it repeats text of the corpus]"

_EDGE_LETTERS = 12
"""A repetition begins this much before its first anchor: a line within that stretch belongs to it."""
_MIN_REPEATED_LETTERS = 8
_MAX_DECODED_BYTES = 4 << 20  # a log of 10 kB that unpacks to more is a bomb
_MAX_COLUMNS = 8
_MIN_COLUMN_LINES = 8

_BYTES = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")
_CODE_UNITS = re.compile(r"(?:\\u[0-9a-fA-F]{4})+")
_CODE_POINT = re.compile(r"\\U([0-9a-fA-F]{8})")
_OTHER_ESCAPE = re.compile(r"\\[abfnrtv]")
_CODE_ALONE = re.compile(r"\s*\S{16,}\s*|[\s\d\[\](){},.:;+\-]*\d[\s\d\[\](){},.:;+\-]*")
_ROT13 = np.arange(256, dtype=np.uint8)
_ROT13[ord("a") : ord("z") + 1] = np.roll(np.arange(ord("a"), ord("z") + 1), -13)


class _Found(NamedTuple):
    """Numbers of lines."""

    inside: set[int]  # with letters of a repetition
    beside: set[int]  # short ones at its edges


@dataclass(frozen=True, kw_only=True)
class Redactor:
    """Withholds the text of one corpus. Construct it with `open`."""

    index: CorpusIndex
    tokens: Sequence[bytes]  # raw bytes by token id

    @classmethod
    def open(cls, index: Path, tokens: Sequence[bytes]) -> Redactor:
        """Open a redactor with a memory-mapped index.

        Args:
            index: a file of `locked_eval.preparation.index`.
        """
        return cls(index=CorpusIndex.open(index, known=known_messages()), tokens=tokens)

    def redact(self, log: str) -> str:
        """Replace the lines of a cleaned log that repeat the corpus; the number of lines stays the same.

        An ordinary log of 10 kB takes some milliseconds, one full of codes up to 3 seconds.
        """
        lines = log.split("\n")
        withheld = self._repeating(lines)
        return "\n".join(WITHHELD if number in withheld else line for number, line in enumerate(lines))

    def _repeating(self, lines: Sequence[str]) -> set[int]:
        """Numbers of the lines that take part in a repetition."""
        found: set[int] = set()
        beside: set[int] = set()
        for reading in _readings(lines):
            letters = self._in_letters(reading)
            found |= letters.inside
            beside |= letters.beside
        codes = self._encoded(lines)
        for number in codes:
            beside |= _code_beside(lines, number)
        found |= codes
        for column in _columns(lines):
            letters = self._in_letters(column)
            found |= letters.inside | self._encoded(column)
            rows = {len(lines[number].split()) for number in letters.inside}
            beside |= {number for number in letters.beside if len(lines[number].split()) in rows}
        shapes = _shapes(lines)
        repeated = {shapes[number] for number in found if shapes[number]}
        return found | beside | {number for number, shape in enumerate(shapes) if shape in repeated}

    def _in_letters(self, lines: Sequence[str]) -> _Found:
        """Find lines whose letters, put together, repeat the corpus forwards, backwards or in rot13."""
        parts = [find_letters(line.encode("utf-8", "replace")).values for line in lines]
        ends = np.cumsum([0, *map(len, parts)])  # (lines + 1,) letters before each line, and all
        letters = np.concatenate([np.zeros(0, np.uint8), *parts])
        stretches = [*self.index.stretches(letters), *self.index.stretches(_ROT13[letters])]
        stretches += [
            Stretch(len(letters) - one.end, len(letters) - one.begin)
            for one in self.index.stretches(letters[::-1])
        ]
        found = _Found(set(), set())
        for begin, end in stretches:
            first, last = (np.searchsorted(ends, [begin, end - 1], side="right") - 1).tolist()
            found.inside.update(range(first, last + 1))
            for number in range(first - 1, -1, -1):
                if not len(parts[number]) or begin - ends[number] > _EDGE_LETTERS:
                    break
                found.beside.add(number)
            for number in range(last + 1, len(lines)):
                if not len(parts[number]) or ends[number + 1] - end > _EDGE_LETTERS:
                    break
                found.beside.add(number)
        return found

    def _holds_code(self, text: str) -> bool | None:
        """Whether an encoded run or a run of numbers decodes to text of the corpus; `None` if it is too much."""
        decoded = decode_runs(text, self.tokens, _MAX_DECODED_BYTES)
        if decoded is None:
            return None
        return any(self.index.stretches(find_letters(one).values) for one in decoded)

    def _encoded(self, lines: Sequence[str]) -> set[int]:
        """Find lines with codes of the corpus, by bisection."""
        whole = self._holds_code("\n".join(lines))
        if whole is None:
            return set(range(len(lines)))
        found: set[int] = set()
        waiting = [(0, len(lines))] if whole else []
        while waiting:
            begin, end = waiting.pop()
            if end - begin == 1:
                found.add(begin)
                continue
            middle = (begin + end) // 2
            halves = [(begin, middle), (middle, end)]
            with_code = [half for half in halves if self._holds_code("\n".join(lines[half[0] : half[1]]))]
            waiting += with_code
            if not with_code:
                found |= self._over_the_middle(lines, begin, middle, end)
        return found

    def _over_the_middle(self, lines: Sequence[str], begin: int, middle: int, end: int) -> set[int]:
        """Narrow down lines that contain a code only together to those that it needs."""
        first, behind = begin, middle
        while behind - first > 1:
            at = (first + behind) // 2
            first, behind = (at, behind) if self._holds_code("\n".join(lines[at:end])) else (first, at)
        before, last = middle, end
        while last - before > 1:
            at = (before + last) // 2
            before, last = (before, at) if self._holds_code("\n".join(lines[first:at])) else (at, last)
        return set(range(first, last))


def _code_beside(lines: Sequence[str], number: int) -> set[int]:
    """Find consecutive lines of nothing but code next to a line of code: the rest of a long code."""
    found: set[int] = set()
    if _CODE_ALONE.fullmatch(lines[number]):
        for step in (1, -1):
            beside = number + step
            while 0 <= beside < len(lines) and _CODE_ALONE.fullmatch(lines[beside]):
                found.add(beside)
                beside += step
    return found


def _shapes(lines: Sequence[str]) -> list[bytes]:
    """Reduce lines to their letters; empty for a single word, or for a line that is too short to compare."""
    shapes = []
    for line in lines:
        letters = find_letters(line.encode("utf-8", "replace"))
        is_one_word = not len(letters.places) or letters.places[-1] - letters.places[0] < len(letters.places)
        short = len(letters.values) < _MIN_REPEATED_LETTERS
        shapes.append(b"" if short or is_one_word else letters.values.tobytes())
    return shapes


def _readings(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield a log as it stands, and with its escapes resolved; lines keep their numbers."""
    for resolve in (_as_it_stands, _resolved):
        reading = [resolve(line) for line in lines]
        if resolve is _resolved and reading == list(lines):
            return
        seen: set[bytes] = set()
        for number, shape in enumerate(_shapes(reading)):
            if shape and shape in seen:
                reading[number] = ""
            seen.add(shape)
        yield reading


def _as_it_stands(line: str) -> str:
    return line


def _resolved(line: str) -> str:
    """Resolve the escapes of `repr` of the text, of `repr` of its bytes, and of JSON."""
    line = _BYTES.sub(lambda found: bytes.fromhex(found[0].replace("\\x", "")).decode("utf-8", "replace"), line)
    line = _CODE_UNITS.sub(
        lambda found: bytes.fromhex(found[0].replace("\\u", "")).decode("utf-16-be", "replace"), line
    )
    line = _CODE_POINT.sub(lambda found: _character(int(found[1], 16)), line)
    return _OTHER_ESCAPE.sub(" ", line)


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else " "


def _columns(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the n-th words of all lines, and the last words; nothing for lines of one word, which are no table."""
    words = [line.split() for line in lines]
    width = max((len(line) for line in words), default=0)
    if width < 2 or len(lines) < _MIN_COLUMN_LINES:
        return
    for place in (*range(min(width, _MAX_COLUMNS)), -1):
        column = [line[place] if place < len(line) and line else "" for line in words]
        if len(set(column)) > _MIN_COLUMN_LINES:
            yield column
