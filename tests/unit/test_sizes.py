"""The size check: what counts as a line and as a parameter, and exceptions that are no longer needed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / ".ci" / "check_sizes.py"


@pytest.fixture(scope="module")
def sizes():
    spec = importlib.util.spec_from_file_location("check_sizes", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def found(sizes, tmp_path):
    def find(text, folder="runner"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.py").write_text(text)
        return dict(sizes.offenders(tmp_path))

    return find


def test_a_function_of_61_lines_of_code_is_found(found):
    body = "    x = 1\n" * 60
    text = f"class A:\n  class B:\n    def f(self):\n{body.replace('    x', '      x')}"
    assert found(text) == {"runner/one.py:A.B.f": "61 lines of code; at most 60 are allowed"}


def test_docstrings_comments_and_blank_lines_do_not_count(found):
    prose = "".join(f"    line {number}\n\n" for number in range(50))
    body = "    x = 1\n\n    # why\n" * 59
    assert found(f'def f():\n    """Do it.\n\n{prose}    """\n{body}') == {}


def test_seven_parameters_are_found_and_self_does_not_count(found):
    text = (
        "class A:\n"
        "    def fits(self, a, b, /, c, *, d, e, f): ...\n"
        "    def does_not(self, a, b, /, c, *d, e, f, **g): ...\n"
    )
    assert found(text) == {"runner/one.py:A.does_not": "7 parameters; at most 6 are allowed"}


@pytest.mark.parametrize("folder", ["runner", "locked_eval", "tests"])
def test_a_file_of_401_lines_is_found(found, folder):
    assert found("\n" * 401, folder) == {f"{folder}/one.py": "401 lines; at most 400 are allowed"}


def test_functions_of_tests_may_be_long(found):
    assert found("def f(a, b, c, d, e, f, g):\n" + "    x = 1\n" * 100, "tests") == {}


def test_an_exception_is_needed_or_an_error(sizes):
    assert list(sizes.check({"runner/a.py": "500 lines"}, {"runner/a.py": "why"})) == []
    assert list(sizes.check({"runner/a.py": "500 lines"}, {})) == ["runner/a.py: 500 lines"]
    assert list(sizes.check({}, {"runner/a.py": "why"})) == ["runner/a.py: its exception is no longer needed"]


def test_every_exception_has_a_reason(sizes):
    assert all(reason.strip() for reason in sizes.EXCEPTIONS.values())
