"""Untrusted text made harmless for a terminal, a file, a commit message and a language model's prompt.

Candidates print anything, and a model's hypothesis is no safer: escape sequences that move the cursor or set a
window title, carriage returns that hide what was printed before, right-to-left overrides that show different text
from what is stored, zero-width and tag characters that carry a message for a model but show nothing to a person.

`clean` and `one_line` mark hidden characters, for people; `prompt_text` and `prompt_line` drop them, for prompts.
Both pairs share one rule for what is hidden. `progress` extracts the bounded figures of a running training.
Nothing here judges what the visible words say.
"""

from __future__ import annotations

import re
import unicodedata

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
ELLIPSIS = "…"

_MAX_COMBINING = 2  # real scripts rarely stack more; a tower of them covers the neighboring lines
_RAW_CHARS_PER_LINE = 4096  # read before the cut: a progress bar rewrites its line many times

# Only complete sequences are removed; a lone ESC is a control character like any other.
# Strings (title, hyperlink) end on the same line and contain no second start, which keeps the search linear in
# hostile text.
_ESCAPE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colors, cursor
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, …
    r"|\x1b[ -/]+[0-~]"  # character sets
    r"|\x1b[0-OQ-WYZ\\`-~]"  # two-character sequences
)
# Letters, marks and symbols that show nothing: grapheme joiner, fillers of Hangul and Khmer, blank Braille.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_MARKS = re.compile(f"{REPLACEMENT}+")
_LINE_END = re.compile("\r\n?|[\u2028\u2029]")
_FENCE = re.compile(r"<(?=\s*/?\s*untrusted)", re.IGNORECASE)
_PROGRESS = re.compile(
    r"step\s+(\d{1,12})\b.{0,80}?loss\s+(\d{1,9}(?:\.\d{1,9})?).{0,80}?tokens/s\s+([\d,]{1,15})"
)


def clean(text: str, max_lines: int = 50, max_chars_per_line: int = 200) -> str:
    """Return the last lines of untrusted text as a person would have seen them.

    Escape sequences are removed; a line that was rewritten with carriage returns keeps its last state; tabs become
    spaces; each run of hidden characters becomes one U+FFFD. Blank lines at the end are dropped.

    Args:
        text: decoded output, any length.
        max_lines: number of lines to keep, counted from the end.
        max_chars_per_line: longer lines keep their beginning and end in `…`.
    """
    if max_lines < 1:
        return ""
    # The tail first, so that the work is bounded whatever the length.
    tail = text[-(max_lines * _RAW_CHARS_PER_LINE) :].replace("\r\n", "\n").rstrip()
    return "\n".join(_clean_line(line, max_chars_per_line) for line in tail.split("\n")[-max_lines:])


def one_line(text: str, max_chars: int = 200) -> str:
    """Clean untrusted text onto one line: every run of white space becomes one space, and `…` ends a cut."""
    head = text[: 16 * max_chars + 256]
    lines = head.count("\n") + 1
    return cut(" ".join(clean(head, max_lines=lines, max_chars_per_line=len(head)).split()), max_chars)


def prompt_text(text: str, limit: int) -> str:
    """Drop escape sequences and hidden characters from text for a prompt, and cap its length.

    Tabs stay. Every kind of line end becomes a newline, so a carriage return hides nothing.

    Args:
        text: decoded text, any length.
        limit: characters to keep, an ellipsis included.
    """
    head = text[: 4 * limit]  # the text may be megabytes
    result = _visible(_LINE_END.sub("\n", _ESCAPE.sub("", head)), mark="").strip()
    if len(result) <= limit and len(head) == len(text):
        return result
    return result[: limit - 1].rstrip() + ELLIPSIS


def prompt_line(text: str, limit: int) -> str:
    """Like `prompt_text`, with every run of white space as one space."""
    return cut(" ".join(prompt_text(text, 4 * limit).split()), limit)


def cut(text: str, max_chars: int) -> str:
    """Return `text`, or its beginning and `…`, in at most `max_chars` characters."""
    return text if len(text) <= max_chars else text[: max(max_chars - 1, 0)].rstrip() + ELLIPSIS


def _clean_line(line: str, max_chars: int) -> str:
    shown = _ESCAPE.sub("", line).rstrip("\r").rpartition("\r")[2]
    visible = _visible(shown[: 2 * max_chars].expandtabs(4), mark=REPLACEMENT)
    return cut(_MARKS.sub(REPLACEMENT, visible).rstrip(), max_chars)


def _visible(text: str, *, mark: str) -> str:
    """Put `mark` in place of every hidden character except newlines and tabs.

    Hidden are control, format (bidirectional, zero-width, tags), private, surrogate and unassigned characters,
    line separators, and letters that show nothing. Variation selectors, and combining characters above the second
    on one base, are dropped without a mark: they are common in honest text.
    """
    shown: list[str] = []
    combining = 0
    for char in text:
        if " " <= char <= "~" or char in "\n\t":
            combining = 0
            shown.append(char)
            continue
        category = unicodedata.category(char)
        if category[0] == "C" or category in ("Zl", "Zp") or char in _INVISIBLE:
            if mark:  # without one, the next combining character lands on the same base
                combining = 0
                shown.append(mark)
            continue
        combining = combining + 1 if category[0] == "M" else 0
        if not _is_selector(char) and combining <= _MAX_COMBINING:
            shown.append(char)
    return "".join(shown)


def _is_selector(char: str) -> bool:
    """Whether a character picks a glyph's variant; a row of them after an emoji hides one byte each."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef" or "\u180b" <= char <= "\u180f"


def fenced(kind: str, text: str) -> str:
    """Wrap untrusted text for a prompt, so that it cannot close the fence and speak with our voice.

    The fence marks where instructions do not count. It cannot stop a model from following them anyway: what such
    a model submits is still only an edit that runs in the sandbox.
    """
    return f"<untrusted_{kind}>\n{_FENCE.sub('‹', text)}\n</untrusted_{kind}>"


def tokens_per_second(log_tail: str) -> float | None:
    """Return the throughput that the last line of progress claims. Untrusted: a program prints what it likes."""
    for line in reversed(log_tail.splitlines()):
        if (found := progress(line)) is not None:
            speed = found.rpartition(" ")[2].replace(",", "")
            return float(speed) if speed.strip("0") else None
    return None


def training_loss(line: str) -> float | None:
    """Return the loss that a line of progress claims: finite, not negative, below a billion. Untrusted."""
    found = progress(line)
    return None if found is None else float(found.split(" ")[3])


def progress(line: str) -> str | None:
    """Extract `step 120 loss 3.214 tokens/s 31000` from an untrusted line; None when it reports no progress.

    Nothing else of the line gets through: only numbers of bounded length, in ASCII digits.
    """
    found = _PROGRESS.search(line[:400])
    if found is None or not found[0].isascii():
        return None
    step, loss, speed = found.groups()
    return f"step {step} loss {loss} tokens/s {speed}"
