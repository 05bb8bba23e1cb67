"""The size of a program in lines of logic, whatever its layout."""

from __future__ import annotations

from runner.edits.plain import plain
from runner.records import Files


def count_logic(files: Files) -> int:
    """Count the lines of all Python files in their plain form.

    In files that Python cannot read, or that are nested too deeply, all lines count that are not blank.
    """
    sources = (data.decode("utf-8", "replace") for path, data in files.items() if path.endswith(".py"))
    return sum(_num_lines(plain(source)) for source in sources)


def _num_lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())
