"""Every function of the host that reads a candidate's text takes all of it: hostile, broken, legal but odd."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import edits
from runner.edits.parsing import parse, unparse
from runner.proposers import constants
from runner.proposers.researcher import duplicates
from runner.records import Experiment, Verdict, Write
from tests.support.host_readers import BASE, PATH, draw, read_answer, read_everywhere, read_log
from tests.support.odd_python import LARGE, LONG_INTEGER, NO_BREAK_SPACE, ODD, programs, standard_library

SECONDS = 8.0
"""Of processor time, for all readers together; a search that is quadratic takes longer."""


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


@pytest.mark.parametrize("text", ODD.values(), ids=ODD)
def test_odd_text_is_read_by_all(text):
    read_everywhere(text.encode("utf-8", "surrogateescape"))


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_large_text_is_read_by_all_in_bounded_time(text):
    began = time.process_time()
    read_everywhere(text.encode("utf-8"))
    read_log(text * 4)  # a log line of a megabyte
    assert time.process_time() - began < SECONDS


@given(programs)
def test_a_grammar_of_odd_python_is_read_by_all(text):
    read_everywhere(text.encode("utf-8"))


@pytest.mark.full
@pytest.mark.timeout(1800)
@settings(max_examples=2000, deadline=None)
@given(programs)
def test_much_of_a_grammar_of_odd_python_is_read_by_all(text):
    read_everywhere(text.encode("utf-8"))


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogateescape")))
def test_any_bytes_are_read_by_all(data):
    read_everywhere(data)


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.full)], ids=["some", "all"])
@pytest.mark.timeout(1800)
def test_the_tests_of_the_standard_library_are_read_by_all(whole):
    files = standard_library(whole=whole)
    if not files:
        pytest.skip("this Python comes without its tests")
    for path in files:
        data = path.read_bytes()
        try:
            read_everywhere(data)
        except Exception as error:
            raise AssertionError(f"{path.name} cannot be read") from error


@pytest.mark.parametrize(
    "name", ["surrogates", "a line separator", "a NUL byte", "a header of a hunk", "an empty file"]
)
def test_a_picture_is_drawn_whatever_the_hypotheses_say(tmp_path, name):
    draw(ODD[name] + "$\\frac{$ \x1b[31m 变量 \U0001f600 _^{}", tmp_path / "progress.png")
    assert (tmp_path / "progress.png").stat().st_size > 1000


FIELDS = (
    *(
        "command",
        "path",
        "hypothesis",
        "category",
        "risk",
        "delete",
        "probability",
        "expected_delta_bpb",
        "numbers",
    ),
    *("status", "file", "exchanges", "opening", "usage", "calls", "code"),
)
ATOMS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=20),
    st.sampled_from([10**400, -(10**400), 1e308, *ODD.values()]),
)  # fmt: skip
ANSWERS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(max_size=5) | st.sampled_from(FIELDS), inner, max_size=6),
    ),
    max_leaves=8,
)


@settings(max_examples=120, deadline=None)
@given(ANSWERS)
def test_any_answer_of_a_model_is_read_by_all(value):
    read_answer(value)
    read_log(json.dumps(value))
    read_log(json.dumps({"event": "ended", "code": value, "status": value, "wall_seconds": value}))


def test_a_report_that_is_nested_too_deeply_is_no_report():
    read_log("[" * 100_000)
