"""Decoders: what a string without white space, or a piece of binary data, may stand for. Pure.

Covers base16, 32, 64 and 85, escape sequences, zlib, gzip, raw deflate, bz2 and lzma. Every decoder is bounded,
and its patterns are possessive (`++`): hostile text must not make a search quadratic.
"""

from __future__ import annotations

import base64
import binascii
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator

MIN_CODE = 32
"""Characters of an encoded text; 13 words do not fit in fewer."""

_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{2,3})|([abfnrtv\n]))|[%=]([0-9a-fA-F]{2})"
)
# Runs of an alphabet: other characters may precede and follow a code.
_HEX = re.compile(rf"[0-9a-fA-F]{{{MIN_CODE},}}+")
_BASE32 = re.compile(rf"[A-Z2-7]{{{MIN_CODE},}}+")
_BASE64 = re.compile(rf"(?<![A-Za-z0-9+/=])[A-Za-z0-9+/=]{{{MIN_CODE},}}+")
_BASE64_URL = re.compile(rf"(?<![A-Za-z0-9_=-])[A-Za-z0-9_=-]{{{MIN_CODE},}}+")
_BASE85 = re.compile(r"[0-9A-Za-z!#$%&()*+\-;<=>?@^_`{|}~]+")
_ASCII85 = re.compile(r"(?:<~)?[!-uz]+(?:~>)?")
_PACKED = re.compile(r"eJ|eN|eA|H4sI|QlpoO|/Td6WFo")
"""The beginnings of zlib, gzip, bz2 and xz in base64."""


def character(code: int) -> str:
    return chr(code) if code <= 0x10FFFF else " "


def integer(text: str) -> int | None:
    try:
        return int(text, 16) if text[:2] in ("0x", "0X") else int(text)
    except ValueError:  # more digits than Python converts
        return None


def resolve_escapes(text: str) -> str:
    """Replace the escape sequences of Python, URLs and quoted-printable text by what they stand for."""
    return _ESCAPE.sub(_resolve, text)


def _resolve(match: re.Match[str]) -> str:
    two, four, eight, octal, letter, percent = match.groups()
    code = two or four or eight or percent
    if code is not None:
        return character(int(code, 16))
    return " " if letter is not None else character(int(octal, 8))


def candidates(strings: Iterable[str]) -> Iterator[str]:
    """Strings that may be encoded: those without spaces, alone and joined with their neighbors."""
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


def dense_lines(text: str) -> Iterator[str]:
    """Join adjacent lines of one long run of characters each: a wrapped code, for example in a comment."""
    run: list[str] = []
    for line in text.split("\n"):
        core = line.strip(" \t#\"',()[]\\")
        if len(core) >= 16 and " " not in core:
            run.append(core.removeprefix('b"').removeprefix("b'"))
        elif core or not line:  # a line of quotes only opens or closes the code
            if run:
                yield "".join(run)
            run = []
    if run:
        yield "".join(run)


def decodings(text: str) -> Iterator[tuple[str, bytes]]:
    """Decode a text without white space in every encoding that it may be in; gives the encoding and the bytes."""
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
    """Decode from every position where a code may begin: other characters may precede it."""
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
    """Unpack zlib, gzip or raw deflate, at most `limit` bytes; checksums do not matter."""
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


UNPACKERS: tuple[tuple[str, Callable[[bytes, int], bytes]], ...] = (
    ("deflate", _inflate),
    ("bz2", _bunzip),
    ("lzma", _unlzma),
)
"""Name and decoder of each compression. A decoder takes data and a limit in bytes; it returns b"" on failure."""
