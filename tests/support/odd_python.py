"""Python that is legal and seldom seen, or nearly legal: by hand, by a grammar, and from the standard library."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import strategies as st

NO_BREAK_SPACE = "text = f\"{'\u00a0'.join(names)}\"\n"
LONG_INTEGER = f"MASK = 0x{'f' * 3600}\n"

ODD = {
    "a deep expression": "x = " + "(" * 150 + "1" + ")" * 150 + "\n",
    "too deep an expression": "x = " + "(" * 5000 + ")" * 5000 + "\n",
    "a long sum": "x = " + "+".join(["a"] * 5000) + "\n",
    "a long chain": "x = a" + ".b" * 3000 + "\n",
    "many signs": "x = " + "-" * 3000 + "1\n",
    "many brackets": "x = a" + "[0]" * 3000 + "\n",
    "too many digits": "x = " + "9" * 5000 + "\n",
    "the most digits": "X = " + "9" * 4300 + "\n",
    "deep blocks": "".join(" " * depth + "if a:\n" for depth in range(99)) + " " * 99 + "b\n",
    "a NUL byte": "x = 1\0\n",
    "a form feed": "x = 1\n\x0c\nY = 2\n",
    "a line separator": "x = '\u2028'\nY = 2\n",
    "carriage returns": "x = 1\r\nY = 2\rZ = 3\r\n",
    "a byte order mark": "\ufeffX = 0.5\nY = 2\n",
    "an encoding": "# coding: latin-1\ns = 'é'; X = 2\nY = 3\n",
    "an encoding that hides": "# coding: utf-7\nX = 2\n",
    "no such encoding": "# coding: nonsense\nX = 2\n",
    "surrogates": "x = '\\ud800'; y = f'\\udfff{x}'\n",
    "a lone surrogate": "x = '\udc80'\n",
    "other digits": "x = '" + " ".join(["٣٤"] * 20) + "'\nÅ = ０\n",
    "a warning": "x = '\\d'; y = 1 is 1; z = 0or 1\n",
    "large numbers": "X = 1e309\nY = 1e308j\nZ = -1e308\nW = 0.9999999999999999\nV = 5e-324\n",
    "no line end": "X = 2\\",
    "hexadecimal of nothing": "0x" + "_" * 40 + " " + "0" * 60 + "\n",
    "walrus and match": "match (a := b):\n    case {'k': [*_], **c} | C(x=1) if (d := a): pass\n",
    "a type of its own": "type A[T: int, *Ts, **P] = dict[T, A]\n",
    "an f-string of f-strings": "x = f'{f\"{f'{1!r:>{w}}'}\"}'\n",
    "an empty file": "",
    "nothing but comments": "# \u202e\n" * 3,
    "a header of a hunk": "diff --git a/workload/x.py b/workload/x.py\n@@ -９９,1 +1 @@\n-" + LONG_INTEGER,
}

LINE = 50_000
LARGE = {
    "one long name": "x" * LINE,
    "one long string": f"x = '{'ab ' * (LINE // 3)}'\n",
    "one long line of code": "x = 1; " * (LINE // 7),
    "one long comment": "# " + "é" * (LINE // 2),
    "many numbers": "x = [" + "12, " * (LINE // 4) + "]\n",
    "many digits": "x = '" + "7" * LINE + "'\n",
    "one long code": "x = '" + "eJzA/9+b" * (LINE // 8) + "'\n",
    "many short lines": "a\n" * (LINE // 2),
    "many empty lines": "\n" * LINE,
    "many quotes": "'" * LINE,
    "many brackets": "(" * LINE,
    "many escapes": "x = '" + "\\x41" * (LINE // 4) + "'\n",
    "many spaces": "x =" + " " * LINE + "1\n",
    "many marks": "x =" + " #" * (LINE // 2) + "'\n",
    "many hunks": "--- a/workload/x.py\n+++ b/workload/x.py\n" + "@@ -1 +1 @@\n-a\n+b\n" * (LINE // 18),
    "many f-strings": "x = f'{a}{b!r:>{c}}'\n" * (LINE // 22),
}
"""Text of one file, in forms that make a careless search or parser slow."""


def expressions():
    """Legal expressions of what is seldom seen: characters, numbers, f-strings in f-strings, operators."""
    character = st.sampled_from(["a", " ", "\u00a0", "\u3000", "\U0001f600", "\\n", "\\x00", "\\u2028", "\\ud800"])
    plain = st.lists(character, max_size=4).map("".join)
    names = st.sampled_from(["a", "Å", "ﬁ", "变量", "__x", "µ"])
    digits = st.sampled_from([1, 39, 400, 3600])
    integers = st.builds(lambda digit, count: f"0x{digit * count}", st.sampled_from("1f"), digits)
    numbers = st.one_of(
        integers,
        st.builds(lambda digit, count: digit * count, st.sampled_from("19"), digits),
        st.sampled_from(["0b1", "1_0", "1e308", "1e999", "5e-324", "1j", "0_0", ".5", "0xF.real"]),
    )
    strings = st.builds(
        lambda prefix, text: f"{prefix}'{text}'", st.sampled_from(["", "r", "u", "R"]), plain
    ) | st.just("b'\\xff\\x00'")

    def larger(inner):
        parts = st.one_of(
            names, st.sampled_from(['"\u00a0"', '"é"', '"\u00a0".join(a)', "a!r", "a:>{b}", "a=", "1.5:"])
        )
        return st.one_of(
            st.builds(lambda text, part, more: f"f'{text}{{{part}}}{{{{{more}'", plain, parts, plain),
            st.builds(
                lambda a, b, op: f"({a} {op} {b})", inner, inner, st.sampled_from(["+", "if a else", "**", ","])
            ),
            st.builds(lambda a: f"(lambda *a, b=1, **c: {a})", inner),
            st.builds(lambda a, b: f"{{{a}: {b}, **c}}", inner, inner),
            st.builds(lambda a: f"[{a} for a, *b in c if (d := a)]", inner),
            st.builds(lambda a, b: f"a[{a}:{b}, ...]", inner, inner),
            st.builds(lambda a: f"(not -~{a})", inner),
            st.builds(lambda a, b: f"(a {a!r} {b!r})".replace("a ", "", 1), plain, plain),
        )

    return st.recursive(st.one_of(names, numbers, strings), larger, max_leaves=6)


def statements():
    value = expressions()
    simple = st.one_of(
        value,
        st.builds("X = {}".format, value),
        st.builds("x: {} = 1".format, value),
        st.builds("x = y = {}".format, value),
        st.builds("x += {}; del x".format, value),
        st.builds("# {}".format, value),
        st.builds("'''{}'''".format, st.sampled_from(["doc", "\u00a0", "@@ -1 +1 @@", "--- a"])),
    )
    blocks = st.sampled_from([
        "def f(a: {v}, /, *, b={v}):\n    {s}", "async def f():\n    async with {v} as a: await a\n    {s}",
        "class C({v}):\n    {s}", "try:\n    {s}\nexcept* a:\n    pass", "for a, *b in {v}:\n    {s}\nelse: pass",
        "match {v}:\n    case [a, *_] | {{'k': a}} if a:\n        {s}", "if {v}:\n\t{s}\n\n\x0c",
        "type A[T: {v}] = {v}", "def f[T](a: T) -> {v}: ...", "with ({v} as a, b): {s}", "while (a := {v}): break",
        "while {v}: break", "@a[{v}]\ndef f(): return {v}", "global a; nonlocal_ = {v}", "x = (\n{v}\n,)",
        "x = {v} \\\n  if a else b",
    ])  # fmt: skip
    return st.one_of(simple, st.builds(lambda block, v, s: block.format(v=v, s=s), blocks, value, simple))


programs = st.lists(statements(), min_size=1, max_size=4).map("\n".join)


def standard_library(*, whole):
    """Files of the standard library's own tests: the nasty ones and some of the others, or all."""
    folder = Path(next(iter(pytest.importorskip("test").__path__)))
    nasty = (
        *(
            "grammar",
            "fstring",
            "unparse",
            "syntax",
            "parser",
            "tokenize",
            "unicode",
            "ast",
            "string",
            "long",
            "float",
        ),
        *("int", "compile", "pep", "source", "coding", "bad", "escape", "patma", "re", "codec"),
    )
    files = sorted(path for path in folder.glob("*.py") if path.stat().st_size < 120_000)
    if whole:
        return files
    odd = [path for path in files if any(word in path.name for word in nasty)]
    chance = random.Random(0)
    chosen = {*chance.sample(odd, min(20, len(odd))), *chance.sample(files, min(15, len(files)))}
    return sorted(chosen)
