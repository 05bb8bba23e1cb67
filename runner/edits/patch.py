"""Strict unified diffs of git: parsed without guessing, applied at exactly the lines that they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from runner.edits.rules import (
    MAX_FILE_BYTES,
    MAX_PATCH_BYTES,
    check_path,
    decode,
    find_hidden,
    quoted,
    refuse,
    split_lines,
)


def apply_patch(tree: dict[str, bytes], text: str) -> None:
    """Apply a patch to the tree in place, or raise `Refused`. It is parsed in full before anything changes."""
    for change in _parse_patch(text):
        _apply_change(tree, change)


@dataclass(frozen=True, kw_only=True)
class _Hunk:
    line: int  # of the patch, for reasons
    old_start: int
    old: list[str]  # with line ends
    new_start: int
    new: list[str]


@dataclass(kw_only=True)
class _Change:
    path: str
    kind: Literal["change", "create", "delete"]
    hunks: list[_Hunk] = field(default_factory=list)


_HEADER = re.compile(r"diff --git a/(.+) b/(.+)")
_INDEX = re.compile(r"index [0-9a-f]{4,64}\.\.[0-9a-f]{4,64}(?: ([0-7]+))?")
_MODE = re.compile(r"(new file|deleted file|old|new) mode ([0-7]+)")
_HUNK = re.compile(r"@@ -(\d{1,7})(?:,(\d{1,7}))? \+(\d{1,7})(?:,(\d{1,7}))? @@(?: .*)?")
_RENAME = ("rename ", "copy ", "similarity index", "dissimilarity index")
_BINARY = ("GIT binary patch", "Binary files ")


def _parse_patch(text: str) -> list[_Change]:
    if len(text) > MAX_PATCH_BYTES:
        refuse(f"the patch has {len(text)} characters; at most {MAX_PATCH_BYTES} are allowed")
    problem = find_hidden(text)
    if problem is not None:
        refuse(f"the patch: {problem}")
    changes = list(_PatchParser(text).changes())
    if not changes:
        refuse("the patch contains no unified diff")
    seen: set[str] = set()
    for change in changes:
        if change.path in seen:
            refuse(f"{change.path} occurs twice in the patch")
        seen.add(change.path)
    return changes


class _PatchParser:
    """Parses a git unified diff line by line, and refuses everything that it does not know."""

    def __init__(self, text: str) -> None:
        self.lines = text.removesuffix("\n").split("\n") if text else []
        self.at = 0

    @property
    def line(self) -> str | None:
        return self.lines[self.at] if self.at < len(self.lines) else None

    def changes(self) -> Iterator[_Change]:
        while (line := self.line) is not None:
            if line == "":
                self.at += 1
            elif line == "-- ":
                self._signature()
            elif line.startswith("diff --git "):
                yield self._git_section(line)
            elif line.startswith("--- "):
                yield self._plain_section()
            else:
                self._stray(line)

    def _fail(self, reason: str) -> NoReturn:
        refuse(f"line {self.at + 1} of the patch: {reason}")

    def _stray(self, line: str) -> NoReturn:
        if line.startswith("diff ") or line.startswith(_BINARY):
            self._fail(f"{quoted(line, 60)} is not a text diff of git")
        self._fail(f"{quoted(line, 60)} is not part of a unified diff")

    def _signature(self) -> None:
        """Read the end that `git format-patch` writes: "-- " and a version. Nothing may follow it."""
        rest = [line for line in self.lines[self.at + 1 :] if line]
        if len(rest) > 1 or (rest and not re.fullmatch(r"\d[\w.+() -]*", rest[0])):
            self._fail("text follows the signature of the patch")
        self.at = len(self.lines)

    def _git_section(self, line: str) -> _Change:
        names = _HEADER.fullmatch(line)
        if names is None:
            self._fail("the header must read 'diff --git a/PATH b/PATH', with a portable path")
        path = names[1]
        if path != names[2]:
            self._fail(f"{quoted(path)} → {quoted(names[2])}: renames and copies are not allowed")
        check_path(path)
        self.at += 1
        kind: Literal["change", "create", "delete"] = "change"
        while (
            (line_ := self.line) is not None
            and not line_.startswith(("--- ", "diff --git "))
            and line_ not in ("", "-- ")
        ):
            kind = self._extended_header(path, line_, kind)
            self.at += 1
        if self.line is not None and self.line.startswith("--- "):
            change = self._plain_section()
            if change.path != path or change.kind != kind:
                refuse(f"{path}: the lines '---' and '+++' disagree with the header above them")
            return change
        if kind == "change":
            refuse(f"{path}: the patch holds a header but no change")
        return _Change(path=path, kind=kind)

    def _extended_header(
        self, path: str, line: str, kind: Literal["change", "create", "delete"]
    ) -> Literal["change", "create", "delete"]:
        if line.startswith(_RENAME):
            refuse(f"{path}: renames and copies are not allowed")
        if line.startswith(_BINARY):
            refuse(f"{path}: binary patches are not allowed")
        if index := _INDEX.fullmatch(line):
            self._check_mode(path, index[1] or "100644")
            return kind
        mode = _MODE.fullmatch(line)
        if mode is None:
            self._stray(line)
        self._check_mode(path, mode[2])
        if mode[1] in ("old", "new"):
            refuse(f"{path}: mode changes are not allowed")
        if kind != "change":
            self._fail("a second mode line")
        return "create" if mode[1] == "new file" else "delete"

    @staticmethod
    def _check_mode(path: str, mode: str) -> None:
        if mode == "120000":  # a link to /etc or to .git, then a write through it
            refuse(f"{path}: symbolic links are not allowed")
        if mode == "160000":
            refuse(f"{path}: submodules are not allowed")
        if mode != "100644":
            refuse(f"{path}: mode {mode} is not allowed, only 100644")

    def _plain_section(self) -> _Change:
        old = self._side("--- ", "a/")
        self.at += 1
        if self.line is None or not self.line.startswith("+++ "):
            self._fail("'+++' must follow '---'")
        new = self._side("+++ ", "b/")
        path = new if new is not None else old
        if path is None:
            self._fail("both sides are /dev/null")
        if old is not None and new is not None and old != new:
            self._fail(f"{quoted(old)} → {quoted(new)}: renames are not allowed")
        self.at += 1
        change = _Change(path=path, kind="create" if old is None else "delete" if new is None else "change")
        while self.line is not None and self.line.startswith("@@"):
            change.hunks.append(self._hunk())
        if not change.hunks:
            refuse(f"{path}: the patch contains no hunk")
        return change

    def _side(self, marker: str, prefix: str) -> str | None:
        assert self.line is not None
        name = self.line[len(marker) :].split("\t", 1)[0]  # GNU diff appends a tab and a time stamp
        if name == "/dev/null":
            return None
        if not name.startswith(prefix):
            self._fail(f"{quoted(name)} must be {prefix}PATH or /dev/null")
        check_path(name[len(prefix) :])
        return name[len(prefix) :]

    def _hunk(self) -> _Hunk:
        start = self.at + 1
        numbers = _HUNK.fullmatch(self.lines[self.at])
        if numbers is None:
            self._fail("not a hunk header")
        left = {"-": int(numbers[2] or 1), "+": int(numbers[4] or 1)}
        sides: dict[str, list[str]] = {"-": [], "+": []}
        changes = False
        self.at += 1
        while left["-"] or left["+"]:
            line = self.line
            if line is None:
                self._fail("the hunk ends early")
            sign, text = (
                (line[0], line[1:]) if line else (" ", "")
            )  # editors strip the blank of an empty context line
            if sign not in " +-":
                self._fail("a line of a hunk begins with ' ', '+' or '-'")
            signs = "-+" if sign == " " else sign
            changes = changes or sign != " "
            self.at += 1
            end = self._line_end()
            for side in signs:
                if not left[side]:
                    self.at -= 1
                    self._fail("the hunk has more lines than its header says")
                left[side] -= 1
                if sides[side] and not sides[side][-1].endswith("\n"):
                    self._fail("lines follow a line without a line ending")
                sides[side].append(text + end)
        if not changes:
            refuse(f"line {start} of the patch: the hunk changes nothing")
        return _Hunk(
            line=start, old_start=int(numbers[1]), old=sides["-"], new_start=int(numbers[3]), new=sides["+"]
        )

    def _line_end(self) -> str:
        """Line ending of the hunk line just read: none when git's marker follows."""
        if self.line is not None and self.line.startswith("\\ "):
            self.at += 1
            return ""
        return "\n"


def _apply_change(tree: dict[str, bytes], change: _Change) -> None:
    path = change.path
    if change.kind == "create":
        if path in tree:
            refuse(f"{path}: the patch creates it, but it exists")
        lines: list[str] = []
    else:
        if path not in tree:
            refuse(f"{path} does not exist")
        lines = split_lines(decode(path, tree[path]))
    result = _patched(path, lines, change.hunks)
    if change.kind == "delete":
        if result:
            refuse(f"{path}: the patch deletes it, but not all of its lines")
        del tree[path]
        return
    # With only the limit of `check_tree`, many patches could build gigabytes first.
    content = "".join(result).encode("utf-8")
    if len(content) > MAX_FILE_BYTES:
        refuse(f"{path} would have {len(content)} bytes; at most {MAX_FILE_BYTES} are allowed")
    tree[path] = content


def _patched(path: str, lines: list[str], hunks: list[_Hunk]) -> list[str]:
    """Apply hunks at exactly the lines that they name: no offset, no fuzz, in order."""
    result: list[str] = []
    done = 0
    for hunk in hunks:
        where = f"{path}: the hunk at line {hunk.line} of the patch"
        start = hunk.old_start - 1 if hunk.old else hunk.old_start
        if start < done:
            refuse(f"{where} overlaps the one before, or is out of order")
        end = start + len(hunk.old)
        if end > len(lines):
            refuse(f"{where} reaches beyond the {len(lines)} lines of the file")
        for number in range(start, end):
            if lines[number] != hunk.old[number - start]:
                refuse(f"{where} does not apply: line {number + 1} of the file differs")
        result += lines[done:start]
        if hunk.new_start != (len(result) + 1 if hunk.new else len(result)):
            refuse(f"{where} names line {hunk.new_start} of the new file, but would end up elsewhere")
        result += hunk.new
        done = end
    result += lines[done:]
    if any(not line.endswith("\n") for line in result[:-1]):
        refuse(f"{path}: the patch leaves a line without a line ending in the middle")
    return result
