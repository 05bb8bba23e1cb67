"""A scratch copy of the champion's `workload/`, on which a model works with its text editor.

The copy is a mapping in memory. No file is opened here, so no link, no race and no path can lead out of it: a
path is only a key. It is held to the rules of `runner.edits` all the same, so that a model hears of a broken rule
at once and not when it submits.

What is not refused here: Python that does not parse (it may take several edits to mend; the replies tell), and a
change that is too large as a diff. `edits.apply` looks at both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.edits import MAX_FILE_BYTES, REQUIRED, Refusal
from runner.edits.rules import (
    MAX_PATH_LENGTH,
    ROOT,
    Refused,
    check_file,
    check_layout,
    check_path,
    find_hidden,
    quoted,
    refuse,
    split_lines,
)
from runner.proposers.llm.chat import Tool
from runner.proposers.researcher.excerpts import line_numbers, listed, nearest, numbered, occurrences, within
from runner.records import Delete, Edit, Files, Write

MAX_VIEW_CHARACTERS = 24_000
SNIPPET_CHARACTERS = 4_000
SNIPPET_LINES = 4  # shown before and after a change

EDITOR = Tool(
    name="str_replace_based_edit_tool",
    description=(
        "View and edit the scratch copy of workload/. view: a file with line numbers, or a folder. str_replace: "
        "replace old_str, which must occur exactly once, white space included. create: write a whole file, also "
        "over an existing one. insert: put insert_text as whole lines after line insert_line (0: at the top). "
        "Fields that a command does not use are null."
    ),
    # Every field is required and may be null: the common ground of servers that enforce schemas.
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": [
            "command",
            "path",
            "view_range",
            "old_str",
            "new_str",
            "file_text",
            "insert_line",
            "insert_text",
        ],
        "properties": {
            "command": {"type": "string", "enum": ["view", "str_replace", "create", "insert"]},
            "path": {"type": "string", "description": "workload/model.py, or workload for the list of files"},
            "view_range": {
                "type": ["array", "null"],
                "items": {"type": "integer"},
                "description": "view: first and last line, from 1; -1: to the end",
            },
            "old_str": {"type": ["string", "null"], "description": "str_replace: text that occurs once"},
            "new_str": {"type": ["string", "null"], "description": "str_replace: its successor"},
            "file_text": {"type": ["string", "null"], "description": "create: the whole file"},
            "insert_line": {"type": ["integer", "null"], "description": "insert: the line before; 0: none"},
            "insert_text": {"type": ["string", "null"], "description": "insert: whole lines"},
        },
    },
    strict=True,
    builtin="text_editor_20250728",
    max_characters=MAX_VIEW_CHARACTERS,
)


class Workbench:
    """The scratch copy and what was done to it."""

    def __init__(self, files: Files) -> None:
        """Take the champion's `workload/`, which is neither changed nor checked."""
        self._original = dict(files)
        self._tree = dict(files)

    @property
    def files(self) -> Files:
        """The scratch copy as it is now."""
        return dict(self._tree)

    def changes(self) -> tuple[Edit, ...]:
        """What makes the scratch copy of the champion, in path order; nothing when they are equal."""
        made: list[Edit] = []
        for path in sorted({*self._original, *self._tree}):
            data = self._tree.get(path)
            if data is None:
                made.append(Delete(path=path))
            elif data != self._original.get(path):
                made.append(Write(path=path, content=data.decode("utf-8")))  # we encoded it
        return tuple(made)

    def edit(self, submitted: object) -> str | Refusal:
        """Do one call of the editor.

        Args:
            submitted: the input of the call: any JSON.

        Returns:
            What the model is to read, at most about `MAX_VIEW_CHARACTERS`; or why nothing was done.
        """
        commands: dict[object, Callable[[Mapping[str, Any]], str]] = {
            "view": self._view,
            "str_replace": self._str_replace,
            "create": self._create,
            "insert": self._insert,
        }
        try:
            if not isinstance(submitted, Mapping):
                refuse("the input must be an object")
            command = submitted.get("command")
            if not isinstance(command, str) or command not in commands:
                refuse(f"the command must be one of: {', '.join(map(str, commands))}")
            return commands[command](submitted)
        except Refused as refused:
            return Refusal(reason=str(refused))

    def delete(self, path: object) -> Refusal | None:
        """Remove a file, or say why not; the editor itself has no command for it."""
        try:
            name = self._existing(path)
            if name in REQUIRED:
                refuse(f"{name} must stay: the contract with the evaluation needs it")
        except Refused as refused:
            return Refusal(reason=str(refused))
        del self._tree[name]
        return None

    # ------------------------------------------------------------------- commands

    def _view(self, submitted: Mapping[str, Any]) -> str:
        path = _normalised(submitted.get("path"))
        if self._is_folder(path):
            return self._listing(path)
        path = self._existing(path)
        data = self._tree[path]
        lines = split_lines(data.decode("utf-8", errors="replace"))
        if not lines:
            return f"{path} is empty."
        first, last = _range(path, submitted.get("view_range"), len(lines))
        shown, end = numbered(lines, first, last, MAX_VIEW_CHARACTERS)
        notes = [shown]
        if end < last:
            notes.append(f"[lines {end + 1} to {last} are left out: ask for them with view_range]")
        if end == len(lines) and not lines[-1].endswith("\n"):
            notes.append("[no newline at the end of the file]")
        return "\n".join([*notes, *self._faults(path)])

    def _str_replace(self, submitted: Mapping[str, Any]) -> str:
        path = self._existing(submitted.get("path"))
        old, new = _text(submitted, "old_str"), _text(submitted, "new_str", default="")
        if not old:
            refuse(f"{path}: old_str is empty; insert adds text, create writes a whole file")
        if old == new:
            refuse(f"{path}: old_str and new_str are equal, so nothing would change")
        before = self._decoded(path)
        starts = occurrences(before, old)
        if not starts:
            refuse(f"{path}: old_str does not occur. {nearest(before, old)}")
        if len(starts) > 1:
            numbers = listed(line_numbers(before, starts))
            refuse(
                f"{path}: old_str must occur exactly once, but it occurs at lines {numbers}; add lines around it"
            )
        start = starts[0]
        self._put(path, before[:start] + new + before[start + len(old) :], new)
        return self._changed(path, "is changed", before.count("\n", 0, start) + 1, new.count("\n"))

    def _create(self, submitted: Mapping[str, Any]) -> str:
        path = _normalised(submitted.get("path"))
        if self._is_folder(path):
            refuse(f"{path} is a folder; a file is named like workload/extra.py")
        check_path(path)
        text = _text(submitted, "file_text")
        existed = path in self._tree
        self._put(path, text, text)
        size = f"lines: {len(split_lines(text)):,}, bytes: {len(self._tree[path]):,}"
        did = f"{path} existed; it is replaced whole" if existed else f"{path} is created"
        return "\n".join([f"{did} ({size}).", *self._faults(path)])

    def _insert(self, submitted: Mapping[str, Any]) -> str:
        path = self._existing(submitted.get("path"))
        # Earlier versions of this editor, and models that learned them, call the text new_str.
        name = "insert_text" if submitted.get("insert_text") or not submitted.get("new_str") else "new_str"
        new = _text(submitted, name)
        if not new:
            refuse(f"{path}: {name} is empty, so nothing would change")
        lines = split_lines(self._decoded(path))
        after = submitted.get("insert_line")
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after <= len(lines):
            refuse(
                f"{path}: insert_line must be a whole number from 0 to {len(lines)}: the text goes after that line"
            )
        if not new.endswith("\n"):
            new += "\n"
        if after == len(lines) and lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        self._put(path, "".join([*lines[:after], new, *lines[after:]]), new)
        return self._changed(path, "is changed", after + 1, new.count("\n") - 1)

    # --------------------------------------------------------------------- helpers

    def _existing(self, path: object) -> str:
        """The one form of a path to a file that is there."""
        name = _normalised(path)
        if name not in self._tree:
            twins = [other for other in sorted(self._tree) if other.casefold() == name.casefold()]
            if self._is_folder(name):
                refuse(f"{name} is a folder; name one of its files")
            hint = f"did you mean {twins[0]}?" if twins else f"view {ROOT} lists the files"
            refuse(f"{name} does not exist; {hint}")
        return name

    def _is_folder(self, path: str) -> bool:
        return path == ROOT or any(other.startswith(f"{path}/") for other in self._tree)

    def _listing(self, folder: str) -> str:
        inside = sorted(path for path in self._tree if path.startswith(f"{folder}/"))
        lines = [f"{path}  {len(self._tree[path]):,} bytes\n" for path in inside]
        if not lines:
            return f"{folder} holds no file."
        kept = within(lines, MAX_VIEW_CHARACTERS)
        more = f"[{len(lines) - kept} more files]" if kept < len(lines) else ""
        return ("".join(lines[:kept]) + more).rstrip("\n")

    def _decoded(self, path: str) -> str:
        try:
            return self._tree[path].decode("utf-8")
        except UnicodeDecodeError:
            refuse(f"{path} is not UTF-8 text: it can only be written anew with create, or deleted")

    def _put(self, path: str, text: str, new: str) -> None:
        """Write a file if the rules allow what is new of it. Until then nothing is changed."""
        if find_hidden(new) is not None:
            refuse(f"{path}: {find_hidden(text)}")
        data = text.encode("utf-8")  # cannot fail: what cannot be encoded counts as hidden
        if data == self._tree.get(path):
            refuse(f"{path} holds this text already, so nothing would change")
        check_layout({**self._tree, path: data})
        self._tree[path] = data

    def _changed(self, path: str, did: str, line: int, more: int) -> str:
        """The neighbourhood of a change that begins at a line and goes on for some more."""
        lines = split_lines(self._decoded(path))
        if not lines:
            return f"{path} {did}; it is empty now."
        first = min(max(1, line - SNIPPET_LINES), len(lines))
        last = min(len(lines), line + more + SNIPPET_LINES)
        shown, end = numbered(lines, first, last, SNIPPET_CHARACTERS)
        left_out = [f"[and lines {end + 1} to {last}]"] if end < last else []
        return "\n".join([f"{path} {did}:", shown, *left_out, *self._faults(path)])

    def _faults(self, path: str) -> list[str]:
        """What `edits.apply` would say to this file as it is: told early, refused only on submission."""
        try:
            check_file(path, self._tree[path])
        except Refused as refused:
            return [f"[as it is, this file will be refused: {refused}]"]
        return []


def _normalised(path: object) -> str:
    """One form for all ways to name a file of `workload/`; every other path is refused."""
    allowed = f"only files below {ROOT}/ can be named, like {REQUIRED[0]}"
    if not isinstance(path, str) or not path:
        refuse(f"the path must be text: {allowed}")
    if len(path) > 4 * MAX_PATH_LENGTH:
        refuse(f"the path is longer than {MAX_PATH_LENGTH} characters: {allowed}")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or "\\" in path or not path.isprintable():
        refuse(f"the path {quoted(path)} holds '..', a backslash or a control character: {allowed}")
    if path.startswith("/") and ROOT in names:  # models name a root of their own invention
        names = names[names.index(ROOT) :]
    name = "/".join(names)
    if name == ROOT:
        return name
    try:
        check_path(name)
    except Refused as refused:
        refuse(f"{refused}: {allowed}")
    return name


def _text(submitted: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = submitted.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        refuse(f"{name} must be text")
    if len(value) > MAX_FILE_BYTES:
        refuse(f"{name} has {len(value)} characters; at most {MAX_FILE_BYTES} are allowed")
    return value


def _range(path: str, wanted: object, num_lines: int) -> tuple[int, int]:
    """First and last line of a view, from 1. An end behind the last line means the last line."""
    if wanted is None or wanted == []:
        return 1, num_lines
    if not isinstance(wanted, list) or [type(number) for number in wanted] != [int, int]:
        refuse("view_range must be a list of two whole numbers, the first and the last line")
    first, last = wanted
    if last == -1:
        last = num_lines
    if not 1 <= first <= min(last, num_lines):
        refuse(
            f"view_range must lie in 1 to {num_lines}, the lines of {path}, the first number not above the last"
        )
    return first, min(last, num_lines)
