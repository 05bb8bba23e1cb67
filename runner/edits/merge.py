"""An old change taken back out of a newer tree: exactly, or not at all."""

from __future__ import annotations

from typing import NamedTuple

from runner.edits.difference import opcodes
from runner.edits.rules import Refusal, Refused, check_tree, decode, refuse, split_lines
from runner.records import Files


class _Change(NamedTuple):
    start: int  # lines of the common base, from 0; end exclusive
    end: int
    lines: tuple[str, ...]  # that come in their place


def leave_out(tip: Files, *, after: Files, before: Files) -> dict[str, bytes] | Refusal:
    """What `tip` would be without the change that made `after` of `before`.

    A line-by-line merge on the base of `after`, without any fuzz: what came later is kept as it is, and the change
    is taken back where it stands untouched. Lines that moved are found; lines that a later change replaced, or
    stands next to, are a refusal.

    Args:
        tip: a descendant of `after`.

    Returns:
        The whole tree, or the first reason against it: later changes touch the same lines, nothing of the change
        is left, or the rest is no `workload/`.
    """
    tree: dict[str, bytes] = {}
    try:
        for path in sorted({*tip, *after, *before}):
            merged = _merge_file(path, tip.get(path), after.get(path), before.get(path))
            if merged is not None:
                tree[path] = merged
    except Refused as refused:
        return Refusal(reason=str(refused))
    if tree == dict(tip):
        return Refusal(reason="nothing of it is left")
    return check_tree(tree) or tree


def _merge_file(path: str, tip: bytes | None, after: bytes | None, before: bytes | None) -> bytes | None:
    if before in (after, tip):
        return tip
    if tip == after:
        return before
    if tip is None or after is None or before is None:
        refuse(f"{path}: made or removed as a whole, and changed later")
    base = split_lines(decode(path, after))
    later = _changes(base, split_lines(decode(path, tip)))
    back = [one for one in _changes(base, split_lines(decode(path, before))) if one not in later]
    for one in back:
        if any(one.start <= other.end and other.start <= one.end for other in later):
            refuse(f"{path}: a later change touches the same lines")
    lines: list[str] = []
    at = 0
    for change in sorted([*later, *back]):
        lines += [*base[at : change.start], *change.lines]
        at = change.end
    return "".join([*lines, *base[at:]]).encode()


def _changes(base: list[str], other: list[str]) -> list[_Change]:
    return [
        _Change(start, end, tuple(other[first:last]))
        for tag, start, end, first, last in opcodes(base, other)
        if tag != "equal"
    ]
