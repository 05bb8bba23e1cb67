"""Whether an idea was tried already, in whatever spelling: found before a GPU is spent.

Two changes are the same when they take away and add the same statements, wherever these stand: comments, layout
and the spelling of numbers do not count. So a constant that is set from the same value to the same value is a
repetition; from another value it is another step.

A change counts against any champion: most ideas fail for themselves. An idea that deserves another look on a new
champion is tried with something else beside it, and then it is another change.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from runner import edits
from runner.edits.parsing import parse, unparse
from runner.records import Experiment, Files, Verdict

_TRAILING_COMMENT = re.compile(r"\s+#[^'\"]*$")

Change = tuple[frozenset[tuple[str, int]], frozenset[tuple[str, int]]]
"""Statements that were taken away and added, each with its count."""


def repeats(
    before: Files, after: Files, tried: Sequence[Experiment], *, retry_of: int | None = None
) -> Experiment | None:
    """The first experiment that made the same change.

    Args:
        before: the champion's files.
        after: what is proposed.
        tried: experiments that count, also a running one. What our infrastructure spoiled does not count.
        retry_of: the crash that is mended, which may be repeated.
    """
    change = _change(edits.diff(before, after))
    if not any(change):
        return None
    for one in tried:
        if one.verdict is Verdict.INFRA or one.number == retry_of or not one.diff:
            continue
        if _change(one.diff) == change:
            return one
    return None


@lru_cache(maxsize=4096)
def _change(diff: str) -> Change:
    """What a diff takes away and adds, in one plain form."""
    gone, new = Counter[str](), Counter[str]()
    in_hunk = False
    for line in diff.split("\n"):
        if line.startswith("@@"):
            in_hunk = True
        elif line.startswith("diff --git"):
            in_hunk = False
        elif in_hunk and line.startswith("-"):
            gone.update(_plain(line[1:]))
        elif in_hunk and line.startswith("+"):
            new.update(_plain(line[1:]))
    common = gone & new  # moved, or only laid out anew
    return frozenset((gone - common).items()), frozenset((new - common).items())


def _plain(line: str) -> list[str]:
    """A line without comment, layout and spelling of numbers; nothing, if it says nothing."""
    text = line.strip()
    if not text or text.startswith("#"):
        return []
    as_text = [" ".join(_TRAILING_COMMENT.sub("", text).split())]
    tree = parse(text)
    if tree is None:
        return as_text
    statements = [
        statement
        for statement in tree.body
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
    ]
    for statement in statements:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, int) and not isinstance(node.value, bool):
                node.value = float(node.value) if abs(node.value) < 2**53 else node.value
    plain = [unparse(statement) for statement in statements]
    known = [one for one in plain if one is not None]
    return known if len(known) == len(plain) else as_text
