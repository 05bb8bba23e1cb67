"""Readings of a text: every way in which a short program could read it. Pure.

A `Reader` collects the text itself, backwards, in rot13, and everything that its encoded runs and its runs of
numbers stand for. A `Budget` bounds the work: a decompression bomb is refused, not unpacked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from locked_eval.preparation.shingles import normalize
from runner.edits.decoding import (
    MIN_CODE,
    UNPACKERS,
    candidates,
    character,
    decodings,
    dense_lines,
    integer,
    resolve_escapes,
)
from runner.edits.parsing import literals

MAX_DEPTH = 4
MAX_DECODED_BYTES = 8 << 20
"""Limit for everything that the literals of a tree decode to."""

_MIN_NUMBERS = 8
_ATTEMPT_BYTES = 512  # cost of one decoded piece besides its size: many small ones take time too
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\n\t\r"
_ROT13 = bytes.maketrans(
    b"ABCDEFGHIJKLMabcdefghijklmNOPQRSTUVWXYZnopqrstuvwxyz",
    b"NOPQRSTUVWXYZnopqrstuvwxyzABCDEFGHIJKLMabcdefghijklm",
)

# Possessive (`++`): hostile text must not make a search quadratic.
_WHOLE = r"(?:0[xX][0-9a-fA-F]++|\d++(?:\.0*+)?+)"
_NUMBERS = re.compile(rf"(?<![\w.]){_WHOLE}(?:[^\w.]++{_WHOLE}){{{_MIN_NUMBERS - 1},}}+")
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|\d+(?=(?:\.0*)?(?:\D|$))")
_HUGE = re.compile(r"(?<!\w)(?:0[xX][0-9a-fA-F_]{32,}+|\d{40,4000}+)(?!\w)")
_ENCODED = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{MIN_CODE},}}+={{0,2}}")
_DIGIT = re.compile("[0-9]")


class Reading(NamedTuple):
    """One reading of a file."""

    path: str
    how: str  # for the reason of a refusal: "numbers as token ids, reversed"
    text: bytes


class BudgetExceeded(Exception):
    """Decoding gives too much to examine; the message is the reason for a refusal."""


@dataclass
class Budget:
    """Bytes that decoding one tree may still produce."""

    left_bytes: int = MAX_DECODED_BYTES

    def spend(self, path: str, num_bytes: int) -> None:
        self.left_bytes -= num_bytes
        if self.left_bytes < 0:
            raise BudgetExceeded(
                f"{path} contains encoded data that unpacks to more than {MAX_DECODED_BYTES >> 20} MiB"
            )


@dataclass
class Reader:
    """Collects the readings of one file; raises `BudgetExceeded` when they become too many."""

    path: str
    tokens: Sequence[bytes]
    budget: Budget
    readings: list[Reading] = field(default_factory=list)
    seen: set[bytes | str] = field(default_factory=set)

    def add(self, how: str, text: bytes) -> None:
        self.readings.append(Reading(self.path, how, text))

    def prose(self, how: str, text: str) -> None:
        """Read text as it is, backwards by letters and by words, and in rot13."""
        data = text.encode("utf-8", "replace")
        self.add(how, data)
        self.add(f"{how}, reversed", text[::-1].encode("utf-8", "replace"))
        self.add(f"{how}, word by word reversed", b" ".join(normalize(data).split()[::-1]))
        self.add(f"{how}, rot13", data.translate(_ROT13))

    def codes(self, how: str, text: str, depth: int) -> None:
        """Read the encoded runs and the runs of numbers in a text."""
        for candidate in [*_ENCODED.findall(text), *dense_lines(text)]:
            self.encoded(how, candidate, depth)
        for run in _NUMBERS.findall(text):
            values = [integer(number) for number in _INTEGER.findall(run)]
            self.numbers(f"{how}numbers", [value for value in values if value is not None], depth)
        for number in _HUGE.findall(text):
            value = integer(number.replace("_", ""))
            if value is not None:
                self.huge(f"{how}a number", value, depth)

    def encoded(self, how: str, text: str, depth: int) -> None:
        """Read a string without white space in every encoding that it may be in."""
        if text in self.seen or len(text) < MIN_CODE or not text.isascii():
            return
        self.seen.add(text)
        if not _DIGIT.search(text) and (text.islower() or text.isupper()):
            return  # names: 32 characters of any code contain a digit, or both cases
        for turned, name in ((text, ""), (text[::-1], "reversed, ")):
            for kind, value in decodings(turned):
                self.bytes_of(f"{how}{name}{kind}", value, depth)

    def bytes_of(self, how: str, data: bytes, depth: int) -> None:
        """Read binary data as text, as token ids, and unpacked."""
        if len(data) < 16 or data in self.seen:
            return
        self.seen.add(data)
        self.budget.spend(self.path, len(data) + _ATTEMPT_BYTES)
        self.add(how, data)
        self.add(f"{how}, reversed", data[::-1])
        self.add(f"{how}, rot13", data.translate(_ROT13))
        if b"\0" in data:
            self.add(f"{how}, UTF-16", data.replace(b"\0", b""))
        for kind in ("<u2", ">u2", "<u4", ">u4"):
            ids = np.frombuffer(data[: len(data) // 4 * 4], kind)
            # Values that mostly exceed the vocabulary are not token ids.
            if len(ids) >= _MIN_NUMBERS and 2 * np.count_nonzero(ids < len(self.tokens)) > len(ids):
                self.ids(how, ids.tolist())
        if depth >= MAX_DEPTH:
            return
        for packing, unpack in UNPACKERS:
            unpacked = unpack(data, self.budget.left_bytes + 1)
            if unpacked:
                self.bytes_of(f"{how}, {packing}", unpacked, depth + 1)
        if len(data.translate(None, _PRINTABLE)) * 20 < len(data):
            text = data.decode("utf-8", "replace")
            self.codes(f"{how}, ", text, depth + 1)

    def numbers(self, how: str, values: Sequence[int], depth: int) -> None:
        """Read a run of whole numbers as token ids, characters, bits and bytes."""
        if len(values) < _MIN_NUMBERS:
            return
        values = [abs(value) for value in values]
        largest = max(values)
        self.ids(how, values)
        self.add(
            f"{how} as characters", "".join([character(value) for value in values]).encode("utf-8", "replace")
        )
        self.budget.spend(self.path, 8 * len(values))
        if largest <= 1:
            bits = np.array(values, np.uint8)
            self.bytes_of(f"{how} as bits", np.packbits(bits).tobytes(), depth)
            self.bytes_of(f"{how} as bits", np.packbits(bits, bitorder="little").tobytes(), depth)
        width = next((width for width in (1, 2, 4, 8) if largest < 1 << 8 * width), None)
        if width is not None:
            words = np.array(values, np.uint64)
            self.bytes_of(f"{how} as bytes", words.astype(f"<u{width}").tobytes(), depth)
            self.bytes_of(f"{how} as bytes", words.astype(f">u{width}").tobytes(), depth)

    def ids(self, how: str, values: Sequence[int]) -> None:
        """Read token ids, forwards and backwards."""
        size = len(self.tokens)
        pieces = [self.tokens[value] if value < size else b" " for value in values]
        self.budget.spend(self.path, 2 * sum(map(len, pieces)))
        self.add(f"{how} as token ids", b"".join(pieces))
        self.add(f"{how} as token ids, reversed", b"".join(pieces[::-1]))

    def huge(self, how: str, value: int, depth: int) -> None:
        """Read a number of many digits as a string of bytes."""
        data = value.to_bytes((value.bit_length() + 7) // 8, "big")
        self.bytes_of(f"{how} as bytes", data, depth)
        self.bytes_of(f"{how} as bytes", data[::-1], depth)


def decode_runs(text: str, tokens: Sequence[bytes], max_bytes: int) -> list[bytes] | None:
    """Decode the encoded runs and the runs of numbers in a text, in every way.

    Args:
        tokens: raw bytes by token id.
        max_bytes: limit for what they decode to, with a surcharge for every attempt.

    Returns:
        The decoded texts; `None` when they exceed the limit.
    """
    reader = Reader("", tokens, Budget(max_bytes))
    try:
        reader.codes("", text, 0)
    except BudgetExceeded:
        return None
    return [reading.text for reading in reader.readings]


def read_file(path: str, data: bytes, tokens: Sequence[bytes], budget: Budget) -> list[Reading]:
    """Collect every reading of one file.

    Raises:
        BudgetExceeded: the budget is spent.
    """
    reader = Reader(path, tokens, budget)
    text = data.decode("utf-8", "replace")
    found = literals(data) if path.endswith(".py") else None
    reader.prose("as it stands", text)
    reader.add("without its numbers", re.sub(r"\d+", " ", text).encode("utf-8", "replace"))
    resolved = resolve_escapes(text)
    if resolved != text:
        reader.add("with escapes resolved", resolved.encode("utf-8", "replace"))
    reader.codes("", text, 0)
    if found is None:
        return reader.readings
    strings = found.strings
    reader.prose("in its strings", "".join(strings))
    reader.prose("in its strings", " ".join(strings))
    reader.add(
        "in its strings", " ".join([one for one in strings if " " in one.strip()]).encode("utf-8", "replace")
    )
    for blob in found.blobs:
        reader.bytes_of("bytes", blob, 0)
    if len(found.blobs) > 1:
        reader.bytes_of("bytes", b"".join(found.blobs), 0)
    for group in (strings, *found.groups):
        for candidate in candidates(group):
            reader.encoded("", candidate, 0)
    for string in strings:
        if len(string) >= _MIN_NUMBERS and not string.isascii():
            reader.numbers("characters", [ord(character) for character in string], 0)
    reader.numbers("numbers", found.integers, 0)
    for number in found.integers:
        if abs(number) >= 1 << 128:
            reader.huge("a number", abs(number), 0)
    return reader.readings
