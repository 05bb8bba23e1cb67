"""Patches and diffs: parsed strictly, applied exactly, and written so that git and we agree."""

from __future__ import annotations

import subprocess
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import edits
from runner.records import Patch, Write
from tests.support.edited_tree import CHANGE, TRAIN, TREE, applied, new_file, refused
from tests.support.replicates import replicates

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
        (CHANGE.replace("DEPTH = 3", "DEPTH = 3 # \ufffd"), "its source was not UTF-8 text"),
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
        (CHANGE.replace("@@ -1,2 +1,2 @@", "@@ -1,2 +2,2 @@"), "end up elsewhere"),
        (CHANGE.replace(" WIDTH = 64", " WIDTH = 65"), "does not apply: line 1"),
        (CHANGE.replace(" WIDTH = 64", " WIDTH  = 64"), "does not apply"),
        (CHANGE.replace("-DEPTH = 2", "-DEPTH = 2\n\\ No newline at end of file"), "does not apply: line 2"),
        (CHANGE.replace("-DEPTH = 2\n+DEPTH = 3", " DEPTH = 2"), "changes nothing"),
        (CHANGE.replace("-DEPTH", "*DEPTH"), "begins with"),
        (
            CHANGE.replace(" WIDTH = 64\n", " WIDTH = 64\n\\ No newline at end of file\n"),
            "without a line ending",
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
            "without a line ending in the middle",
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


@given(trees, trees)
def test_applying_a_diff_gives_the_other_tree_byte_for_byte(before, after):
    difference = edits.diff(before, after)
    assert (difference == "") == (before == after)
    if before != after:
        assert edits.apply(before, [Patch(text=difference)]) == after


@settings(max_examples=replicates(60))
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


@settings(max_examples=replicates(60))
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


def test_an_accepted_change_can_be_rebuilt_from_its_diff():
    """The ledger keeps only the diff; a change whose diff would be refused later must be refused now."""
    lines = "x\n" * (edits.MAX_FILE_BYTES // 2)
    whole = [Write(path=f"workload/{name}.txt", content=lines) for name in "abc"]
    assert "as a diff" in refused(*whole)
    result = applied(*whole[:2])
    assert edits.apply(TREE, [Patch(text=edits.diff(TREE, result))]) == result
    # An unchecked tree: its line endings would come back in the diff.
    assert "carriage return" in refused(
        Write(path="workload/a.txt", content="a\n"), tree={**TREE, "workload/a.txt": b"a\r\n"}
    )


def test_a_binary_file_is_only_named_in_a_diff():
    assert "Binary files /dev/null and b/workload/w differ" in edits.diff(
        TREE, {**TREE, "workload/w": b"\xff\xfe"}
    )


def test_an_ordinary_tree_passes():
    assert edits.check_tree(TREE) is None
