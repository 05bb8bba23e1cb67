"""Edits of `workload/`: applied exactly or refused with a reason. Pure: no file system, no git, no process.

Everything here reads hostile text. A proposer (or a patch that it was tricked into) may try to leave `workload/`,
to plant a link, to hide code from the person who reads the diff in the morning, or to make the controller itself
slow. The rules are therefore narrow: plain UTF-8 text, portable names, exact positions, and a size limit before
every parser. Not covered: what the code *does*, which is left to the sandbox.

    rules          what a path, a text and a tree may be, the size limits, `Refusal`
    patch          the strict parser of unified diffs, and their exact application
    diff           the writing of diffs
    merge          a change carried over to another tree
    plain          Python in one plain form, and fingerprints of trees that depend on nothing else
    line_count     lines of logic
    contamination  sealed text in edits: `readings` and `decoding` find it, `opaque` limits what could hide it
    parsing        Python source as a tree
    here           `apply`, and the edits that are not patches
"""

from __future__ import annotations

from collections.abc import Sequence

from runner.edits.diff import diff
from runner.edits.line_count import count_logic
from runner.edits.merge import carry_over
from runner.edits.patch import apply_patch
from runner.edits.plain import fingerprint
from runner.edits.rules import (
    MAX_EDITS,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_PATCH_BYTES,
    REQUIRED,
    Refusal,
    Refused,
    check_path,
    check_tree,
    find_hidden,
    refuse,
)
from runner.records import Delete, Edit, Files, Patch, Replace, Write

__all__ = [
    "MAX_EDITS",
    "MAX_FILES",
    "MAX_FILE_BYTES",
    "MAX_PATCH_BYTES",
    "REQUIRED",
    "Refusal",
    "apply",
    "carry_over",
    "check_tree",
    "count_logic",
    "diff",
    "fingerprint",
]


def apply(files: Files, edits: Sequence[Edit]) -> dict[str, bytes] | Refusal:
    """Apply edits in order, each to the result of the one before.

    Args:
        files: the champion's `workload/`, by path from the repository root. Not changed.
        edits: the proposal.

    Returns:
        The whole new tree, or the first reason against it; never the result of some of the edits.
    """
    tree = dict(files)
    try:
        if len(edits) > MAX_EDITS:
            refuse(f"{len(edits)} edits at once; at most {MAX_EDITS} are allowed")
        for edit in edits:
            _apply_one(tree, edit)
    except Refused as refused:
        return Refusal(reason=str(refused))
    if tree == dict(files):
        return Refusal(reason="the edits change nothing")
    return check_tree(tree) or _check_change(files, tree) or tree


def _check_change(before: Files, after: Files) -> Refusal | None:
    """Refuse a change that could not be stored as a diff and applied again, as the ledger does."""
    text = diff(before, after)
    if len(text) > MAX_PATCH_BYTES:
        return Refusal(
            reason=f"the change is {len(text)} characters as a diff; at most {MAX_PATCH_BYTES} are allowed"
        )
    problem = find_hidden(text)
    return None if problem is None else Refusal(reason=f"the change as a diff: {problem}")


def _apply_one(tree: dict[str, bytes], edit: Edit) -> None:
    if isinstance(edit, Patch):
        apply_patch(tree, edit.text)
        return
    check_path(edit.path)
    if isinstance(edit, Write):
        tree[edit.path] = _encode(edit.path, edit.content)
        return
    if edit.path not in tree:
        refuse(f"{edit.path} does not exist")
    if isinstance(edit, Delete):
        del tree[edit.path]
        return
    tree[edit.path] = _replaced(tree[edit.path], edit)


def _replaced(data: bytes, edit: Replace) -> bytes:
    old, new = _encode(edit.path, edit.old), _encode(edit.path, edit.new)
    if not old:
        refuse(f"{edit.path}: the text to replace is empty")
    # Counted with overlaps: "aa" in "aaa" is ambiguous although bytes.count says one.
    count, position = 0, data.find(old)
    while position >= 0 and count < 100:
        count += 1
        position = data.find(old, position + 1)
    if count != 1:
        number = "100 or more" if count == 100 else str(count)
        refuse(f"{edit.path}: the text to replace must occur exactly once, but it occurs {number} times")
    return data.replace(old, new)


def _encode(path: str, text: str) -> bytes:
    # The limit comes before any other work: a 50 MB string is refused at once.
    if len(text) > MAX_FILE_BYTES:
        refuse(f"{path}: {len(text)} characters in one edit; at most {MAX_FILE_BYTES} are allowed")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        refuse(f"{path}: the text cannot be written as UTF-8")
