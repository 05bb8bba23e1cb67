"""Lines of logic: what is left of a program without its looks."""

from __future__ import annotations

import pytest

from runner.edits import count_logic

PROGRAM = """\
def f(a, b):
    return a + b
"""


@pytest.mark.parametrize(
    "text",
    [
        PROGRAM,
        "# a comment\n\n" + PROGRAM + "\n\n# another\n",
        'def f(a, b):\n    """Adds.\n\n    Nothing else.\n    """\n    return a + b\n',
        "def f(\n    a,\n    b,\n):\n    return (\n        a\n        + b\n    )\n",
        "def f(a, b): return a + b\n",
    ],
)
def test_looks_do_not_count(text):
    assert count_logic({"workload/train.py": text.encode()}) == 2


def test_statements_count_and_other_files_do_not():
    files = {
        "workload/train.py": b"a = 1; b = 2\nif a:\n    b = 3\n",
        "workload/model.py": b"",
        "workload/notes.txt": b"one\ntwo\n",
    }
    assert count_logic(files) == 4


@pytest.mark.parametrize("text", [b"def broken(:\n\n    x\n", b"\xff\n\nx\n"])
def test_a_file_that_does_not_parse_counts_by_its_lines(text):
    assert count_logic({"workload/train.py": text}) == 2
