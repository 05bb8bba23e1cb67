"""A scratch copy of the tip's `workload/`, which a model edits with its text editor.

The copy is a mapping in memory. No file is opened here, so no link, race or path can lead out of it: a path is
only a key. The rules of `runner.edits` apply all the same, so that a model learns of a broken rule at once and not
when it submits.

**Not covered**: Python that does not parse (fixing it may take several edits; the replies report it), and a change
that is too large as a diff. `edits.apply` checks both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.edits import REQUIRED, Refusal
from runner.edits.rules import (
    ROOT,
    Refused,
    check_file,
    check_layout,
    check_path,
    find_hidden,
    refuse,
    split_lines,
)
from runner.proposers.llm.chat import Tool
from runner.proposers.researcher.editor_arguments import line_range, normalized_path, text_argument
from runner.proposers.researcher.excerpts import line_numbers, listed, nearest, numbered, occurrences, within
from runner.records import Delete, Edit, Files, Write

MAX_VIEW_CHARACTERS = 24_000
SNIPPET_CHARACTERS = 4_000
SNIPPET_LINES = 4  # shown before and after a change

EDITOR = Tool(
    name="str_replace_based_edit_tool",
    description=(
        "View and edit the scratch copy of workload/. view: show a file with line numbers, or list a folder. "
        "str_replace: replace old_str, which must occur exactly once, whitespace included. create: write a whole "
        "file, replacing an existing one. insert: insert insert_text as whole lines after line insert_line (0: at "
        "the top). Set the fields that a command does not use to null."
    ),
    # Every field is required and may be null: all servers that enforce schemas accept this form.
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
            "path": {"type": "string", "description": "For example workload/model.py; workload lists all files"},
            "view_range": {
                "type": ["array", "null"],
                "items": {"type": "integer"},
                "description": "view: first and last line, from 1; -1 means the end of the file",
            },
            "old_str": {
                "type": ["string", "null"],
                "description": "str_replace: the text to replace; must occur exactly once",
            },
            "new_str": {"type": ["string", "null"], "description": "str_replace: the new text"},
            "file_text": {"type": ["string", "null"], "description": "create: the content of the file"},
            "insert_line": {
                "type": ["integer", "null"],
                "description": "insert: the line to insert after; 0 means the top",
            },
            "insert_text": {"type": ["string", "null"], "description": "insert: the lines to insert"},
        },
    },
    strict=True,
    builtin="text_editor_20250728",
    max_characters=MAX_VIEW_CHARACTERS,
)


class ScratchCopy:
    """A copy of the tip's files and the edits made to it."""

    def __init__(self, files: Files) -> None:
        """Copy the tip's `workload/`, which is neither changed nor checked."""
        self._original = dict(files)
        self._tree = dict(files)

    @property
    def files(self) -> Files:
        """The files as they are now."""
        return dict(self._tree)

    def changes(self) -> tuple[Edit, ...]:
        """The edits that turn the tip into the scratch copy, in path order; empty if they are equal."""
        made: list[Edit] = []
        for path in sorted({*self._original, *self._tree}):
            data = self._tree.get(path)
            if data is None:
                made.append(Delete(path=path))
            elif data != self._original.get(path):
                made.append(Write(path=path, content=data.decode("utf-8")))  # we encoded it
        return tuple(made)

    def edit(self, submitted: object) -> str | Refusal:
        """Run one call of the editor.

        Args:
            submitted: the input of the call: any JSON.

        Returns:
            The reply for the model, at most about `MAX_VIEW_CHARACTERS`; or the reason why nothing was done.
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
        """Delete a file, or return why it cannot be; the editor itself has no command for it."""
        try:
            name = self._existing(path)
            if name in REQUIRED:
                refuse(f"{name} must stay: the evaluation contract requires it")
        except Refused as refused:
            return Refusal(reason=str(refused))
        del self._tree[name]
        return None

    # ------------------------------------------------------------------- commands

    def _view(self, submitted: Mapping[str, Any]) -> str:
        path = normalized_path(submitted.get("path"))
        if self._is_folder(path):
            return self._listing(path)
        path = self._existing(path)
        data = self._tree[path]
        lines = split_lines(data.decode("utf-8", errors="replace"))
        if not lines:
            return f"{path} is empty."
        first, last = line_range(path, submitted.get("view_range"), len(lines))
        shown, end = numbered(lines, first, last, MAX_VIEW_CHARACTERS)
        notes = [shown]
        if end < last:
            notes.append(f"[lines {end + 1} to {last} are left out: use view_range to see them]")
        if end == len(lines) and not lines[-1].endswith("\n"):
            notes.append("[no newline at the end of the file]")
        return "\n".join([*notes, *self._faults(path)])

    def _str_replace(self, submitted: Mapping[str, Any]) -> str:
        path = self._existing(submitted.get("path"))
        old, new = text_argument(submitted, "old_str"), text_argument(submitted, "new_str", default="")
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
                f"{path}: old_str must occur exactly once, but it occurs at lines {numbers}; "
                "include more of the surrounding lines"
            )
        start = starts[0]
        self._put(path, before[:start] + new + before[start + len(old) :], new)
        return self._changed(path, "was changed", before.count("\n", 0, start) + 1, new.count("\n"))

    def _create(self, submitted: Mapping[str, Any]) -> str:
        path = normalized_path(submitted.get("path"))
        if self._is_folder(path):
            refuse(f"{path} is a folder; name a file, such as workload/extra.py")
        check_path(path)
        text = text_argument(submitted, "file_text")
        existed = path in self._tree
        self._put(path, text, text)
        size = f"lines: {len(split_lines(text)):,}, bytes: {len(self._tree[path]):,}"
        did = f"{path} existed and was replaced" if existed else f"{path} was created"
        return "\n".join([f"{did} ({size}).", *self._faults(path)])

    def _insert(self, submitted: Mapping[str, Any]) -> str:
        path = self._existing(submitted.get("path"))
        # Earlier versions of this editor, and models trained on them, call the text new_str.
        name = "insert_text" if submitted.get("insert_text") or not submitted.get("new_str") else "new_str"
        new = text_argument(submitted, name)
        if not new:
            refuse(f"{path}: {name} is empty, so nothing would change")
        lines = split_lines(self._decoded(path))
        after = submitted.get("insert_line")
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after <= len(lines):
            refuse(f"{path}: insert_line must be an integer from 0 to {len(lines)}: the text goes after that line")
        if not new.endswith("\n"):
            new += "\n"
        if after == len(lines) and lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        self._put(path, "".join([*lines[:after], new, *lines[after:]]), new)
        return self._changed(path, "was changed", after + 1, new.count("\n") - 1)

    # --------------------------------------------------------------------- helpers

    def _existing(self, path: object) -> str:
        """The normalized path of an existing file."""
        name = normalized_path(path)
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
            return f"{folder} contains no files."
        kept = within(lines, MAX_VIEW_CHARACTERS)
        more = f"[{len(lines) - kept} more files]" if kept < len(lines) else ""
        return ("".join(lines[:kept]) + more).rstrip("\n")

    def _decoded(self, path: str) -> str:
        try:
            return self._tree[path].decode("utf-8")
        except UnicodeDecodeError:
            refuse(f"{path} is not UTF-8 text: it can only be replaced with create, or deleted")

    def _put(self, path: str, text: str, new: str) -> None:
        """Write a file if the rules allow its new text; otherwise change nothing."""
        if find_hidden(new) is not None:
            refuse(f"{path}: {find_hidden(text)}")
        data = text.encode("utf-8")  # cannot fail: text that cannot be encoded counts as hidden
        if data == self._tree.get(path):
            refuse(f"{path} already contains this text, so nothing would change")
        check_layout({**self._tree, path: data})
        self._tree[path] = data

    def _changed(self, path: str, did: str, line: int, more: int) -> str:
        """The lines around a change that begins at `line` and spans `more` further lines."""
        lines = split_lines(self._decoded(path))
        if not lines:
            return f"{path} {did}; it is now empty."
        first = min(max(1, line - SNIPPET_LINES), len(lines))
        last = min(len(lines), line + more + SNIPPET_LINES)
        shown, end = numbered(lines, first, last, SNIPPET_CHARACTERS)
        left_out = [f"[and lines {end + 1} to {last}]"] if end < last else []
        return "\n".join([f"{path} {did}:", shown, *left_out, *self._faults(path)])

    def _faults(self, path: str) -> list[str]:
        """The objection of `edits.apply` to this file: reported early, but enforced only on submission."""
        try:
            check_file(path, self._tree[path])
        except Refused as refused:
            return [f"[this file would be refused as it is: {refused}]"]
        return []
