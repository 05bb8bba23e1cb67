"""A small `workload/`, and edits of it that must be applied or refused."""

from __future__ import annotations

from runner import edits

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
