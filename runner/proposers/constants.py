"""Numeric constants in `workload/`: found by the parser, changed in place and nowhere else.

A constant is a module-level `NAME = literal` in upper case, bound once, with a plain decimal int or float.
A sum, a power or a tuple is a formula and is left alone.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from dataclasses import dataclass

from runner.edits.parsing import parse
from runner.edits.rules import Refused, check_file
from runner.records import Files

SIZES = "workload/sizes/"

_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_LITERAL = re.compile(rb"-?(\d[\d_]*)(\.[\d_]*)?([eE][-+]?\d+)?|-?\.\d[\d_]*([eE][-+]?\d+)?")
# None of these can change the score: the host issues the seed, and the others are for people who read logs.
_NOT_TUNABLE = re.compile(r"(^|_)(SEED|LOG|FLOPS|BYTES)(_|$)")
# Leaves room for any factor within the range of a float.
_SMALLEST, _LARGEST = 1e-300, 1e300
# Below 1 by accident, not by definition.
_NOT_A_FRACTION = re.compile(r"(LEARNING_RATE|LR|STD|GAIN|SCALE)$")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """One constant and the position of its literal."""

    path: str
    name: str
    value: int | float
    literal: str
    start: int  # byte offset in the file
    end: int

    @property
    def key(self) -> str:
        """Its name in the ledger, the same in every program."""
        return f"{self.path}:{self.name}"


def find(files: Files, profile: str) -> list[Constant]:
    """List the constants that may be tuned, in path and source order.

    Zero is left out, since a factor cannot move it; so are extreme numbers, and the sizes of other profiles.

    Args:
        files: the tip's `workload/`.
        profile: of `workload/sizes/*.py`, only the module of this name counts.
    """
    found: list[Constant] = []
    for path, source in sorted(files.items()):
        if path.endswith(".py") and (not path.startswith(SIZES) or path == f"{SIZES}{profile}.py"):
            found += _in_file(path, source)
    return found


def _in_file(path: str, source: bytes) -> list[Constant]:
    try:
        check_file(path, source)
    except Refused:  # with odd encodings or line endings, offsets differ from what the parser reports
        return []
    module = parse(source)
    if module is None:
        return []
    lines = [0, *(match.end() for match in re.finditer(rb"\n", source))]
    found: list[Constant] = []
    bound: Counter[str] = Counter()
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign | ast.AugAssign):
            targets = [statement.target]
        else:
            continue
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        bound.update(names)
        node = statement.value
        if len(targets) != 1 or len(names) != 1 or node is None or isinstance(statement, ast.AugAssign):
            continue
        start = lines[node.lineno - 1] + node.col_offset  # columns are counted in bytes of UTF-8
        end = lines[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        literal = source[start:end]
        if not _NAME.fullmatch(names[0]) or _NOT_TUNABLE.search(names[0]) or not _LITERAL.fullmatch(literal):
            continue
        text = literal.decode("ascii")
        value = ast.literal_eval(text)
        if _SMALLEST <= abs(value) <= _LARGEST:
            found.append(Constant(path=path, name=names[0], value=value, literal=text, start=start, end=end))
    return [constant for constant in found if bound[constant.name] == 1]


def scaled(constant: Constant, factor: float) -> str:
    """Write the literal of a constant times a factor, in the style of the old one and never equal to it.

    - A fraction in (0, 1) stays inside: the factor applies to its odds v / (1 - v). Small ones scale as usual,
      and 0.95 × 2 gives 0.974, not 1.9. Learning rates and the like are not fractions.
    - An int stays an int of the same sign, at least 1. A power of two from 16 on, or of a batch, stays a power of
      two: tensor and batch sizes divide one another.
    """
    magnitude = abs(constant.value)
    sign = "-" if constant.value < 0 else ""
    if isinstance(constant.value, int):
        powers = magnitude >= 16 or "BATCH" in constant.name
        text = f"{_scaled_int(int(magnitude), factor, powers):_}"
        return sign + (text if "_" in constant.literal else text.replace("_", ""))
    fraction = 0 < magnitude < 1 and not _NOT_A_FRACTION.search(constant.name)
    moved = _scaled_fraction(magnitude, factor) if fraction else _rounded(magnitude * factor)
    if moved == magnitude:  # three digits cannot express so small a step
        moved = magnitude * factor
    return sign + _written(moved, constant.literal)


def _scaled_int(value: int, factor: float, powers: bool) -> int:
    up = factor >= 1
    if powers and value > 1 and value & (value - 1) == 0:
        steps = round(math.log2(factor))
        moved = value * 2.0 ** (steps or (1 if up else -1))
        return max(1, int(moved))
    result = max(1, round(value * factor))
    if result == value:
        result = value + (1 if up else -1)
    return result if result >= 1 else value + 1


def _scaled_fraction(value: float, factor: float) -> float:
    odds = value / (1 - value) * factor
    result = odds / (1 + odds)
    # Near 1, the distance to 1 has the meaningful digits: 0.9975, never 0.998 and never 1.
    return _rounded(result) if result < 0.5 else round(1 - _rounded(1 / (1 + odds)), 12)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _written(value: float, like: str) -> str:
    text = repr(value)
    if "e" in like.lower() and "e" not in text:
        text = f"{value:e}"
    mantissa, mark, exponent = text.partition("e")
    if not mark:
        return text
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def replaced(files: Files, constant: Constant, literal: str) -> str:
    """Return the file of a constant with its literal replaced and every other byte unchanged."""
    source = files[constant.path]
    return (source[: constant.start] + literal.encode("ascii") + source[constant.end :]).decode("utf-8")
