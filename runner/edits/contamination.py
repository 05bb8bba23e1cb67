"""Sealed text in a candidate's files: validation or test rows that came in with an edit. Pure.

A proposer never sees the sealed splits, but the corpora are public: a language model may know them by heart, or
be told. So every changed file is read in every way that a short program could read it, and compared with
the 13-word shingles of both splits:

- its text as it stands: code, comments, quotes and line breaks between words do not matter
- its string literals, with escapes resolved, joined and spaced, also over all files of `workload/` together
- reversed, word by word in reverse, and rot13
- base16, 32, 64 and 85, then zlib, gzip, bz2, lzma and raw deflate, up to `MAX_DEPTH` levels deep
- numbers, in lists or in text, as token ids, as characters, as bytes, as little and big endian words, as bits

**One hit refuses.** Preparation made the splits disjoint from training text at the same 13 words, so a phrase
that many texts share (a licence, a proverb, counting to twenty) is in neither sealed split, and a chance
collision of 64-bit hashes needs some 10^12 words. Only what an edit adds counts: what `before` held in any
reading is no news.

What none of these could be (see `MAX_OPAQUE_BYTES`) is limited in size, whatever it says: numbers, and strings
that are not made of words.

Not covered: encryption and home-made codes, among them small changes before decoding (an offset on every
id, pieces of fewer than 13 words put together in another order, names in CamelCase, a word of its own for every
token id); weights of a model below the size limit; paraphrase, translation, and what
`locked_eval.preparation.shingles` does not cover. Such a code is limited by its size, not found.
"""

from __future__ import annotations

import ast
import base64
import binascii
import bz2
import lzma
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from locked_eval.preparation.shingles import Hashes, normalize, shingle
from runner.edits.parsing import parse
from runner.records import Files

MAX_OPAQUE_BYTES = 4 * 1024
"""Of numbers and of strings that are not words, in the whole of `workload/`. The workload as shipped has 400
bytes of them. What such data can hide is bounded by its size, 8 bits a byte, spread over the bytes of the split:
0.0004 bpb of validation with the profile `cuda`, below its noise, and 0.03 bpb with the small split of `cpu`."""
MAX_DEPTH = 4
MAX_DECODED_BYTES = 8 << 20
"""Of everything that literals unpack to: a bomb is refused, not unpacked."""

_MIN_CANDIDATE = 32  # characters of an encoded text; 13 words do not fit in fewer
_MIN_NUMBERS = 8
_ATTEMPT_BYTES = 512  # what one decoded piece costs besides its size: many small ones take time too
_BATCH_BYTES = 4 << 20  # of readings that are hashed at a time
_PRINTABLE = bytes(range(0x20, 0x7F)) + b"\n\t\r"
_ROT13 = bytes.maketrans(
    b"ABCDEFGHIJKLMabcdefghijklmNOPQRSTUVWXYZnopqrstuvwxyz",
    b"NOPQRSTUVWXYZnopqrstuvwxyzABCDEFGHIJKLMabcdefghijklm",
)

# Possessive (`++`): hostile text must not make a search quadratic.
_WHOLE = r"(?:0[xX][0-9a-fA-F]++|\d++(?:\.0*+)?+)"
_NUMBERS = re.compile(rf"(?<![\w.]){_WHOLE}(?:[^\w.]++{_WHOLE}){{{_MIN_NUMBERS - 1},}}+")
_NUMBER = re.compile(
    r"(?<![\w.])(?:0[xXbBoO][0-9a-fA-F_]++|(?:\d[\d_]*+(?:\.[\d_]*+)?+|\.\d[\d_]*+)(?:[eE][-+]?\d++)?+)(?!\w)"
)
_INTEGER = re.compile(r"0[xX][0-9a-fA-F]+|\d+(?=(?:\.0*)?(?:\D|$))")
_HUGE = re.compile(r"(?<!\w)(?:0[xX][0-9a-fA-F_]{32,}+|\d{40,4000}+)(?!\w)")
_ENCODED = re.compile(rf"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{{{_MIN_CANDIDATE},}}+={{0,2}}")
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{2,3})|([abfnrtv\n]))|[%=]([0-9a-fA-F]{2})"
)
_COMMENT = re.compile(r"(?m)(?:^|\s)#(.*)$")
_LONG_TOKEN = re.compile(r"\S{12,}")
_PIECE = re.compile(r"[^\W_]{4,}")
_WORD = re.compile(r"[A-Z]{0,24}[a-zÀ-ɏ]{0,24}\d{0,6}|[a-z]{0,24}(?:[A-Z]{1,5}[a-zÀ-ɏ]{2,24}){1,8}\d{0,4}")
# Neither Latin nor typography, arrows, mathematics or the drawing of boxes.
_FOREIGN = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\u0250-\u200f\u2300-\u24ff\u2580-\U0010ffff]")
# Runs of an alphabet: something else may stand before a code and behind it.
_DIGIT = re.compile("[0-9]")
_HEX = re.compile(rf"[0-9a-fA-F]{{{_MIN_CANDIDATE},}}+")
_BASE32 = re.compile(rf"[A-Z2-7]{{{_MIN_CANDIDATE},}}+")
_BASE64 = re.compile(rf"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{{{_MIN_CANDIDATE},}}+")
_BASE64_URL = re.compile(rf"(?<![A-Za-z0-9_=-])[A-Za-z0-9_=-]{{{_MIN_CANDIDATE},}}+")
_BASE85 = re.compile(r"[0-9A-Za-z!#$%&()*+\-;<=>?@^_`{|}~]+")
_ASCII85 = re.compile(r"(?:<~)?[!-uz]+(?:~>)?")
# How base64 of zlib, gzip, bz2 and xz begins.
_PACKED = re.compile(r"eJ|eN|eA|H4sI|QlpoO|/Td6WFo")


@dataclass(frozen=True)
class SealedText:
    """What must not come into the files.

    Args:
        validation: `(S,)` sorted hashes of the split's shingles, each once; see `preparation.shingles`.
        test: `(S,)` the same of the other sealed split.
        tokens: raw bytes by token id.
    """

    validation: npt.NDArray[np.uint64]
    test: npt.NDArray[np.uint64]
    tokens: Sequence[bytes]


def find(before: Files, after: Files, sealed: SealedText) -> str | None:
    """Look for sealed text, and for data that could hide it, in what an edit added.

    Returns: a sentence that names the file and how the text was found, never the text; None when all is well.
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
                    return f"{one.path} holds validation or test text ({one.how}): none may come in with an edit"
    except _TooMuch as error:
        return str(error)
    return _refuse_opaque(before, after)


def decode_runs(text: str, tokens: Sequence[bytes], max_bytes: int) -> list[bytes] | None:
    """What the encoded runs and the runs of numbers in a text stand for, read in every way.

    Args:
        tokens: raw bytes by token id.
        max_bytes: of what they unpack to, and a part for every attempt.

    Returns: None when it is more.
    """
    reader = _Reader("", tokens, _Budget(max_bytes))
    try:
        reader.codes("", text, 0)
    except _TooMuch:
        return None
    return [reading.text for reading in reader.readings]


class _Reading(NamedTuple):
    path: str
    how: str
    text: bytes


class _TooMuch(Exception):
    """Decoding gives more than anybody wants to look at; the message is the reason of a refusal."""


def _batches(before: Files, after: Files, tokens: Sequence[bytes]) -> Iterator[list[_Reading]]:
    """Readings of the changed files, and of all files together."""
    readings = _read_together(after)
    budget = _Budget()
    size = 0
    for path in sorted(after):
        if before.get(path) != after[path]:
            added = _read_file(path, after[path], tokens, budget)
            readings += added
            size += sum(len(reading.text) for reading in added)
            if size > _BATCH_BYTES:
                yield readings
                readings, size = [], 0
    yield readings


def _once(hashes: Hashes) -> Hashes:
    """Ascending and each once: then neighbouring searches meet in the processor's cache."""
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
    """Sealed shingles that the files held already, in any reading."""
    parts = [np.zeros(0, np.uint64)]
    for readings in _batches({}, before, sealed.tokens):
        hashes = _once(shingle([reading.text for reading in readings]).hashes)
        parts += [_common(hashes, sealed.validation), _common(hashes, sealed.test)]
    return np.concatenate(parts)


class _Literals(NamedTuple):
    """Constants of a Python file in the order of its source, implicit concatenations joined."""

    strings: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]  # the strings by statement
    blobs: tuple[bytes, ...]
    integers: tuple[int, ...]


@lru_cache(maxsize=256)
def _literals(data: bytes) -> _Literals | None:
    """None for what is no Python."""
    tree = parse(data)
    if tree is None:
        return None
    strings: list[str] = []
    starts: list[int] = []
    blobs: list[bytes] = []
    integers: list[int] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, str):
                strings.append(value)
            elif isinstance(value, bytes):
                blobs.append(value)
                strings.append(value.decode("latin-1"))
            elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
                integers.append(int(value))
            continue
        if isinstance(node, ast.stmt):
            starts.append(len(strings))
        for name in node._fields[::-1]:
            child = getattr(node, name, None)
            if isinstance(child, list):
                waiting.extend([one for one in child[::-1] if isinstance(one, ast.AST)])
            elif isinstance(child, ast.AST):
                waiting.append(child)
    groups = [tuple(strings[start:end]) for start, end in pairwise([*starts, len(strings)]) if end > start]
    return _Literals(tuple(strings), tuple(groups), tuple(blobs), tuple(integers))


def _read_together(files: Files) -> list[_Reading]:
    """String literals of all Python files as one text: pieces of a phrase may lie in different ones."""
    strings: list[str] = []
    for path in sorted(files):
        found = _literals(files[path]) if path.endswith(".py") else None
        strings += found.strings if found is not None else ()
    return [
        _Reading("workload/", "strings of its files, joined", separator.join(strings).encode("utf-8", "replace"))
        for separator in ("", " ")
    ]


def _read_file(path: str, data: bytes, tokens: Sequence[bytes], budget: _Budget) -> list[_Reading]:
    """Every reading of one file.

    Raises:
        _TooMuch: the budget is spent.
    """
    reader = _Reader(path, tokens, budget)
    text = data.decode("utf-8", "replace")
    literals = _literals(data) if path.endswith(".py") else None
    reader.prose("as it stands", text)
    reader.add("without its numbers", re.sub(r"\d+", " ", text).encode("utf-8", "replace"))
    resolved = _ESCAPE.sub(_resolve, text)
    if resolved != text:
        reader.add("with escapes resolved", resolved.encode("utf-8", "replace"))
    reader.codes("", text, 0)
    if literals is None:
        return reader.readings
    strings = literals.strings
    reader.prose("in its strings", "".join(strings))
    reader.prose("in its strings", " ".join(strings))
    reader.add(
        "in its strings", " ".join([one for one in strings if " " in one.strip()]).encode("utf-8", "replace")
    )
    for blob in literals.blobs:
        reader.bytes_of("bytes", blob, 0)
    if len(literals.blobs) > 1:
        reader.bytes_of("bytes", b"".join(literals.blobs), 0)
    for group in (strings, *literals.groups):
        for candidate in _candidates(group):
            reader.encoded("", candidate, 0)
    for string in strings:
        if len(string) >= _MIN_NUMBERS and not string.isascii():
            reader.numbers("characters", [ord(character) for character in string], 0)
    reader.numbers("numbers", literals.integers, 0)
    for number in literals.integers:
        if abs(number) >= 1 << 128:
            reader.huge("a number", abs(number), 0)
    return reader.readings


@dataclass
class _Budget:
    """For decoding, of one tree."""

    left_bytes: int = MAX_DECODED_BYTES

    def spend(self, path: str, num_bytes: int) -> None:
        self.left_bytes -= num_bytes
        if self.left_bytes < 0:
            raise _TooMuch(f"{path} holds encoded data that unpacks to more than {MAX_DECODED_BYTES >> 20} MiB")


@dataclass
class _Reader:
    """Collects readings, and stops when they become too many."""

    path: str
    tokens: Sequence[bytes]
    budget: _Budget
    readings: list[_Reading] = field(default_factory=list)
    seen: set[bytes | str] = field(default_factory=set)

    def add(self, how: str, text: bytes) -> None:
        self.readings.append(_Reading(self.path, how, text))

    def prose(self, how: str, text: str) -> None:
        """Text as it is, backwards by letters and by words, and rot13."""
        data = text.encode("utf-8", "replace")
        self.add(how, data)
        self.add(f"{how}, reversed", text[::-1].encode("utf-8", "replace"))
        self.add(f"{how}, word by word reversed", b" ".join(normalize(data).split()[::-1]))
        self.add(f"{how}, rot13", data.translate(_ROT13))

    def codes(self, how: str, text: str, depth: int) -> None:
        """Encoded runs and runs of numbers that stand in a text."""
        for candidate in [*_ENCODED.findall(text), *_dense_lines(text)]:
            self.encoded(how, candidate, depth)
        for run in _NUMBERS.findall(text):
            values = [_integer(number) for number in _INTEGER.findall(run)]
            self.numbers(f"{how}numbers", [value for value in values if value is not None], depth)
        for number in _HUGE.findall(text):
            value = _integer(number.replace("_", ""))
            if value is not None:
                self.huge(f"{how}a number", value, depth)

    def encoded(self, how: str, text: str, depth: int) -> None:
        """One string without white space, in every encoding that it may be in."""
        if text in self.seen or len(text) < _MIN_CANDIDATE or not text.isascii():
            return
        self.seen.add(text)
        if not _DIGIT.search(text) and (text.islower() or text.isupper()):
            return  # names: 32 characters of any code hold a digit, or capitals among small letters
        for turned, name in ((text, ""), (text[::-1], "reversed, ")):
            for kind, value in _decodings(turned):
                self.bytes_of(f"{how}{name}{kind}", value, depth)

    def bytes_of(self, how: str, data: bytes, depth: int) -> None:
        """Binary data: as text, as token ids, and unpacked."""
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
            # Whatever it is, it is not ids if most of it is above the vocabulary.
            if len(ids) >= _MIN_NUMBERS and 2 * np.count_nonzero(ids < len(self.tokens)) > len(ids):
                self.ids(how, ids.tolist())
        if depth >= MAX_DEPTH:
            return
        for packing, unpack in _UNPACKERS:
            unpacked = unpack(data, self.budget.left_bytes + 1)
            if unpacked:
                self.bytes_of(f"{how}, {packing}", unpacked, depth + 1)
        if len(data.translate(None, _PRINTABLE)) * 20 < len(data):
            text = data.decode("utf-8", "replace")
            self.codes(f"{how}, ", text, depth + 1)

    def numbers(self, how: str, values: Sequence[int], depth: int) -> None:
        """A run of whole numbers."""
        if len(values) < _MIN_NUMBERS:
            return
        values = [abs(value) for value in values]
        largest = max(values)
        self.ids(how, values)
        self.add(
            f"{how} as characters", "".join([_character(value) for value in values]).encode("utf-8", "replace")
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
        """Token ids, forwards and backwards."""
        size = len(self.tokens)
        pieces = [self.tokens[value] if value < size else b" " for value in values]
        self.budget.spend(self.path, 2 * sum(map(len, pieces)))
        self.add(f"{how} as token ids", b"".join(pieces))
        self.add(f"{how} as token ids, reversed", b"".join(pieces[::-1]))

    def huge(self, how: str, value: int, depth: int) -> None:
        """A number of many digits is a string of bytes."""
        data = value.to_bytes((value.bit_length() + 7) // 8, "big")
        self.bytes_of(f"{how} as bytes", data, depth)
        self.bytes_of(f"{how} as bytes", data[::-1], depth)


def _character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else " "


def _integer(text: str) -> int | None:
    try:
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    except ValueError:  # more digits than Python converts
        return None


def _resolve(match: re.Match[str]) -> str:
    """An escape sequence as what it stands for."""
    two, four, eight, octal, letter, percent = match.groups()
    code = two or four or eight or percent
    if code is not None:
        return _character(int(code, 16))
    return " " if letter is not None else _character(int(octal, 8))


def _candidates(strings: Iterable[str]) -> Iterator[str]:
    """Strings that may be encoded: those without spaces, alone and together with their neighbours."""
    run: list[str] = []
    for string in strings:
        packed = "".join(string.split())
        if len(packed) < len(string) * 9 // 10:  # words
            if len(run) > 1:
                yield "".join(run)
            run = []
            continue
        run.append(packed)
        yield packed
    if len(run) > 1:
        yield "".join(run)


def _dense_lines(text: str) -> Iterator[str]:
    """Neighbouring lines that hold one long run of characters each, joined: a wrapped code, in a comment say."""
    run: list[str] = []
    for line in text.split("\n"):
        core = line.strip(" \t#\"',()[]\\")
        if len(core) >= 16 and " " not in core:
            run.append(core.removeprefix('b"').removeprefix("b'"))
        elif core or not line:  # a line of quotes alone opens or closes the code
            if run:
                yield "".join(run)
            run = []
    if run:
        yield "".join(run)


def _decodings(text: str) -> Iterator[tuple[str, bytes]]:
    """What a text without white space may be the code of."""
    whole = _HEX.fullmatch(text) is not None
    for code in _HEX.findall(text):
        for start in (0, 1):
            yield "base16", bytes.fromhex(code[start : start + (len(code) - start) // 2 * 2])
    for code in _BASE32.findall(text):
        size = len(code) // 8 * 8 + (len(code) % 8 if len(code) % 8 in (2, 4, 5, 7) else 0)
        yield from _attempt("base32", lambda: base64.b32decode(code[:size] + "=" * (-size % 8)))  # noqa: B023
    for code in _BASE64.findall(text):
        yield from _base64(code)
    for code in _BASE64_URL.findall(text):
        if "-" in code or "_" in code:
            yield from _base64(code.replace("-", "+").replace("_", "/"))
    if whole:
        return
    if _BASE85.fullmatch(text):
        yield from _attempt("base85", lambda: base64.b85decode(text))
    if _ASCII85.fullmatch(text):
        core = text.removeprefix("<~").removesuffix("~>")
        yield from _attempt("base85", lambda: base64.a85decode(core))


def _base64(text: str) -> Iterator[tuple[str, bytes]]:
    """From every place where a code may begin: something else may stand before it."""
    parts = [part for part in re.split("=+", text) if part]
    if len(parts) > 1:
        yield "base64", b"".join([_base64_part(part) for part in parts])
    whole = "".join(parts)
    packed = [match.start() for match in _PACKED.finditer(whole)][:16]
    for start in dict.fromkeys([0, 1, 2, 3, *packed]):
        yield "base64", _base64_part(whole[start:])


def _base64_part(text: str) -> bytes:
    size = len(text) - (len(text) % 4 == 1)
    return binascii.a2b_base64(text[:size] + "=" * (-size % 4))


def _attempt(name: str, decode: Callable[[], bytes]) -> Iterator[tuple[str, bytes]]:
    try:
        yield name, decode()
    except ValueError:
        return


def _inflate(data: bytes, limit: int) -> bytes:
    """zlib, gzip or bare deflate, at most `limit` bytes of it; checksums do not matter."""
    starts = (
        (2, -15) if data[:1] in (b"\x78", b"\x58", b"\x38") else None,
        (0, 31) if data[:2] == b"\x1f\x8b" else None,
        (10, -15) if data[:2] == b"\x1f\x8b" else None,
        (0, -15),
    )
    for start, window in filter(None, starts):
        try:
            stream = zlib.decompressobj(window)
            found = stream.decompress(data[start:], limit)
        except zlib.error:
            continue
        if found and (stream.eof or len(found) > len(data)):
            return found
    return b""


def _bunzip(data: bytes, limit: int) -> bytes:
    if data[:3] != b"BZh":
        return b""
    try:
        return bz2.BZ2Decompressor().decompress(data, limit)
    except (OSError, EOFError):
        return b""


def _unlzma(data: bytes, limit: int) -> bytes:
    if data[:6] != b"\xfd7zXZ\0" and data[:1] != b"\x5d":
        return b""
    try:
        return lzma.LZMADecompressor(memlimit=64 << 20).decompress(data, limit)
    except (lzma.LZMAError, EOFError):
        return b""


_UNPACKERS: tuple[tuple[str, Callable[[bytes, int], bytes]], ...] = (
    ("deflate", _inflate),
    ("bz2", _bunzip),
    ("lzma", _unlzma),
)


def _refuse_opaque(before: Files, after: Files) -> str | None:
    """Refuse more opaque data than allowed, unless the tree held as much before."""
    amounts = {path: _opaque_bytes(path.endswith(".py"), data) for path, data in after.items()}
    total = sum(amounts.values())
    if total <= MAX_OPAQUE_BYTES:
        return None
    if total <= sum(_opaque_bytes(path.endswith(".py"), data) for path, data in before.items()):
        return None
    most = max(sorted(amounts), key=amounts.__getitem__)
    return (
        f"workload/ would hold {total:,} bytes of numbers and of strings that are not words, most of them in "
        f"{most}; at most {MAX_OPAQUE_BYTES:,} are allowed: large tables do not belong into training code, "
        "compute or learn them"
    )


@lru_cache(maxsize=256)
def _opaque_bytes(is_python: bool, data: bytes) -> int:
    """How much of a file is numbers, or strings that are not made of words."""
    text = data.decode("utf-8", "replace")
    literals = _literals(data) if is_python else None
    prose = text if literals is None else "\n".join((*literals.strings, *_COMMENT.findall(text)))
    pieces = Counter(_PIECE.findall(_LONG_TOKEN.sub(" ", prose)))
    return (
        sum(map(len, _NUMBER.findall(text)))
        + sum(len(one) * count for one, count in pieces.items() if not _is_word(one))
        + sum(len(token) for token in _LONG_TOKEN.findall(prose) if _is_opaque(token))
        + 2 * len(_FOREIGN.findall(prose))
    )


def _is_word(piece: str) -> bool:
    return not piece.isascii() or _WORD.fullmatch(piece) is not None  # foreign letters are counted by themselves


def _is_opaque(token: str) -> bool:
    """Whether words make up less than half of it; a ruler of a few different characters is not meant."""
    return len(set(token)) > 6 and 2 * sum(len(one) for one in _PIECE.findall(token) if _is_word(one)) < len(token)
