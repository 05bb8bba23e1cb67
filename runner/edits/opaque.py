"""A size limit for opaque data in a candidate's files: numbers, and strings that are not made of words.

Sealed text could hide in such data in a code that `contamination` does not read. Opaque data is therefore limited
in size, whatever it says.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from runner.edits.parsing import literals
from runner.records import Files

MAX_OPAQUE_BYTES = 4 * 1024
"""Limit for the whole of `workload/`, which ships with 400 bytes of opaque data.

The size bounds what such data can hide, 8 bits a byte, spread over the bytes of the split: 0.0004 bpb of
validation with the profile `cuda`, below its noise, and 0.03 bpb with the small split of `cpu`."""

# Possessive (`++`): hostile text must not make a search quadratic.
_NUMBER = re.compile(
    r"(?<![\w.])(?:0[xXbBoO][0-9a-fA-F_]++|(?:\d[\d_]*+(?:\.[\d_]*+)?+|\.\d[\d_]*+)(?:[eE][-+]?\d++)?+)(?!\w)"
)
_COMMENT = re.compile(r"(?m)(?:^|\s)#(.*)$")
_LONG_TOKEN = re.compile(r"\S{12,}")
_PIECE = re.compile(r"[^\W_]{4,}")
_WORD = re.compile(r"[A-Z]{0,24}[a-zÀ-ɏ]{0,24}\d{0,6}|[a-z]{0,24}(?:[A-Z]{1,5}[a-zÀ-ɏ]{2,24}){1,8}\d{0,4}")
# Neither Latin nor typography, arrows, mathematics or the drawing of boxes.
_FOREIGN = re.compile("[\0-\x08\x0e-\x1f\x7f-\x9f\u0250-\u200f\u2300-\u24ff\u2580-\U0010ffff]")


def check_size(before: Files, after: Files) -> str | None:
    """Refuse more opaque data than allowed, unless the tree had as much before.

    Returns:
        The reason for a refusal, or `None`.
    """
    amounts = {path: _opaque_bytes(path.endswith(".py"), data) for path, data in after.items()}
    total = sum(amounts.values())
    if total <= MAX_OPAQUE_BYTES:
        return None
    if total <= sum(_opaque_bytes(path.endswith(".py"), data) for path, data in before.items()):
        return None
    most = max(sorted(amounts), key=amounts.__getitem__)
    return (
        f"workload/ would contain {total:,} bytes of numbers and of strings that are not words, most of them in "
        f"{most}; at most {MAX_OPAQUE_BYTES:,} are allowed: large tables do not belong in training code; "
        "compute or learn them"
    )


@lru_cache(maxsize=256)
def _opaque_bytes(is_python: bool, data: bytes) -> int:
    text = data.decode("utf-8", "replace")
    found = literals(data) if is_python else None
    prose = text if found is None else "\n".join((*found.strings, *_COMMENT.findall(text)))
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
    """Whether words make up less than half of a token; a ruler of a few different characters does not count."""
    return len(set(token)) > 6 and 2 * sum(len(one) for one in _PIECE.findall(token) if _is_word(one)) < len(token)
