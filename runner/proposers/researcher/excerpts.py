"""Excerpts of a file for a model: numbered lines, and the places where a text occurs. Bounded, in linear time."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LINE_CHARACTERS = 2_000
MAX_PLACES = 10


def numbered(lines: Sequence[str], first: int, last: int, limit: int) -> tuple[str, int]:
    """Number lines as `cat -n` does, as many as fit.

    Args:
        lines: of the whole file.
        first: first line, from 1.
        last: last line, inclusive.
        limit: characters; the first line is always shown. A long line is cut and says so.

    Returns:
        The text without a trailing newline, and the number of its last line.
    """
    shown: list[str] = []
    for number in range(first, last + 1):
        line = lines[number - 1].removesuffix("\n")
        if len(line) > MAX_LINE_CHARACTERS:
            line = f"{line[:MAX_LINE_CHARACTERS]}… [{len(line) - MAX_LINE_CHARACTERS:,} more characters]"
        shown.append(f"{number:6d}\t{line}")
        limit -= len(shown[-1]) + 1
        if limit < 0 and number > first:
            return "\n".join(shown[:-1]), number - 1
    return "\n".join(shown), last


def within(lines: Sequence[str], limit: int) -> int:
    """The number of lines that fit into `limit` characters."""
    for count, line in enumerate(lines):
        limit -= len(line)
        if limit < 0:
            return count
    return len(lines)


def occurrences(text: str, part: str) -> list[int]:
    """The positions of a part, overlaps included: "aa" occurs twice in "aaa". At most `MAX_PLACES` + 1."""
    starts: list[int] = []
    start = text.find(part)
    while start >= 0 and len(starts) <= MAX_PLACES:
        starts.append(start)
        start = text.find(part, start + 1)
    return starts


def line_numbers(text: str, starts: Sequence[int]) -> list[int]:
    """The line numbers, from 1, of positions in a text."""
    return [text.count("\n", 0, start) + 1 for start in starts]


def listed(numbers: Sequence[int]) -> str:
    """Numbers as part of a sentence; only the first `MAX_PLACES` are named."""
    text = ", ".join(map(str, numbers[:MAX_PLACES]))
    return f"{text} and more" if len(numbers) > MAX_PLACES else text


def nearest(text: str, part: str) -> str:
    """A hint about a text that does not occur: usually only its whitespace differs."""
    loose = "\n".join(line.strip() for line in text.split("\n"))
    wanted = "\n".join(line.strip() for line in part.strip().split("\n"))
    first_line = wanted.split("\n", 1)[0]
    for sought, found in (
        (wanted, "It occurs with different whitespace at line {}"),
        (first_line, "Only its first line occurs, at line {}"),
    ):
        starts = occurrences(loose, sought) if sought else []
        if starts:
            return f"{found.format(listed(line_numbers(loose, starts)))}: view it and copy it exactly"
    return "View the file and copy the text exactly, without the line numbers"
