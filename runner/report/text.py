"""Untrusted text made harmless for a terminal, a file, a commit message and a language model's prompt.

Candidates print what they like, and a model's hypothesis is no better: escape sequences that move a
cursor or set a window title, carriage returns that hide what went before, right-to-left overrides that
show another text than the one stored, zero-width and tag characters that carry a message for a model
but show nothing to a person.

This does not judge what the visible words say.
"""

from __future__ import annotations

import re
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"

_MAX_COMBINING = 2  # real scripts rarely stack more; a tower of them covers the neighbouring lines
_RAW_CHARS_PER_LINE = 4096  # looked at before the cut: a progress bar rewrites its line many times

# Only whole sequences are taken out; a lone ESC is a control character and is replaced like any other.
# Strings (title, hyperlink) end on the same line
# and hold no second start, which keeps the search linear in hostile text.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, …
    r"|\x1b[ -/]+[0-~]"  # character sets
    r"|\x1b[0-OQ-WYZ\\`-~]"  # two-character sequences
)
# Letters, marks and symbols that show nothing: grapheme joiner, fillers of Hangul and Khmer, blank Braille.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_NEUTRALISED = re.compile(f"{REPLACEMENT}+")


def clean(text: str, max_lines: int = 50, max_chars_per_line: int = 200) -> str:
    """The last lines of untrusted text, as a person would have seen them and nothing else.

    Escape sequences go; a line that was rewritten with carriage returns keeps its last state; tabs become
    spaces; each stretch of control, format (bidirectional, zero-width, tags), invisible, private, surrogate or
    unassigned characters becomes one U+FFFD. Blank lines at the end are dropped.

    Args:
        text: decoded output, any length.
        max_lines: how many lines to keep, counted from the end.
        max_chars_per_line: longer lines keep their beginning and end in `…`.
    """
    if max_lines < 1:
        return ""
    # The tail first, so that the work is bounded whatever the length.
    tail = text[-(max_lines * _RAW_CHARS_PER_LINE) :].replace("\r\n", "\n").rstrip()
    return "\n".join(_clean_line(line, max_chars_per_line) for line in tail.split("\n")[-max_lines:])


def one_line(text: str, max_chars: int = 200) -> str:
    """Untrusted text on one line: cleaned, every stretch of white space a single space, cut with `…`."""
    head = text[: 16 * max_chars + 256]
    lines = head.count("\n") + 1
    return cut(" ".join(clean(head, max_lines=lines, max_chars_per_line=len(head)).split()), max_chars)


def cut(text: str, max_chars: int) -> str:
    """`text`, or its beginning and `…`, in at most `max_chars` characters."""
    return text if len(text) <= max_chars else text[: max(max_chars - 1, 0)].rstrip() + ELLIPSIS


def _clean_line(line: str, max_chars: int) -> str:
    shown = _ESCAPE.sub("", line).rstrip("\r").rpartition("\r")[2]
    harmless: list[str] = []
    combining = 0
    for char in shown[: 2 * max_chars].expandtabs(4):
        if char.isascii():
            combining = 0
            harmless.append(char if " " <= char <= "~" else REPLACEMENT)
            continue
        category = unicodedata.category(char)
        combining = combining + 1 if category[0] == "M" else 0
        if _is_selector(char) or combining > _MAX_COMBINING:
            continue
        is_hidden = category[0] == "C" or category in ("Zl", "Zp") or char in _INVISIBLE
        harmless.append(REPLACEMENT if is_hidden else char)
    return cut(_NEUTRALISED.sub(REPLACEMENT, "".join(harmless)).rstrip(), max_chars)


def _is_selector(char: str) -> bool:
    """Variation selectors pick a glyph's variant; a row of them after an emoji hides one byte each."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" or "\u180b" <= char <= "\u180f"
