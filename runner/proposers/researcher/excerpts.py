"""Parts of a file as a model reads them: numbered lines, and where a text occurs. Bounded, in linear time."""

from __future__ import annotations

from collections.abc import Sequence

MAX_LINE_CHARACTERS = 2_000
MAX_PLACES = 10


def numbered(lines: Sequence[str], first: int, last: int, limit: int) -> tuple[str, int]:
    """Lines as `cat -n` shows them, as far as they fit.

    Args:
        lines: of the whole file.
        first: line to begin with, from 1.
        last: line to end with, included.
        limit: characters; the first line is shown in any case. Long lines are cut, and say so.

    Returns:
        The text without a newline at its end, and the number of the last line in it.
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
    """How many lines fit into so many characters."""
    for count, line in enumerate(lines):
        limit -= len(line)
        if limit < 0:
            return count
    return len(lines)


def occurrences(text: str, part: str) -> list[int]:
    """Where a part begins, overlaps included: "aa" stands twice in "aaa". At most one more than are ever named."""
    starts: list[int] = []
    start = text.find(part)
    while start >= 0 and len(starts) <= MAX_PLACES:
        starts.append(start)
        start = text.find(part, start + 1)
    return starts


def line_numbers(text: str, starts: Sequence[int]) -> list[int]:
    """The lines, from 1, that positions of a text lie in."""
    return [text.count("\n", 0, start) + 1 for start in starts]


def listed(numbers: Sequence[int]) -> str:
    """Numbers for a sentence, the first ones at least."""
    text = ", ".join(map(str, numbers[:MAX_PLACES]))
    return f"{text} and more" if len(numbers) > MAX_PLACES else text


def nearest(text: str, part: str) -> str:
    """A hint to a part that does not occur: most often only its white space is wrong."""
    loose = "\n".join(line.strip() for line in text.split("\n"))
    wanted = "\n".join(line.strip() for line in part.strip().split("\n"))
    first_line = wanted.split("\n", 1)[0]
    for sought, found in (
        (wanted, "With other white space it occurs at line {}"),
        (first_line, "Its first line occurs at line {}, but then it differs"),
    ):
        starts = occurrences(loose, sought) if sought else []
        if starts:
            return f"{found.format(listed(line_numbers(loose, starts)))}: view it and copy it exactly"
    return "View the file and copy the text exactly, without line numbers"
