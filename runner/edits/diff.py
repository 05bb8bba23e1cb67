"""The difference of two trees as text: `patch` reads it back, and people read it in the morning."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from runner.edits.rules import split_lines
from runner.records import Files

CONTEXT_LINES = 3
# Above this many line pairs a diff is not computed but written as one block: `difflib` needs cubic time on crafted
# text (6 s for 8,000 repeating lines), and such a diff is not read line by line anyway.
MAX_DIFF_LINE_PAIRS = 1_000_000


def diff(before: Files, after: Files) -> str:
    """Write the difference of two trees as a git unified diff against the repository root.

    The text is deterministic: files in path order, three lines of context, no blob hashes.
    `apply` with this text as a `Patch` turns `before` into `after`, byte for byte, when both pass `check_tree`.
    A file that is not UTF-8 text is only named.
    """
    parts: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old != new:
            parts.append(_diff_file(path, old, new))
    return "".join(parts)


def _diff_file(path: str, old: bytes | None, new: bytes | None) -> str:
    head = f"diff --git a/{path} b/{path}\n"
    if old is None:
        head += "new file mode 100644\n"
    elif new is None:
        head += "deleted file mode 100644\n"
    left, right = ("/dev/null" if old is None else f"a/{path}"), ("/dev/null" if new is None else f"b/{path}")
    try:
        before, after = split_lines((old or b"").decode("utf-8")), split_lines((new or b"").decode("utf-8"))
    except UnicodeDecodeError:
        return f"{head}Binary files {left} and {right} differ\n"
    if before == after:  # an empty file appears or goes
        return head
    hunks = "".join(_format_hunk(before, after, group) for group in _groups(before, after))
    return f"{head}--- {left}\n+++ {right}\n{hunks}"


_Opcode = tuple[str, int, int, int, int]


def opcodes(before: list[str], after: list[str]) -> list[_Opcode]:
    """Compute opcodes like those of `difflib`, in bounded time even for crafted text."""
    shared = min(len(before), len(after))
    head = next((i for i in range(shared) if before[i] != after[i]), shared)
    tail = next((i for i in range(shared - head) if before[-1 - i] != after[-1 - i]), shared - head)
    old_end, new_end = len(before) - tail, len(after) - tail
    codes: list[_Opcode] = [("equal", 0, head, 0, head)]
    if (old_end - head) * (new_end - head) > MAX_DIFF_LINE_PAIRS:
        codes.append(("replace", head, old_end, head, new_end))
    else:
        matcher = difflib.SequenceMatcher(None, before[head:old_end], after[head:new_end])
        codes += [
            (tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        ]
    codes.append(("equal", old_end, len(before), new_end, len(after)))
    return [code for code in codes if code[1] < code[2] or code[3] < code[4]]


def _groups(before: list[str], after: list[str]) -> Iterator[list[_Opcode]]:
    yield from _with_context(opcodes(before, after))


def _with_context(codes: list[_Opcode]) -> Iterator[list[_Opcode]]:
    """Trim runs of equal lines to the context, and split into hunks where they are longer than twice that."""
    group: list[_Opcode] = []
    for position, (tag, i1, i2, j1, j2) in enumerate(codes):
        if tag != "equal":
            group.append((tag, i1, i2, j1, j2))
            continue
        first, last = position == 0, position == len(codes) - 1
        if not first and (last or i2 - i1 > 2 * CONTEXT_LINES):
            keep = min(CONTEXT_LINES, i2 - i1)
            yield [*group, (tag, i1, i1 + keep, j1, j1 + keep)]
            group = []
        if not last:
            keep = min(CONTEXT_LINES, i2 - i1) if not group else i2 - i1
            group.append((tag, i2 - keep, i2, j2 - keep, j2))
    if group:
        yield group


def _format_hunk(before: list[str], after: list[str], group: list[_Opcode]) -> str:
    def span(start: int, end: int) -> str:
        length = end - start
        first = start + 1 if length else start
        return f"{first}" if length == 1 else f"{first},{length}"

    _, i1, _, j1, _ = group[0]
    _, _, i2, _, j2 = group[-1]
    text = [f"@@ -{span(i1, i2)} +{span(j1, j2)} @@\n"]
    for tag, a1, a2, b1, b2 in group:
        if tag == "equal":
            text += [_marked(" ", line) for line in before[a1:a2]]
        else:
            text += [_marked("-", line) for line in before[a1:a2]]
            text += [_marked("+", line) for line in after[b1:b2]]
    return "".join(text)


def _marked(sign: str, line: str) -> str:
    return sign + line if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"
