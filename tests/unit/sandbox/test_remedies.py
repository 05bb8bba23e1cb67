"""Remedies name commands that exist: Debian's package of the engine brings no `docker`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
CLI = re.compile(
    r"\bdocker (builder|images?|info|load|logs|ps|pull|rm|rmi|run|stats|system|update|version|volume)\b"
)


def texts(path):
    """The string constants of a file that are not docstrings, parts of f-strings included."""
    tree = ast.parse(path.read_text("utf-8"))
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]


def test_no_message_sends_anyone_to_the_command_line_of_docker():
    found = {
        f"{path.relative_to(ROOT)}: {text}"
        for path in (ROOT / "runner").rglob("*.py")
        for text in texts(path)
        if CLI.search(text) and "do this" not in text  # a cause, not a remedy
    }
    assert found == set()
