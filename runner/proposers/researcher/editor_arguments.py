"""The arguments of the text editor, checked and normalized. They are the model's: any JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runner.edits import MAX_FILE_BYTES, REQUIRED
from runner.edits.rules import MAX_PATH_LENGTH, ROOT, Refused, check_path, quoted, refuse


def normalized_path(path: object) -> str:
    """Normalize the path of a file or folder in `workload/`; every other path is refused.

    Raises:
        Refused: with the paths that are allowed.
    """
    allowed = f"only files below {ROOT}/ are available, such as {REQUIRED[0]}"
    if not isinstance(path, str) or not path:
        refuse(f"the path must be a string: {allowed}")
    if len(path) > 4 * MAX_PATH_LENGTH:
        refuse(f"the path is longer than {MAX_PATH_LENGTH} characters: {allowed}")
    names = [name for name in path.split("/") if name not in ("", ".")]
    if ".." in names or "\\" in path or not path.isprintable():
        refuse(f"the path {quoted(path)} contains '..', a backslash or a control character: {allowed}")
    if path.startswith("/") and ROOT in names:  # models invent a root directory
        names = names[names.index(ROOT) :]
    name = "/".join(names)
    if name == ROOT:
        return name
    try:
        check_path(name)
    except Refused as refused:
        refuse(f"{refused}: {allowed}")
    return name


def text_argument(submitted: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A string of bounded length.

    Raises:
        Refused: it is missing, of another type or too long.
    """
    value = submitted.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        refuse(f"{name} must be a string")
    if len(value) > MAX_FILE_BYTES:
        refuse(f"{name} has {len(value)} characters; at most {MAX_FILE_BYTES} are allowed")
    return value


def line_range(path: str, wanted: object, num_lines: int) -> tuple[int, int]:
    """The first and last line of a view, from 1; an end beyond the file means its last line.

    Raises:
        Refused: not a range of lines of this file.
    """
    if wanted is None or wanted == []:
        return 1, num_lines
    if not isinstance(wanted, list) or [type(number) for number in wanted] != [int, int]:
        refuse("view_range must be a list of two integers, the first and the last line")
    first, last = wanted
    if last == -1:
        last = num_lines
    if not 1 <= first <= min(last, num_lines):
        refuse(
            f"view_range must lie within 1 to {num_lines}, the lines of {path}, and must not end before it starts"
        )
    return first, min(last, num_lines)
