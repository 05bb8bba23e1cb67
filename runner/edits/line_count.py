"""The size of a program in lines of logic, whatever its layout."""

from __future__ import annotations

import ast

from runner.edits.parsing import parse, unparse
from runner.records import Files


def count_logic(files: Files) -> int:
    """Count the lines of all Python files in one plain form: no comments, docstrings or blank lines, one layout.

    In files that Python cannot read, or that are nested too deeply, all lines count that are not blank.
    """
    return sum(_count(data.decode("utf-8", "replace")) for path, data in files.items() if path.endswith(".py"))


def _count(text: str) -> int:
    tree = parse(text)
    if tree is None:
        return _num_lines(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ]
    plain = unparse(tree)
    return _num_lines(text if plain is None else plain)


def _num_lines(text: str) -> int:
    return sum(bool(line.strip()) for line in text.splitlines())
