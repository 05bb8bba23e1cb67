"""A merge that carries a change over to another tree, exactly or not at all."""

from __future__ import annotations

from typing import NamedTuple

from runner.edits.diff import opcodes
from runner.edits.rules import Refusal, Refused, check_tree, decode, refuse, split_lines
from runner.records import Files


class _Change(NamedTuple):
    start: int  # lines of the common base, from 0; end exclusive
    end: int
    lines: tuple[str, ...]  # that replace them


def carry_over(tip: Files, *, base: Files, changed: Files) -> dict[str, bytes] | Refusal:
    """Apply the change from `base` to `changed` to `tip`, another descendant of `base`.

    This is a line-by-line merge without any fuzz: other changes are kept as they are, and lines that moved are
    found. Lines that the other change also replaced, or that are adjacent to it, are a refusal. With the tree of a
    keep as `base` and that of the champion before it as `changed`, this removes the keep from a later champion.

    Returns:
        The whole tree, or the first reason against it: both changes touch the same lines, the change is already
        present, or the result is not a valid `workload/`.
    """
    tree: dict[str, bytes] = {}
    try:
        for path in sorted({*tip, *base, *changed}):
            merged = _merge_file(path, tip.get(path), base.get(path), changed.get(path))
            if merged is not None:
                tree[path] = merged
    except Refused as refused:
        return Refusal(reason=str(refused))
    if tree == dict(tip):
        return Refusal(reason="there is nothing left of the change to make")
    return check_tree(tree) or tree


def _merge_file(path: str, tip: bytes | None, base: bytes | None, changed: bytes | None) -> bytes | None:
    if changed in (base, tip):
        return tip
    if tip == base:
        return changed
    if tip is None or base is None or changed is None:
        refuse(f"{path}: one change makes or removes it as a whole, another one changes it")
    lines_of_base = split_lines(decode(path, base))
    other = _changes(lines_of_base, split_lines(decode(path, tip)))
    own = [one for one in _changes(lines_of_base, split_lines(decode(path, changed))) if one not in other]
    for one in own:
        if any(one.start <= two.end and two.start <= one.end for two in other):
            refuse(f"{path}: another change touches the same lines")
    lines: list[str] = []
    at = 0
    for change in sorted([*other, *own]):
        lines += [*lines_of_base[at : change.start], *change.lines]
        at = change.end
    return "".join([*lines, *lines_of_base[at:]]).encode()


def _changes(base: list[str], other: list[str]) -> list[_Change]:
    return [
        _Change(start, end, tuple(other[first:last]))
        for tag, start, end, first, last in opcodes(base, other)
        if tag != "equal"
    ]
