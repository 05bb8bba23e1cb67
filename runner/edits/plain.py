"""Python source in one plain form: no comments, docstrings or blank lines, one layout."""

from __future__ import annotations

import ast
import hashlib

from runner.edits.parsing import parse, unparse
from runner.records import Files


def fingerprint(files: Files) -> str:
    """SHA-256 of a tree with its Python in plain form: comments and layout do not change it."""
    digest = hashlib.sha256()
    for path, data in sorted(files.items()):
        content = plain(data.decode("utf-8", "replace")).encode() if path.endswith(".py") else data
        digest.update(f"{path}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def plain(text: str) -> str:
    """Write a source in its plain form; one that Python cannot read, or too deeply nested, stays as it is."""
    tree = parse(text)
    if tree is None:
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ]
    written = unparse(tree)
    return text if written is None else written
