"""Every function of the host that reads a candidate's text takes all of it: hostile, broken, legal but odd."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locked_eval.preparation.index import IndexBuilder
from runner import edits
from runner.campaign.commit_message import kept_message, tried_message
from runner.corpus.redaction import Redactor
from runner.edits import contamination
from runner.edits.contamination import SealedText
from runner.edits.parsing import parse, unparse
from runner.proposers import combine, constants, replay
from runner.proposers.researcher import digest, duplicates, experiments_tool, prompt
from runner.proposers.researcher.editor_tool import ScratchCopy
from runner.records import Experiment, Figures, Patch, Replace, Verdict, Write
from runner.untrusted import clean, progress, tokens_per_second, training_loss
from tests.support.replicates import replicates

PATH = "workload/odd.py"
BASE = {"workload/__init__.py": b"", "workload/model.py": b"WIDTH = 64\n", "workload/train.py": b"RATE = 0.02\n"}
NO_BREAK_SPACE = "text = f\"{'\u00a0'.join(names)}\"\n"
LONG_INTEGER = f"MASK = 0x{'f' * 3600}\n"
SEALED = SealedText(validation=np.array([1], np.uint64), test=np.array([2], np.uint64), tokens=[b"a", b"b"])
REDACTOR = Redactor(index=IndexBuilder(0).finish(), tokens=[b"a", b"b"])
FIGURES = Figures(
    trials=(1,), pool=(2,), delta_bpb=-0.001, se_bpb=0.001, sigma_bpb=0.001, better=0.7, effect_bpb=-0.002,
    low_bpb=-0.002, high_bpb=0.001, first_delta_bpb=-0.001, first_se_bpb=0.001,
)  # fmt: skip


def read_everywhere(data):
    """Show a file to all that read one; whatever it is, each has an answer."""
    text = data.decode("utf-8", "surrogateescape")
    after = {**BASE, PATH: data}
    edits.check_tree(after)
    edits.count_logic(after)
    contamination.find(BASE, after, SEALED)
    prompt.show_files(after)
    for constant in constants.find(after, "cpu"):
        for factor in (0.25, 0.99, 1.5, 4.0):
            literal = constants.scaled(constant, factor)
            assert literal != constant.literal
            constants.replaced(after, constant, literal)
    read_log(text)
    replay.split(text)
    edits.apply(BASE, (Patch(text=text),))
    edits.apply({**BASE, PATH: b"old"}, (Replace(path=PATH, old="old", new=text),))
    bench = ScratchCopy(after)
    for command in ({"command": "view"}, {"command": "create", "file_text": text},
                    {"command": "insert", "insert_line": 0, "insert_text": text},
                    {"command": "str_replace", "old_str": text, "new_str": "x = 1\n"}):  # fmt: skip
        bench.edit({"path": PATH, **command})
    diff = edits.diff(BASE, after)
    edits.diff(after, BASE)
    read_ledger(diff, text, after)
    applied = edits.apply(BASE, (Write(path=PATH, content=text),))
    if not isinstance(applied, edits.Refusal):
        assert edits.apply(BASE, (Patch(text=edits.diff(BASE, applied)),)) == applied
        other = {**BASE, "workload/train.py": b"RATE = 0.04\n"}
        assert not isinstance(edits.carry_over(other, base=BASE, changed=applied), edits.Refusal)
        bench = ScratchCopy(BASE)
        bench.edit({"command": "create", "path": PATH, "file_text": text})
        assert edits.apply(BASE, bench.changes()) == applied


def read_log(text):
    shown = clean(text, 20)
    REDACTOR.redact(shown)
    tokens_per_second(shown)
    for line in shown.split("\n"):
        progress(line)
        training_loss(line)


def read_ledger(diff, text, after):
    """What a restart and a report read of an experiment that had the text in every place."""
    common = {
        "hypothesis": text,
        "proposer": "p",
        "category": text,
        "reason": text,
        "champion": 0,
        "log_tail": text,
    }
    first = Experiment(number=0, hypothesis="baseline", proposer="p", verdict=Verdict.KEEP, val_bpb=2.0)
    some = [
        Experiment(number=number, diff=diff, verdict=verdict, val_bpb=1.9, figures=FIGURES, **common)
        for number, verdict in enumerate((Verdict.DISCARD, Verdict.CRASH, Verdict.INFRA, Verdict.DISCARD), 1)
    ]
    told = [first, *some]
    digest.digest(told)
    duplicates.repeats(BASE, after, told)
    experiments_tool.read({"numbers": [1, 2]}, told)
    experiments_tool.read({"status": "any", "file": text, "category": text}, told)
    combine.stack(combine.shelf(told), lambda _: BASE, champion=0, sigma_bpb=0.001, stack_sigmas=1.0, ending=False)
    tried_message(some[0])
    kept_message(some[0])


@pytest.mark.parametrize("text", [NO_BREAK_SPACE, LONG_INTEGER], ids=["no-break space", "3,600 hex digits"])
def test_an_honest_line_is_accepted_and_counts_as_one(text):
    files = edits.apply(BASE, (Write(path=PATH, content=text),))
    assert not isinstance(files, edits.Refusal)
    assert edits.count_logic(files) == edits.count_logic(BASE) + 1
    again = Experiment(
        number=1, hypothesis="h", proposer="p", verdict=Verdict.DISCARD, diff=edits.diff(BASE, files)
    )
    assert duplicates.repeats(BASE, files, [again]) is again
    read_everywhere(text.encode())


@pytest.mark.parametrize("text", [NO_BREAK_SPACE, LONG_INTEGER], ids=["no-break space", "3,600 hex digits"])
def test_the_code_beside_it_keeps_its_plain_form(text):
    program = f"def f(a, b):\n    '''Adds.'''\n    # why\n    return (\n        a + b\n    )\n\n\n{text}"
    assert edits.count_logic({PATH: program.encode()}) == 3


def test_a_nested_f_string_keeps_all_of_its_parts():
    wide = "f\"{'\u00a0'.join(a)!r:>{width}} {f'{b}'}\""
    one, two = unparse(parse(wide)), unparse(parse(wide.replace("width", "height")))
    assert "width" in one and "b" in one
    assert one != two
    assert unparse(parse(wide)) == one
    assert unparse(parse(wide).body[0].value) == one


def test_long_integers_that_differ_are_told_apart():
    assert unparse(parse(LONG_INTEGER)) != unparse(parse(LONG_INTEGER.replace("f\n", "e\n")))


def test_a_constant_that_no_float_holds_is_no_knob():
    large = f"A = {'9' * 400}\nB = 1e308\nC = 5e-324\nD = 1e300\n"
    assert [one.name for one in constants.find({PATH: large.encode()}, "cpu")] == ["D"]
    read_everywhere(large.encode())


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
    "a header of a hunk": "diff --git a/workload/x.py b/workload/x.py\n@@ -９９,1 +1 @@\n-" + LONG_INTEGER,
}


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_is_read_by_all(text):
    read_everywhere(text.encode("utf-8", "surrogateescape"))


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
        "while {v}: break", "@a[{v}]\ndef f(): return {v}", "global a; nonlocal_ = {v}", "x = (\n{v}\n,)",
        "x = {v} \\\n  if a else b",
    ])  # fmt: skip
    return st.one_of(simple, st.builds(lambda block, v, s: block.format(v=v, s=s), blocks, value, simple))


programs = st.lists(statements(), min_size=1, max_size=4).map("\n".join)


@given(programs)
def test_a_grammar_of_odd_python_is_read_by_all(text):
    read_everywhere(text.encode("utf-8"))


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogateescape")))
def test_any_bytes_are_read_by_all(data):
    read_everywhere(data)


def corpus():
    """Files of the standard library's own tests: the nasty ones, and some of the others."""
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
    odd = [path for path in files if any(word in path.name for word in nasty)]
    chance = random.Random(0)
    chosen = {path for some in (odd, files) for path in chance.sample(some, min(replicates(10), len(some)))}
    return sorted(chosen)


def test_the_tests_of_the_standard_library_are_read_by_all():
    files = corpus()
    if not files:
        pytest.skip("this Python comes without its tests")
    for path in files:
        data = path.read_bytes()
        try:
            read_everywhere(data)
        except Exception as error:
            raise AssertionError(f"{path.name} cannot be read") from error
