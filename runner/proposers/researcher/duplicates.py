"""Repetitions of earlier experiments, whatever their spelling: found before a GPU is spent.

Two changes are the same if they remove and add the same statements, wherever these stand: comments, layout and the
spelling of numbers do not count. Setting a constant from the same value to the same value is therefore a
repetition; from another value it is another step.

A change counts whatever tip it was made on, since most ideas fail on their own account.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from hashlib import sha256

from runner import edits
from runner.decision import history as lineage
from runner.edits.parsing import parse, unparse
from runner.records import Experiment, Files, Verdict

_COMMENT = re.compile(r"\s#")

Change = tuple[frozenset[tuple[str, int]], frozenset[tuple[str, int]]]
"""The statements removed and added, each with its count."""


def repeats(
    before: Files, after: Files, tried: Sequence[Experiment], *, retry_of: int | None = None
) -> Experiment | None:
    """Find the first experiment that made the same change.

    Args:
        before: the tip's files.
        after: the proposed files.
        tried: past experiments and the running one. Those that our infrastructure spoiled do not count, nor do
            edits that were rolled back together with others: it is unknown which of them failed.
        retry_of: the crash that is being fixed, which may be repeated.
    """
    change = _fingerprint(edits.diff(before, after))
    if change is None:
        return None
    rulings = lineage.rulings(tried)
    for one in tried:
        if one.verdict is Verdict.INFRA or one.number == retry_of or not one.diff or one.is_certificate:
            continue
        ruling = rulings.get(one.number)
        if ruling is not None and ruling.verdict is not Verdict.KEEP and len(ruling.certifies) > 1:
            continue
        if _fingerprint(one.diff) == change:
            return one
    return None


@cache
def _fingerprint(diff: str) -> bytes | None:
    """A short name of a diff's change; None if it changes nothing.

    All are remembered: each is asked for again with every submission.
    """
    change = _change(diff)
    return sha256(repr([sorted(part) for part in change]).encode()).digest() if any(change) else None


def _change(diff: str) -> Change:
    """The statements that a diff removes and adds, normalized."""
    removed, added = Counter[str](), Counter[str]()
    in_hunk = False
    for line in diff.split("\n"):
        if line.startswith("@@"):
            in_hunk = True
        elif line.startswith("diff --git"):
            in_hunk = False
        elif in_hunk and line.startswith("-"):
            removed.update(_plain(line[1:]))
        elif in_hunk and line.startswith("+"):
            added.update(_plain(line[1:]))
    common = removed & added  # only moved or reformatted
    return frozenset((removed - common).items()), frozenset((added - common).items())


def _plain(line: str) -> list[str]:
    """The statements of a line without comments, layout and spelling of numbers; empty if it has none."""
    text = line.strip()
    if not text or text.startswith("#"):
        return []
    comment = _COMMENT.search(text, max(text.rfind("'"), text.rfind('"')) + 1)  # behind the last string
    as_text = [" ".join(text[: comment.start() if comment else None].split())]
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
