"""The limits of the scratch copy: paths, hidden text, sizes, and any JSON. It never raises."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import edits
from runner.edits import MAX_FILE_BYTES, MAX_FILES, Refusal
from runner.proposers.researcher.editor_tool import ScratchCopy
from runner.records import Write
from tests.support.editing import FILES, MODEL, NOTES, TRAIN, did, refused

# --- the jail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [MODEL, f"./{MODEL}", f"/{MODEL}", f"/home/me/repo/{MODEL}", "workload//./model.py", "/./workload/model.py"],
)
def test_a_file_has_one_name_however_it_is_called(path):
    scratch = ScratchCopy(FILES)
    did(scratch, command="create", path=path, file_text="x = 1\n")
    assert sorted(scratch.files) == sorted(FILES)


@pytest.mark.parametrize(
    "path",
    [
        None,
        5,
        ["workload/model.py"],
        "",
        ".",
        "/",
        "model.py",
        "/etc/passwd",
        "runner/config.py",
        "workload/../runner/config.py",
        "/../workload/model.py",
        "/workload/../workload/model.py",
        "..",
        "workload\\model.py",
        "/a\\b/workload/model.py",
        "workload/a\0.py",
        "/a\0/workload/model.py",
        "workload/a\n.py",
        "workload/\u202egnirts.py",
        "workload/\ud800.py",
        "workload/.git/config",
        "workload/.hidden.py",
        ".git/config",
        "Workload/model.py",
        "workload/-x.py",
        "workload/mоdel.py",
        "workload/kernel.so",
        "/" + "x/" * 100_000 + "workload/model.py",
        "workload/" + "d/" * 9 + "x.py",
    ],
)
def test_any_other_path_is_refused_with_the_allowed_ones(path):
    scratch = ScratchCopy(FILES)
    for call in (
        {"command": "view"},
        {"command": "create", "file_text": "x = 1\n"},
        {"command": "insert", "insert_line": 0, "insert_text": "x"},
        {"command": "str_replace", "old_str": "x", "new_str": "y"},
    ):
        assert "only files below workload/" in refused(scratch, path=path, **call)
    assert isinstance(scratch.delete(path), Refusal)


def test_case_twins_are_refused():
    scratch = ScratchCopy(FILES)
    assert "case only" in refused(scratch, command="create", path="workload/Model.py", file_text="x = 1\n")
    assert "case only" in refused(scratch, command="create", path="workload/Notes/a.txt", file_text="x")
    assert f"did you mean {MODEL}?" in refused(scratch, command="view", path="workload/MODEL.py")
    assert "file and a folder" in refused(scratch, command="create", path=f"{MODEL}/x.py", file_text="x")


# --- text and limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["\r", "\0", "\x1b[2J", "\u202e", "\u200b", "\ufeff", "\ufffd", "\ud800", "\u2028"]
)
def test_hidden_text_is_refused_at_once_with_the_reason_of_edits(bad):
    scratch = ScratchCopy(FILES)
    text = f"a = 1\n# {bad}\n"
    reason = refused(scratch, command="create", path=MODEL, file_text=text)
    if bad != "\ud800":
        expected = edits.apply(FILES, [Write(path=MODEL, content=text)])
        assert reason == expected.reason
    assert "line 3 holds" in refused(scratch, command="insert", path=MODEL, insert_line=1, insert_text=f"\n{bad}")
    assert "line 2 holds" in refused(scratch, command="str_replace", path=MODEL, old_str="DEPTH", new_str=bad)


def test_limits_are_those_of_edits():
    scratch = ScratchCopy(FILES)
    assert "at most" in refused(scratch, command="create", path=NOTES, file_text="x" * (MAX_FILE_BYTES + 1))
    assert "at most" in refused(scratch, command="create", path=NOTES, file_text="ä" * MAX_FILE_BYTES)
    did(scratch, command="create", path=NOTES, file_text="x" * MAX_FILE_BYTES)
    assert "at most" in refused(scratch, command="insert", path=NOTES, insert_line=0, insert_text="x")
    for number in range(MAX_FILES - len(FILES)):
        did(scratch, command="create", path=f"workload/f{number}.txt", file_text="")
    assert "200 are allowed" in refused(scratch, command="create", path="workload/one_more.txt", file_text="")
    for number in range(7):
        reply = scratch.edit(
            {"command": "create", "path": f"workload/f{number}.txt", "file_text": "x" * MAX_FILE_BYTES}
        )
    assert isinstance(reply, Refusal) and "the tree would have" in reply.reason


def test_python_that_does_not_parse_is_reported_and_allowed_until_it_is_submitted():
    scratch = ScratchCopy(FILES)
    reply = did(scratch, command="str_replace", path=MODEL, old_str="DEPTH = 2", new_str="DEPTH = (2")
    problem = edits.apply(FILES, scratch.changes())
    assert isinstance(problem, Refusal) and problem.reason in reply
    assert "refused" not in did(scratch, command="str_replace", path=MODEL, old_str="(2", new_str="(2)")


@pytest.mark.parametrize(
    "old", ["a" * 100_000, "\n" * 100_000 + "x", ("a\n" * 100_000) + "b", " " * 200_000, "a\n"]
)
@pytest.mark.parametrize("data", ["a" * 250_000, "\n" * 250_000, "a\n" * 125_000, " \n" * 125_000])
def test_crafted_text_takes_no_time(old, data):
    scratch = ScratchCopy({**FILES, NOTES: data.encode()})
    start = time.process_time()
    scratch.edit({"command": "str_replace", "path": NOTES, "old_str": old, "new_str": "b"})
    scratch.edit({"command": "view", "path": NOTES})
    assert time.process_time() - start < 2


# --- properties ---------------------------------------------------------------------------------------------

PATHS = st.sampled_from(
    [MODEL, TRAIN, NOTES, "/x/workload/new.py", "workload/a/b.txt", "workload/a", "workload/Model.py"]
)
TEXTS = st.one_of(
    st.sampled_from(["", "x = 1\n", "x = (", "DEPTH = 2", "WIDTH", "step_40 = 40\n", "a\nb", "\n", "ü"]),
    st.text("ab=1\n", max_size=6),
)
CALLS = st.one_of(
    st.builds(lambda p, t: {"command": "create", "path": p, "file_text": t}, PATHS, TEXTS),
    st.builds(
        lambda p, o, n: {"command": "str_replace", "path": p, "old_str": o, "new_str": n}, PATHS, TEXTS, TEXTS
    ),
    st.builds(
        lambda p, n, t: {"command": "insert", "path": p, "insert_line": n, "insert_text": t},
        PATHS,
        st.integers(-1, 4),
        TEXTS,
    ),
    PATHS,  # to be deleted
)


@given(st.lists(CALLS, max_size=12))
def test_the_changes_make_the_scratch_copy_of_the_original(calls):
    scratch = ScratchCopy(FILES)
    for call in calls:
        scratch.delete(call) if isinstance(call, str) else scratch.edit(call)
    made = scratch.changes()
    result = edits.apply(FILES, made)
    if scratch.files == FILES:
        assert made == ()
    elif edits.check_tree(scratch.files) is None:
        assert result == scratch.files
    else:  # Python that does not parse: nothing else may be left to find
        assert isinstance(result, Refusal) and ".py" in result.reason


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=9), PATHS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)


@given(
    st.one_of(
        JSON,
        st.fixed_dictionaries(
            {
                "command": st.sampled_from(["view", "create", "str_replace", "insert"]),
                "path": st.one_of(PATHS, JSON),
            },
            optional={
                name: st.one_of(TEXTS, JSON, st.integers(-1, 3))
                for name in ("view_range", "old_str", "new_str", "file_text", "insert_line", "insert_text")
            },
        ),
    )
)
def test_no_json_makes_it_raise(submitted):
    scratch = ScratchCopy(FILES)
    reply = scratch.edit(submitted)
    scratch.delete(submitted)
    assert isinstance(reply, str | Refusal)
    assert isinstance(reply, str) or reply.reason.isprintable()
