"""Size limits for files and functions. Run from the repository root: `python .ci/check_sizes.py`.

A file of `runner/`, `locked_eval/` or `tests/` has at most 400 lines. A function of `runner/` or `locked_eval/`
has at most 60 lines of code (docstrings, comments and blank lines do not count) and 6 parameters (`self` and
`cls` do not count). Exceptions are listed in `EXCEPTIONS` with a reason; one that is no longer needed is an
error too.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6

EXCEPTIONS: dict[str, str] = {
    "runner/campaign/budget.py:LedgerJournal.__init__": "independent limits, each with a default",
    "runner/records.py": "the nouns of the whole controller, read together",
    "runner/storage/ledger.py:Ledger.close_experiment": "columns of one row, by name",
    "runner/storage/ledger.py:Ledger.open_experiment": "columns of one row, by name",
}
"""Reason by name: `path` for a file, `path:Class.function` for a function."""

_IGNORED = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def main() -> int:
    """Print every offender and every needless exception; returns the exit status."""
    problems = list(check(dict(offenders(Path())), EXCEPTIONS))
    for line in problems:
        print(line, file=sys.stderr)
    return 1 if problems else 0


def check(found: Mapping[str, str], exceptions: Mapping[str, str]) -> Iterator[str]:
    """Compare offenders with the exceptions; yields a line for each problem."""
    yield from (f"{name}: {problem}" for name, problem in found.items() if name not in exceptions)
    yield from (f"{name}: its exception is no longer needed" for name in exceptions if name not in found)


def offenders(root: Path) -> Iterator[tuple[str, str]]:
    """Find files and functions above a limit; yields the name of each and what is wrong with it."""
    for folder in ("runner", "locked_eval", "tests"):
        for path in sorted((root / folder).rglob("*.py")):
            name, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
            num_lines = len(text.splitlines())
            if num_lines > MAX_FILE_LINES:
                yield name, f"{num_lines} lines; at most {MAX_FILE_LINES} are allowed"
            if folder != "tests":
                code = code_lines(text)
                for function, node in functions(ast.parse(text)):
                    if problem := excess(node, code):
                        yield f"{name}:{function}", problem


def excess(node: ast.FunctionDef | ast.AsyncFunctionDef, code: set[int]) -> str | None:
    """Say by how much a function exceeds a limit; `None` when it does not."""
    first = node.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    docstring = range(first.lineno, (first.end_lineno or 0) + 1) if documented else range(0)
    num_lines = len(code & set(range(node.lineno, (node.end_lineno or 0) + 1)) - set(docstring))
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    num_parameters = sum(one is not None and one.arg not in ("self", "cls") for one in every)
    problems = []
    if num_lines > MAX_FUNCTION_LINES:
        problems.append(f"{num_lines} lines of code; at most {MAX_FUNCTION_LINES} are allowed")
    if num_parameters > MAX_PARAMETERS:
        problems.append(f"{num_parameters} parameters; at most {MAX_PARAMETERS} are allowed")
    return ", ".join(problems) or None


def functions(node: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Walk a tree; yields the qualified name and the node of every function."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{prefix}{child.name}."
            if not isinstance(child, ast.ClassDef):
                yield name.removesuffix("."), child
        yield from functions(child, name)


def code_lines(text: str) -> set[int]:
    """Numbers of the lines that contain code."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _IGNORED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return lines


if __name__ == "__main__":
    sys.exit(main())
