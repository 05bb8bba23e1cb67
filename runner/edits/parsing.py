"""Python text as a tree, and a tree as plain text again: without a crash, whatever legal or broken text it is."""

from __future__ import annotations

import ast
import warnings

UNREADABLE = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
"""What the parser raises: for text that is no Python, or is nested too deeply, or holds too large a literal."""

_SHORT = 10**1000
"""A larger integer may have more digits than Python writes (`sys.set_int_max_str_digits`)."""


class _Hex(int):
    """An integer of any length, which is written in hexadecimal digits: these have no limit."""

    def __repr__(self) -> str:
        return hex(self)


def parse(source: str | bytes) -> ast.Module | None:
    """The tree of a source; None when Python cannot read it. Says nothing on the terminal.

    Args:
        source: bytes count with their declared encoding, as they do when the file is run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `"\d"` warns; it is not our terminal's business
            return ast.parse(source)
    except UNREADABLE:
        return None


def unparse(tree: ast.AST) -> str | None:
    """The one plain form of a tree, which may be changed by it; None when it is nested too deeply to write down.

    `ast.unparse` fails at what is legal: at integers of many digits, and before Python 3.12 at f-strings whose
    expressions need a backslash to be written, such as one with a no-break space in a string. The former are
    written in hexadecimal, the latter as calls of a function with their parts.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) >= _SHORT:
            node.value = _Hex(node.value)
    try:
        try:
            return ast.unparse(tree)
        except ValueError:
            return ast.unparse(_without_fstrings(tree))
    except RecursionError:
        return None


def _without_fstrings(tree: ast.AST) -> ast.AST:
    """The tree with calls in place of its f-strings. Not a `NodeTransformer`, which is recursive."""
    if isinstance(tree, ast.JoinedStr | ast.FormattedValue):
        return _without_fstrings(ast.Expr(value=tree))
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        for name, child in ast.iter_fields(node):
            if isinstance(child, list):
                child[:] = [_called(one) if isinstance(one, ast.AST) else one for one in child]
            elif isinstance(child, ast.AST):
                setattr(node, name, _called(child))
        waiting += ast.iter_child_nodes(node)
    return tree


def _called(node: ast.AST) -> ast.AST:
    """A part of an f-string as a call; anything else as it is."""
    if isinstance(node, ast.JoinedStr):
        return ast.Call(func=ast.Name(id="f"), args=list(node.values), keywords=[])
    if isinstance(node, ast.FormattedValue):
        form = [] if node.format_spec is None else [node.format_spec]
        parts = [node.value, ast.Constant(value=node.conversion), *form]
        return ast.Call(func=ast.Name(id="format"), args=parts, keywords=[])
    return node
