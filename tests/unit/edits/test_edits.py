"""Edits: applied exactly, or refused for the right reason; every rule has a harmless twin."""

from __future__ import annotations

import subprocess
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import edits
from runner.records import Delete, Patch, Replace, Write

TRAIN = "".join(f"step_{number} = {number}\n" for number in range(1, 41)).encode()
TREE = {
    "workload/model.py": b"WIDTH = 64\nDEPTH = 2\n",
    "workload/train.py": TRAIN,
    "workload/notes.txt": b"no line end",
}


def applied(*changes, tree=TREE):
    result = edits.apply(tree, changes)
    assert not isinstance(result, edits.Refusal), result.reason
    return result


def refused(*changes, tree=TREE):
    before = dict(tree)
    result = edits.apply(tree, changes)
    assert isinstance(result, edits.Refusal), "accepted"
    assert dict(tree) == before
    assert result.reason.isprintable() and len(result.reason) < 500
    return result.reason


def new_file(path, content="+x = 1", mode="100644", size=1):
    head = f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
    return f"{head}@@ -0,0 +1,{size} @@\n{content}\n"


CHANGE = """\
diff --git a/workload/model.py b/workload/model.py
index 0123456..89abcde 100644
--- a/workload/model.py
+++ b/workload/model.py
@@ -1,2 +1,2 @@
 WIDTH = 64
-DEPTH = 2
+DEPTH = 3
"""


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
        ("x = '\ufffd'\n", "not UTF-8 text where it came from"),
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


def test_python_that_only_warns_is_accepted_and_warns_nobody():
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


def test_what_does_not_exist_cannot_be_changed():
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


# --- patches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (new_file("workload/link", "+/etc/passwd", mode="120000"), "symbolic links"),
        (new_file("workload/tool.py", mode="100755"), "mode 100755"),
        (new_file("workload/sub", "+Subproject commit 0123", mode="160000"), "submodules"),
        ("diff --git a/workload/model.py b/workload/model.py\nold mode 100644\nnew mode 100755\n", "mode changes"),
        (CHANGE.replace("89abcde 100644", "89abcde 100755"), "mode 100755"),
        (CHANGE.replace("89abcde 100644", "89abcde 120000"), "symbolic links"),
        (
            "diff --git a/workload/model.py b/workload/other.py\nsimilarity index 100%\n"
            "rename from workload/model.py\nrename to workload/other.py\n",
            "renames",
        ),
        ("diff --git a/workload/model.py b/workload/model.py\nrename from x\nrename to y\n", "renames"),
        ("diff --git a/workload/model.py b/workload/model.py\ncopy from x\ncopy to y\n", "renames and copies"),
        (CHANGE.replace("+++ b/workload/model.py", "+++ b/workload/other.py"), "renames"),
        (CHANGE.replace("--- a/workload/model.py", "--- a/workload/train.py"), "renames"),
        (
            "diff --git a/workload/w.bin b/workload/w.bin\nnew file mode 100644\nindex 0000000..89abcde\n"
            "GIT binary patch\nliteral 3\nKcmZQzWMT#Y01f~L\n",
            "binary",
        ),
        ("diff --git a/workload/w b/workload/w\nBinary files a/workload/w and b/workload/w differ\n", "binary"),
        ("Binary files a/workload/w and b/workload/w differ\n", "not a text diff"),
        ("diff --cc workload/model.py\n", "not a text diff"),
        (CHANGE.replace("\n", "\r\n"), "carriage return"),
        (CHANGE.replace("DEPTH = 3", "DEPTH = 3\0"), "NUL"),
        (CHANGE.replace("DEPTH = 3", "DEPTH = 3 # \ufffd"), "not UTF-8 text where it came from"),
        ("", "no unified diff"),
        ("\n\n", "no unified diff"),
        ("Please apply this.\n" + CHANGE, "line 1 of the patch"),
        (CHANGE + "And this too.\n", "line 9 of the patch"),
        (CHANGE + "-- \n2.39.5\n" + CHANGE.replace("model", "train"), "signature"),
        (CHANGE + "-- \ndiff --git a/x b/x\n", "signature"),
        (CHANGE + CHANGE, "twice"),
        ("diff --git a/workload/model.py b/workload/model.py\n", "no change"),
        (CHANGE.split("@@")[0], "no hunk"),
        (CHANGE.replace("--- a/workload/model.py\n", ""), "not part of a unified diff"),
        (CHANGE.replace("+++ b/workload/model.py\n", ""), "'+++' must follow"),
        (CHANGE.replace("a/workload", "workload"), "header must read"),
        ("--- workload/model.py\n+++ workload/model.py\n@@ -1 +1 @@\n-a\n+b\n", "must be a/PATH"),
        ('diff --git "a/workload/\\303\\251.py" "b/workload/\\303\\251.py"\n', "header must read"),
        (new_file("workload/model.py"), "but it exists"),
        (new_file("workload/x.py").replace("new file mode 100644\n", ""), "disagree"),
        (CHANGE.replace("index 0123456..89abcde 100644", "new file mode 100644"), "disagree"),
        (
            CHANGE.replace("index 0123456..89abcde 100644", "new file mode 100644\nnew file mode 100644"),
            "second mode",
        ),
        ("--- /dev/null\n+++ /dev/null\n@@ -0,0 +1 @@\n+x\n", "both sides"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -1,3 +1,3 @@"), "ends early"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -1,1 +1,2 @@"), "more lines than its header"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -1,2 +1,1 @@"), "not part of a unified diff"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -a +b @@"), "not a hunk header"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -2,2 +2,2 @@"), "reaches beyond"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -0,2 +1,2 @@"), "out of order"),
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -1,2 +2,2 @@"), "stand elsewhere"),
        (CHANGE.replace(" WIDTH = 64", " WIDTH = 65"), "does not apply: line 1"),
        (CHANGE.replace(" WIDTH = 64", " WIDTH  = 64"), "does not apply"),
        (CHANGE.replace("-DEPTH = 2", "-DEPTH = 2\n\\ No newline at end of file"), "does not apply: line 2"),
        (CHANGE.replace("-DEPTH = 2\n+DEPTH = 3", " DEPTH = 2"), "changes nothing"),
        (CHANGE.replace("-DEPTH", "*DEPTH"), "begins with"),
        (
            CHANGE.replace(" WIDTH = 64\n", " WIDTH = 64\n\\ No newline at end of file\n"),
            "without line end",
        ),
        (
            "--- a/workload/train.py\n+++ b/workload/train.py\n@@ -1,2 +1,2 @@\n-step_1 = 1\n+a = 1\n step_2 = 2\n"
            "@@ -2,2 +2,2 @@\n step_2 = 2\n-step_3 = 3\n+b = 3\n",
            "overlaps",
        ),
        (
            "--- a/workload/train.py\n+++ b/workload/train.py\n@@ -20 +20 @@\n-step_20 = 20\n+a = 1\n"
            "@@ -1 +1 @@\n-step_1 = 1\n+b = 1\n",
            "out of order",
        ),
        (
            "--- a/workload/train.py\n+++ b/workload/train.py\n@@ -1 +1 @@\n-step_1 = 1\n+a = 1\n"
            "\\ No newline at end of file\n",
            "without line end in the middle",
        ),
        (
            "diff --git a/workload/notes.txt b/workload/notes.txt\ndeleted file mode 100644\n",
            "not all of its lines",
        ),
    ],
)
def test_a_patch_that_is_not_a_plain_text_change_is_refused(text, reason):
    assert reason in refused(Patch(text=text))


def test_a_link_cannot_be_planted_and_then_written_through():
    plant = new_file("workload/out", "+../../.git", mode="120000")
    assert "symbolic links" in refused(Patch(text=plant + new_file("workload/out/hooks/pre-commit")))


@pytest.mark.parametrize(
    "text",
    [
        CHANGE,
        CHANGE.split("\n", 2)[2],  # without the header lines of git
        CHANGE.replace("index 0123456..89abcde 100644\n", ""),
        CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -1,2 +1,2 @@ def something():"),
        CHANGE.replace("model.py\n+++", "model.py\t2026-01-01 00:00:00\n+++"),
        CHANGE + "-- \n2.39.5 (Apple Git-154)\n\n",
        "\n" + CHANGE,
        CHANGE.removesuffix("\n"),
    ],
)
def test_the_plain_forms_of_a_patch_are_accepted(text):
    assert applied(Patch(text=text))["workload/model.py"] == b"WIDTH = 64\nDEPTH = 3\n"


def test_a_patch_creates_and_deletes_files():
    assert applied(Patch(text=new_file("workload/extra.py")))["workload/extra.py"] == b"x = 1\n"
    empty = "diff --git a/workload/e.py b/workload/e.py\nnew file mode 100644\nindex 0000000..e69de29\n"
    assert applied(Patch(text=empty))["workload/e.py"] == b""
    gone = (
        "diff --git a/workload/notes.txt b/workload/notes.txt\ndeleted file mode 100644\n"
        "--- a/workload/notes.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-no line end\n\\ No newline at end of file\n"
    )
    assert "workload/notes.txt" not in applied(Patch(text=gone))


def test_an_empty_context_line_may_have_lost_its_blank():
    tree = {**TREE, "workload/a.txt": b"a\n\nb\n"}
    text = "--- a/workload/a.txt\n+++ b/workload/a.txt\n@@ -1,3 +1,3 @@\n a\n\n-b\n+c\n"
    assert applied(Patch(text=text), tree=tree)["workload/a.txt"] == b"a\n\nc\n"


def test_lines_are_split_as_git_splits_them():
    tree = {**TREE, "workload/model.py": b"S = 'a\x0cb'\nDEPTH = 2\n"}
    text = CHANGE.replace(" WIDTH = 64", " S = 'a\x0cb'")
    assert "U+000C" in refused(Patch(text=text), tree=tree)


# --- diff ---------------------------------------------------------------------------------------------------

line = st.sampled_from(
    ["a", "b", "c", "", " ", "-", "+", "--- a/x", "+++ b/x", "@@ -1 +1 @@", "\\ x", "-- ", "é", "\t"]
)
text = st.builds(
    lambda lines, end: ("\n".join(lines) + end).encode(), st.lists(line, max_size=30), st.sampled_from(["", "\n"])
)
paths = st.sampled_from(["workload/a.txt", "workload/b.txt", "workload/c/d.txt"])
trees = st.dictionaries(paths, text, max_size=3).map(
    lambda extra: {"workload/model.py": b"", "workload/train.py": b"x = 1\n", **extra}
)


@settings(max_examples=400, deadline=None)
@given(trees, trees)
def test_applying_a_diff_gives_the_other_tree_byte_for_byte(before, after):
    difference = edits.diff(before, after)
    assert (difference == "") == (before == after)
    if before != after:
        assert edits.apply(before, [Patch(text=difference)]) == after


@settings(max_examples=60, deadline=None)
@given(before=trees, after=trees)
def test_git_apply_agrees_with_us(before, after, tmp_path_factory):
    if before == after:
        return
    folder = tmp_path_factory.mktemp("tree")
    write(folder, before)
    difference = edits.diff(before, after)
    done = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"], input=difference.encode(), cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    assert read(folder) == after == edits.apply(before, [Patch(text=difference)])


@settings(max_examples=60, deadline=None)
@given(before=trees, after=trees, context=st.integers(0, 4))
def test_a_diff_of_git_is_applied_as_git_applies_it(before, after, context, tmp_path_factory):
    if before == after:
        return
    folder = tmp_path_factory.mktemp("trees")
    write(folder / "a", before)
    write(folder / "b", after)
    made = subprocess.run(
        ["git", "diff", "--no-index", "--no-renames", f"-U{context}", "a", "b"], cwd=folder, capture_output=True
    )
    # With --no-index the names are a/a/… and b/b/…; as in a repository they are a/… and b/….
    difference = made.stdout.decode()
    for side in "ab":
        difference = difference.replace(f"{side}/{side}/workload", f"{side}/workload")
    difference = difference.replace(" a/b/workload", " a/workload").replace(" b/a/workload", " b/workload")
    assert edits.apply(before, [Patch(text=difference)]) == after


def write(folder, files):
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_diff_is_stable_and_reads_like_gits():
    after = {
        **TREE,
        "workload/train.py": TRAIN.replace(b"step_9 = 9\n", b"step_9 = 10\n"),
        "workload/extra.py": b"x = 1\n",
    }
    del after["workload/notes.txt"]
    assert (
        edits.diff(TREE, after)
        == edits.diff(dict(reversed(TREE.items())), dict(reversed(after.items())))
        == (
            "diff --git a/workload/extra.py b/workload/extra.py\nnew file mode 100644\n"
            "--- /dev/null\n+++ b/workload/extra.py\n@@ -0,0 +1 @@\n+x = 1\n"
            "diff --git a/workload/notes.txt b/workload/notes.txt\ndeleted file mode 100644\n"
            "--- a/workload/notes.txt\n+++ /dev/null\n@@ -1 +0,0 @@\n-no line end\n\\ No newline at end of file\n"
            "diff --git a/workload/train.py b/workload/train.py\n"
            "--- a/workload/train.py\n+++ b/workload/train.py\n"
            "@@ -6,7 +6,7 @@\n step_6 = 6\n step_7 = 7\n step_8 = 8\n-step_9 = 9\n+step_9 = 10\n"
            " step_10 = 10\n step_11 = 11\n step_12 = 12\n"
        )
    )


def test_a_diff_of_crafted_text_takes_no_time_and_still_applies():
    cycle = "".join(f"{i % 150}\n" for i in range(30_000)).encode()
    other = "".join(f"{i * 7 % 150}\n" for i in range(30_000)).encode()
    before, after = {**TREE, "workload/a.txt": cycle}, {**TREE, "workload/a.txt": other}
    begin = time.monotonic()
    difference = edits.diff(before, after)
    assert edits.apply(before, [Patch(text=difference)]) == after
    assert time.monotonic() - begin < 3


def test_what_is_accepted_can_be_rebuilt_from_its_diff():
    """The ledger keeps the diff alone; a change whose diff would be refused later must be refused now."""
    lines = "x\n" * (edits.MAX_FILE_BYTES // 2)
    whole = [Write(path=f"workload/{name}.txt", content=lines) for name in "abc"]
    assert "as a diff" in refused(*whole)
    result = applied(*whole[:2])
    assert edits.apply(TREE, [Patch(text=edits.diff(TREE, result))]) == result
    # A tree that nobody checked: its line ends would come back in the diff.
    assert "carriage return" in refused(
        Write(path="workload/a.txt", content="a\n"), tree={**TREE, "workload/a.txt": b"a\r\n"}
    )


def test_a_binary_file_is_only_named_in_a_diff():
    assert "Binary files /dev/null and b/workload/w differ" in edits.diff(
        TREE, {**TREE, "workload/w": b"\xff\xfe"}
    )


def test_an_ordinary_tree_passes():
    assert edits.check_tree(TREE) is None
