"""Untrusted text made harmless for a terminal, a file, a commit message and a language model's prompt.

Candidates print anything, and a model's hypothesis is no better: escape sequences that move a cursor or set a
window title, carriage returns that hide what was printed before, right-to-left overrides that show different text
from what is stored, zero-width and tag characters that carry a message for a model but show nothing to a person.

`clean` and `one_line` mark hidden characters, for people; `prompt_text` and `prompt_line` drop them, for prompts.
`progress` extracts the bounded figures of a running training. Nothing here judges what the visible words say.
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
_FENCE = re.compile(r"<(?=\s*/?\s*untrusted)", re.IGNORECASE)
_PROGRESS = re.compile(
    r"step\s+(\d{1,12})\b.{0,80}?loss\s+(\d{1,9}(?:\.\d{1,9})?).{0,80}?tokens/s\s+([\d,]{1,15})"
)


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


def prompt_text(text: str, limit: int) -> str:
    """Drop control, invisible and unassigned characters except line ends and tabs; cap the length.

    Args:
        text: anything.
        limit: characters to keep, an ellipsis included.
    """
    # Capped before the work as well: the text may be megabytes.
    kept = (
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else ""
        for character in text[: 4 * limit].replace("\r\n", "\n").replace("\r", "\n")
    )
    result = "".join(kept).replace("\u2028", "\n").replace("\u2029", "\n").strip()
    return result if len(result) <= limit and len(text) <= 4 * limit else result[: limit - 1].rstrip() + "…"


def prompt_line(text: str, limit: int) -> str:
    """`prompt_text`, with every run of white space as one blank."""
    return prompt_text(" ".join(prompt_text(text, 4 * limit).split()), limit)


def fenced(kind: str, text: str) -> str:
    """Wrap untrusted text for a prompt, so that it cannot close the fence and speak as us.

    This marks where instructions do not count. It does not stop a model from following them all the same: what
    such a model submits is still only an edit that runs in the sandbox.
    """
    return f"<untrusted_{kind}>\n{_FENCE.sub('‹', text)}\n</untrusted_{kind}>"


def tokens_per_second(log_tail: str) -> float | None:
    """The speed that the last line of progress in a log claims. Untrusted: a program prints what it likes."""
    for line in reversed(log_tail.splitlines()):
        if (found := progress(line)) is not None:
            speed = found.rpartition(" ")[2].replace(",", "")
            return float(speed) if speed.strip("0") else None
    return None


def training_loss(line: str) -> float | None:
    """The loss that a line of progress claims: finite, not negative, below a billion. Untrusted."""
    found = progress(line)
    return None if found is None else float(found.split(" ")[3])


def progress(line: str) -> str | None:
    """`step 120 loss 3.214 tokens/s 31000` out of an untrusted line; None when it does not say so.

    Nothing else of the line comes through, whatever it is: numbers of bounded length, digits of ASCII.
    """
    found = _PROGRESS.search(line[:400])
    if found is None or not found[0].isascii():
        return None
    step, loss, speed = found.groups()
    return f"step {step} loss {loss} tokens/s {speed}"
