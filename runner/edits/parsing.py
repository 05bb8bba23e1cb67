"""Python source as a tree, its literals, and a tree as plain text again. Nothing here crashes on hostile text."""

from __future__ import annotations

import ast
import warnings
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

UNREADABLE = (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError)
"""Exceptions of the parser: the text is not Python, is nested too deeply, or contains too large a literal."""

_SHORT = 10**1000
"""A larger integer may have more digits than Python writes (`sys.set_int_max_str_digits`)."""


class _Hex(int):
    """An integer of any length that is written in hexadecimal digits, which have no limit."""

    def __repr__(self) -> str:
        return hex(self)


def parse(source: str | bytes) -> ast.Module | None:
    """Parse a source without printing warnings; `None` when Python cannot read it.

    Args:
        source: bytes are decoded with their declared encoding, as they are when the file is run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `"\d"` warns, and the warning must not reach our terminal
            return ast.parse(source)
    except UNREADABLE:
        return None


class Literals(NamedTuple):
    """Constants of a Python file in source order, implicit concatenations joined."""

    strings: tuple[str, ...]
    groups: tuple[tuple[str, ...], ...]  # the strings by statement
    blobs: tuple[bytes, ...]
    integers: tuple[int, ...]


@lru_cache(maxsize=256)
def literals(data: bytes) -> Literals | None:
    """Collect the constants of a Python file; `None` when it is not Python."""
    tree = parse(data)
    if tree is None:
        return None
    strings: list[str] = []
    starts: list[int] = []
    blobs: list[bytes] = []
    integers: list[int] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, str):
                strings.append(value)
            elif isinstance(value, bytes):
                blobs.append(value)
                strings.append(value.decode("latin-1"))
            elif isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
                integers.append(int(value))
            continue
        if isinstance(node, ast.stmt):
            starts.append(len(strings))
        for name in node._fields[::-1]:
            child = getattr(node, name, None)
            if isinstance(child, list):
                waiting.extend([one for one in child[::-1] if isinstance(one, ast.AST)])
            elif isinstance(child, ast.AST):
                waiting.append(child)
    groups = [tuple(strings[start:end]) for start, end in pairwise([*starts, len(strings)]) if end > start]
    return Literals(tuple(strings), tuple(groups), tuple(blobs), tuple(integers))


def unparse(tree: ast.AST) -> str | None:
    """Write a tree in its one plain form; `None` when it is nested too deeply. May change the tree.

    `ast.unparse` fails on legal code: on integers of many digits, and before Python 3.12 on f-strings whose
    expressions need a backslash, such as one with a no-break space in a string. The former are written in
    hexadecimal, the latter as function calls with their parts as arguments.
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
    """Replace the f-strings of a tree by calls. Not a `NodeTransformer`, which is recursive."""
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
    """Turn a part of an f-string into a call; return anything else unchanged."""
    if isinstance(node, ast.JoinedStr):
        return ast.Call(func=ast.Name(id="f"), args=list(node.values), keywords=[])
    if isinstance(node, ast.FormattedValue):
        form = [] if node.format_spec is None else [node.format_spec]
        parts = [node.value, ast.Constant(value=node.conversion), *form]
        return ast.Call(func=ast.Name(id="format"), args=parts, keywords=[])
    return node
