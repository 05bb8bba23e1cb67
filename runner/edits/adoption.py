"""A single-file trainer becomes the first version of a workload: split where it starts to run.

The evaluation imports `workload.model` without training, so everything that only defines goes to `model.py`, and
the rest to `train.py`. Lines are moved, not rewritten: what must change beyond that is for a person, and
`contract.py` names the places.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from runner.edits.contract import own_tokenizer
from runner.edits.rules import Refusal

_LOAD = '''

def load(path, device):
    """Rebuild what training published; the evaluation calls this and nothing else."""
    model = {built}
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.to(device).eval()
'''


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """The two files that a trainer became."""

    model: str
    train: str
    first_line: int  # of the original, where it starts to run
    model_class: str


def adopt(source: str, name: str) -> Adopted | Refusal:
    """Split a trainer.

    Args:
        source: its text.
        name: of its file, for reasons.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Refusal(reason=f"{name} is not Python that can be read: {error}")
    found = own_tokenizer(name, tree)
    if found is not None:
        return Refusal(reason=str(found))
    first = next((node for node in tree.body if _runs(node)), None)
    if first is None:
        return Refusal(
            reason=f"{name} only defines things; where does it train? A statement at its end must start it"
        )
    begin = _first_line(first)
    head = [node for node in tree.body if node.lineno < begin]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    model = _root_model(classes)
    if model is None:
        return Refusal(reason=f"{name} defines no subclass of torch.nn.Module, so there is no model to score")
    if model not in head:
        return Refusal(
            reason=f"{name}:{model.lineno}: the class {model.name} is defined below line {begin}, which already "
            "runs; move it above that line"
        )
    lines = source.splitlines()
    return Adopted(
        model="\n".join(lines[: begin - 1]).rstrip() + "\n" + _LOAD.format(built=_construction(tree, model.name)),
        train="\n".join([*_imports(tree, head, begin), "", *lines[begin - 1 :]]).rstrip() + "\n",
        first_line=begin,
        model_class=model.name,
    )


def _runs(node: ast.stmt) -> bool:
    """Whether a statement at the top of a module does more than define."""
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef() | ast.Import() | ast.ImportFrom():
            return False
        case ast.Expr(value=ast.Constant()):
            return False
        case ast.Assign(targets=[ast.Subscript()]):  # os.environ[...] = "1"
            return False
        case ast.Assign() | ast.AnnAssign():
            return any(isinstance(inner, ast.Call) for inner in ast.walk(node))
        case _:
            return True


def _first_line(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min(node.lineno, *(one.lineno for one in decorators), node.lineno)


def _root_model(classes: Sequence[ast.ClassDef]) -> ast.ClassDef | None:
    """The last module that no other class builds."""
    modules = [one for one in classes if any(ast.unparse(base).endswith("Module") for base in one.bases)]
    inside = {
        inner.id
        for one in classes
        for inner in ast.walk(one)
        if isinstance(inner, ast.Name) and inner.id != one.name
    }
    return next((one for one in reversed(modules) if one.name not in inside), None)


def _construction(tree: ast.Module, name: str) -> str:
    """The expression by which the trainer builds its model."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            return ast.unparse(node)
    return f"{name}()"


def _imports(tree: ast.Module, head: Sequence[ast.stmt], begin: int) -> list[str]:
    """Lines that import again what the rest uses of the head, in the head's own words."""
    used = {
        inner.id
        for node in tree.body
        if node.lineno >= begin
        for inner in ast.walk(node)
        if isinstance(inner, ast.Name)
    }
    lines, defined = [], []
    for node in head:
        match node:
            case ast.Import() | ast.ImportFrom():
                if any((alias.asname or alias.name).partition(".")[0] in used for alias in node.names):
                    lines.append(ast.unparse(node))
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.AsyncFunctionDef(name=name):
                defined += [name] if name in used else []
            case ast.Assign() | ast.AnnAssign():
                names = [one.id for one in ast.walk(node) if isinstance(one, ast.Name)]
                names = [one for one in names if one in used and isinstance(_context(node, one), ast.Store)]
                defined += names
            case _:
                pass
    if defined:
        lines.append(f"from workload.model import {', '.join(dict.fromkeys(defined))}")
    return lines


def _context(node: ast.stmt, name: str) -> ast.expr_context | None:
    return next((one.ctx for one in ast.walk(node) if isinstance(one, ast.Name) and one.id == name), None)
