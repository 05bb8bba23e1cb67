"""Edits: applied exactly, or refused for the right reason; every rule has a harmless twin."""

from __future__ import annotations

import time
import warnings

import pytest

from runner import edits
from runner.records import Delete, Patch, Replace, Write
from tests.support.edited_tree import CHANGE, TRAIN, TREE, applied, new_file, refused

# --- paths --------------------------------------------------------------------------------------------------

BAD_PATHS = [
    ("../runner/config.py", "'..'"),
    ("workload/../runner/config.py", "'..'"),
    ("workload/./model.py", "'.'"),
    ("workload//model.py", "empty name"),
    ("workload/", "empty name"),
    ("/etc/passwd", "absolute"),
    ("workload\\model.py", "backslash"),
    ("workload/a\x00.py", "control character"),
    ("workload/a\n.py", "control character"),
    ("workload/a\x1b[2J.py", "control character"),
    (".git/hooks/pre-commit", "begins with a dot"),
    ("workload/.git/config", "begins with a dot"),
    ("workload/.gitattributes", "begins with a dot"),
    (".gitmodules", "begins with a dot"),
    ("workload/.hidden.py", "begins with a dot"),
    ("workload/--force.py", "hyphen"),
    ("--exec=sh", "hyphen"),
    ("workload/git~1/config", "not portable"),
    ("workload/two words.py", "not portable"),
    ("workload/model.py.", "not portable"),
    ("workload/mоdel.py", "not ASCII"),  # a Cyrillic o
    ("workload/__pycache__/model.txt", "compiled"),
    ("workload/model.cpython-311.pyc", "compiled"),
    ("workload/kernel.so", "compiled"),
    ("runner/config.py", "outside workload/"),
    ("workload", "outside workload/"),
    ("Workload/model.py", "outside workload/"),
    ("Makefile", "outside workload/"),
    ("", "empty"),
    ("workload/" + "x" * 65, "longer"),
    ("workload/" + "x/" * 150 + "y.py", "longer"),
    ("workload/" + "x/" * 9 + "y.py", "nested"),
]


@pytest.mark.parametrize(("path", "reason"), BAD_PATHS)
def test_a_path_that_leaves_workload_or_hides_is_refused(path, reason):
    assert reason in refused(Write(path=path, content="x = 1\n"))
    assert reason in refused(Delete(path=path))
    assert reason in refused(Replace(path=path, old="a", new="b"))
    assert edits.check_tree({**TREE, path: b"x = 1\n"}) is not None


@pytest.mark.parametrize("path", [path for path, _ in BAD_PATHS])
def test_a_patch_with_such_a_path_is_refused(path):
    refused(Patch(text=new_file(path)))
    refused(Patch(text=f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x = 1\n"))
    refused(Patch(text=f"diff --git a/{path} b/{path}\nnew file mode 100644\n"))


@pytest.mark.parametrize(
    "path",
    [
        "workload/extra.py",
        "workload/_private.py",
        "workload/a/b/c.py",
        "workload/with-hyphen.v2.txt",
        "workload/kernels/attention.cu",
        "workload/Dockerfile",  # harmless: a file like any other in the candidate's layer
        "workload/git.py",
        "workload/__init__.py",
    ],
)
def test_an_ordinary_path_is_accepted(path):
    assert applied(Write(path=path, content="x = 1\n"))[path] == b"x = 1\n"
    assert applied(Patch(text=new_file(path)))[path] == b"x = 1\n"


def test_names_that_differ_in_case_only_are_refused():
    assert "upper and lower case" in refused(Write(path="workload/Model.py", content="x = 1\n"))
    tree = {**TREE, "workload/part/a.py": b""}
    assert "upper and lower case" in refused(Write(path="workload/Part/b.py", content=""), tree=tree)
    renamed = applied(Delete(path="workload/notes.txt"), Write(path="workload/Notes.txt", content="x"))
    assert "workload/Notes.txt" in renamed


def test_a_name_cannot_be_a_file_and_a_folder():
    assert "a file and a folder" in refused(Write(path="workload/model.py/x.py", content=""))


# --- content ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("x = 1\r\n", "carriage return"),
        ("x = 1\ry = 2\n", "carriage return"),
        ("\ufeffx = 1\n", "byte order mark"),
        ("x = 1\n# \u202e reversed\n", "line 2 holds an invisible"),
        ("access\u2066 = 1\n", "U+2066"),
        ("x\u200b = 1\n", "U+200B"),
        ("# soft\u00adhyphen\n", "U+00AD"),
        ("# \x1b[31m\n", "U+001B"),
        ("# \x07\n", "U+0007"),
        ("# \x0c\n", "U+000C"),
        ("# \x85\n", "U+0085"),
        ("# \u2028\n", "U+2028"),
        ("ㅤ = 1\n", "U+3164"),
        ("# \ufe0f\n", "U+FE0F"),
        ("# \U000e0041\n", "U+E0041"),
        ("x = '\x00'\n", "NUL"),
        ("x = '\ud800'\n", "UTF-8"),
        ("x = '\ufffd'\n", "its source was not UTF-8 text"),
    ],
)
def test_text_that_a_diff_would_not_show_is_refused(content, reason):
    assert reason in refused(Write(path="workload/extra.py", content=content))
    refused(Replace(path="workload/model.py", old="DEPTH = 2\n", new=content))
    size = content.count("\n")
    refused(
        Patch(text=new_file("workload/extra.py", "+" + content.removesuffix("\n").replace("\n", "\n+"), size=size))
    )


@pytest.mark.parametrize("content", ["# naïve Größe 漢字 → ∇²\n", "x = 'é'\n", "\tx\n", "", "# 🎉\n"])
def test_ordinary_text_is_accepted(content):
    assert applied(Write(path="workload/notes.md", content=content))["workload/notes.md"] == content.encode()


def test_a_binary_file_is_refused():
    problem = edits.check_tree({**TREE, "workload/weights.bin": b"\x89PNG\xff\xfe"})
    assert problem is not None and "binary" in problem.reason
    assert "binary" in refused(Patch(text=CHANGE), tree={**TREE, "workload/model.py": b"\xff\xfe"})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("def f(:\n", "line 1"),
        ("x = 1\nif x\n    pass\n", "line 2: expected ':'"),
        ("(" * 1000, "nested"),
        ("-" * 100_000 + "1", "nested too deeply"),
        ("a" + ".b" * 60_000, "nested too deeply"),
        ("x = " + "9" * 5000, "digits"),
        ("# -*- coding: utf-7 -*-\nx = 1\n", "encoding"),
        ("#!/usr/bin/python\n# vim: set fileencoding=unicode_escape :\n", "encoding"),
    ],
)
def test_python_that_does_not_parse_is_refused_before_a_gpu_is_spent(content, reason):
    assert reason in refused(Write(path="workload/extra.py", content=content))
    assert applied(Write(path="workload/extra.txt", content=content))


def test_python_that_only_warns_is_accepted_silently():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        applied(Write(path="workload/extra.py", content="# -*- coding: utf-8 -*-\nx = '\\d'\ny = x is 'a'\n"))


@pytest.mark.parametrize("path", edits.REQUIRED)
def test_the_modules_of_the_contract_must_stay(path):
    assert f"{path} must stay" in refused(Delete(path=path))
    applied(Delete(path=path), Write(path=path, content="x = 2\n"))


def test_sizes_are_capped():
    line = "# 34567 9\n"
    biggest = line * (edits.MAX_FILE_BYTES // len(line))
    applied(Write(path="workload/big.py", content=biggest))
    assert "at most" in refused(Write(path="workload/big.py", content=biggest + line))
    assert "at most" in refused(*[Write(path=f"workload/big{i}.py", content=biggest) for i in range(9)])
    assert "files" in refused(*[Write(path=f"workload/n{i}.py", content="") for i in range(edits.MAX_FILES - 2)])
    applied(*[Write(path=f"workload/n{i}.py", content="") for i in range(edits.MAX_FILES - 3)])
    assert "edits at once" in refused(
        *[Write(path="workload/n.py", content=str(i)) for i in range(edits.MAX_EDITS + 1)]
    )
    # One byte in characters, two in UTF-8.
    assert "at most" in refused(Write(path="workload/big.txt", content="é" * (edits.MAX_FILE_BYTES // 2 + 1)))


def test_fifty_megabytes_are_refused_at_once():
    huge = "x" * 50_000_000
    begin = time.monotonic()
    assert "at most" in refused(Patch(text=huge))
    assert "at most" in refused(Write(path="workload/a.py", content=huge))
    assert "at most" in refused(Replace(path="workload/model.py", old=huge, new=""))
    assert "at most" in refused(Replace(path="workload/model.py", old="WIDTH", new=huge))
    assert time.monotonic() - begin < 2


# --- replace, write, delete ---------------------------------------------------------------------------------


def test_replace_needs_exactly_one_occurrence():
    result = applied(Replace(path="workload/model.py", old="DEPTH = 2", new="DEPTH = 3"))
    assert result["workload/model.py"] == b"WIDTH = 64\nDEPTH = 3\n"
    assert "occurs 0 times" in refused(Replace(path="workload/model.py", old="DEPTH = 4", new=""))
    assert "occurs 40 times" in refused(Replace(path="workload/train.py", old="step_", new=""))
    assert "empty" in refused(Replace(path="workload/model.py", old="", new="x"))


def test_overlapping_occurrences_are_counted():
    tree = {**TREE, "workload/a.txt": b"aaa"}
    assert "occurs 2 times" in refused(Replace(path="workload/a.txt", old="aa", new="b"), tree=tree)


def test_a_missing_file_cannot_be_changed():
    assert "does not exist" in refused(Replace(path="workload/none.py", old="a", new="b"))
    assert "does not exist" in refused(Delete(path="workload/none.py"))
    assert "does not exist" in refused(Patch(text=CHANGE.replace("model", "none")))


def test_edits_see_the_result_of_the_one_before_and_all_or_none_count():
    first = Write(path="workload/extra.py", content="a = 1\n")
    assert applied(first, Replace(path="workload/extra.py", old="1", new="2"))["workload/extra.py"] == b"a = 2\n"
    refused(first, Replace(path="workload/extra.py", old="3", new="2"))


def test_edits_that_change_nothing_are_refused():
    assert "change nothing" in refused()
    assert "change nothing" in refused(Replace(path="workload/model.py", old="64", new="64"))
    assert "change nothing" in refused(Write(path="workload/train.py", content=TRAIN.decode()))
