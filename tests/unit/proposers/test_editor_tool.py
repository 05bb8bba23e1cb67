"""The scratch copy: it does what the editor's reference says, holds to the rules of edits, never raises."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import edits
from runner.edits import MAX_FILE_BYTES, MAX_FILES, Refusal
from runner.proposers.researcher.editor_tool import EDITOR, MAX_VIEW_CHARACTERS, Workbench
from runner.records import Delete, Write

MODEL = "workload/model.py"
TRAIN = "workload/train.py"
NOTES = "workload/notes/plan.txt"
FILES = {
    MODEL: b"WIDTH = 64\nDEPTH = 2\n",
    TRAIN: "".join(f"step_{number} = {number}\n" for number in range(1, 41)).encode(),
    NOTES: b"no line end",
}


def did(bench, **call):
    reply = bench.edit(call)
    assert isinstance(reply, str), reply
    return reply


def refused(bench, **call):
    before = dict(bench.files)
    reply = bench.edit(call)
    assert isinstance(reply, Refusal), reply
    assert bench.files == before
    assert reply.reason.isprintable() and len(reply.reason) < 500
    return reply.reason


def view(bench, path, **more):
    return did(bench, command="view", path=path, **more)


# --- the tool -----------------------------------------------------------------------------------------------


def test_the_editor_is_the_built_in_one_with_a_schema_for_servers_that_do_not_know_it():
    assert (EDITOR.builtin, EDITOR.name) == ("text_editor_20250728", "str_replace_based_edit_tool")
    assert EDITOR.max_characters == MAX_VIEW_CHARACTERS
    schema = json.loads(json.dumps(EDITOR.schema))
    assert EDITOR.strict and schema["additionalProperties"] is False
    assert sorted(schema["required"]) == sorted(schema["properties"])


@pytest.mark.parametrize("submitted", [None, 5, "view", [], {}, {"command": "undo_edit", "path": MODEL}])
def test_what_is_no_call_of_the_editor_is_refused(submitted):
    assert isinstance(Workbench(FILES).edit(submitted), Refusal)


@pytest.mark.parametrize(
    "unused",
    [{}, {"view_range": [], "old_str": "", "new_str": "", "file_text": "", "insert_line": 0, "insert_text": ""}],
)
def test_fields_that_a_command_does_not_use_may_be_null_or_empty(unused):
    bench = Workbench(FILES)
    empty = {**dict.fromkeys(EDITOR.schema["properties"]), **unused}
    assert "WIDTH" in did(bench, **{**empty, "command": "view", "path": MODEL})
    did(bench, **{**empty, "command": "insert", "path": MODEL, "insert_line": 0, "insert_text": "A = 1"})
    did(bench, **{**empty, "command": "str_replace", "path": MODEL, "old_str": "A = 1\n"})
    assert bench.files == FILES


# --- view ---------------------------------------------------------------------------------------------------


def test_a_file_is_shown_with_line_numbers():
    assert view(Workbench(FILES), MODEL) == "     1\tWIDTH = 64\n     2\tDEPTH = 2"


@pytest.mark.parametrize(
    ("view_range", "numbers"), [([3, 4], (3, 4)), ([39, -1], (39, 40)), ([40, 99], (40, 40)), ([], (1, 40))]
)
def test_a_range_of_lines_is_shown(view_range, numbers):
    lines = view(Workbench(FILES), TRAIN, view_range=view_range).split("\n")
    assert (lines[0].strip().split("\t")[0], lines[-1].strip().split("\t")[0]) == tuple(map(str, numbers))


@pytest.mark.parametrize(
    "view_range", [[0, 3], [41, -1], [5, 4], [1], [1, 2, 3], ["1", "2"], [True, 2], "1-2", [1, -2]]
)
def test_a_range_that_is_none_is_refused_with_what_is_allowed(view_range):
    assert "view_range must" in refused(Workbench(FILES), command="view", path=TRAIN, view_range=view_range)


@pytest.mark.parametrize("path", ["workload", "workload/", "/repo/workload", "./workload"])
def test_a_folder_lists_what_is_below_it(path):
    listed = view(Workbench(FILES), path).split("\n")
    assert [line.split()[0] for line in listed] == sorted(FILES)
    assert view(Workbench(FILES), f"{path}/notes") == f"{NOTES}  11 bytes"


def test_views_are_bounded_and_say_what_is_left_out():
    bench = Workbench(
        {**FILES, "workload/long.txt": b"x" * 80 + b"\n" + b"y" * 200_000, "workload/many.txt": b"a\n" * 90_000}
    )
    long = view(bench, "workload/long.txt")
    assert "[198,000 more characters]" in long and "no newline" in long
    many = view(bench, "workload/many.txt")
    assert many.split("\n")[-1].startswith("[lines ") and "to 90000 are left out" in many
    left = int(many.split("\n")[-1].split()[1])
    assert view(bench, "workload/many.txt", view_range=[left, left]) == f"{left:6d}\ta"
    assert all(len(text) < MAX_VIEW_CHARACTERS + 500 for text in (long, many))


def test_odd_files_of_the_original_can_be_seen_and_written_anew():
    odd = {
        **FILES,
        "workload/dos.py": b"a = 1\r\nb = 2\r\n",
        "workload/bin.txt": b"\xff\xfe",
        "workload/empty.py": b"",
    }
    bench = Workbench(odd)
    assert "carriage return" in view(bench, "workload/dos.py")
    assert "binary" in view(bench, "workload/bin.txt")
    assert view(bench, "workload/empty.py") == "workload/empty.py is empty."
    assert "other white space it occurs at line 1" in refused(
        bench, command="str_replace", path="workload/dos.py", old_str="a = 1\nb = 2\n", new_str=""
    )
    assert "written anew" in refused(
        bench, command="str_replace", path="workload/bin.txt", old_str="a", new_str="b"
    )
    assert "written anew" in refused(
        bench, command="insert", path="workload/bin.txt", insert_line=0, insert_text="b"
    )
    did(bench, command="create", path="workload/dos.py", file_text="a = 1\n")
    did(bench, command="insert", path="workload/empty.py", insert_line=0, insert_text="x = 1")
    bench.delete("workload/bin.txt")
    assert edits.check_tree(bench.files) is None
    assert bench.files["workload/empty.py"] == b"x = 1\n"
    assert [edit.path for edit in bench.changes()] == sorted(set(odd) - set(FILES))


# --- str_replace --------------------------------------------------------------------------------------------


def test_the_only_occurrence_is_replaced_and_its_neighbourhood_shown():
    bench = Workbench(FILES)
    reply = did(bench, command="str_replace", path=TRAIN, old_str="step_20 = 20", new_str="step_20 = 21\nmore = 1")
    assert reply.split("\n")[1:] == [
        *(f"    {n}\tstep_{n} = {n}" for n in range(16, 20)),
        "    20\tstep_20 = 21",
        "    21\tmore = 1",
        *(f"    {n + 1}\tstep_{n} = {n}" for n in range(21, 25)),
    ]
    assert bench.changes() == (Write(path=TRAIN, content=bench.files[TRAIN].decode()),)


def test_a_replacement_without_a_successor_removes_the_text():
    bench = Workbench(FILES)
    did(bench, command="str_replace", path=MODEL, old_str="DEPTH = 2\n")
    assert bench.files[MODEL] == b"WIDTH = 64\n"


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("step_1", "at lines 1, 10, 11, 12, 13, 14, 15, 16, 17, 18 and more"),
        ("= 1", "at lines 1, 10, 11,"),
        ("  step_7 = 7", "With other white space it occurs at line 7:"),
        ("step_7 =  7\nstep_8 = 8", "does not occur"),
        ("step_7 = 7\nstep_9 = 9", "Its first line occurs at line 7,"),
        ("nothing like it", "without line numbers"),
        (" \n ", "does not occur"),
        ("", "empty"),
        ("\ud800", "does not occur"),
    ],
)
def test_a_text_that_does_not_occur_once_is_refused_with_where_to_look(old, words):
    assert words in refused(Workbench(FILES), command="str_replace", path=TRAIN, old_str=old, new_str="x")


def test_overlapping_occurrences_are_ambiguous():
    bench = Workbench({**FILES, NOTES: b"aaa"})
    assert "at lines 1, 1" in refused(bench, command="str_replace", path=NOTES, old_str="aa", new_str="b")


# --- create, insert, delete ---------------------------------------------------------------------------------


def test_a_file_is_created_and_written_over_and_both_are_said():
    bench = Workbench(FILES)
    assert "is created (lines: 1, bytes: 6)" in did(
        bench, command="create", path="workload/a/b.py", file_text="x = 1\n"
    )
    assert "existed" in did(bench, command="create", path="workload/a/b.py", file_text="")
    assert bench.files["workload/a/b.py"] == b""
    assert "nothing would change" in refused(bench, command="create", path="workload/a/b.py", file_text="")
    assert "folder" in refused(bench, command="create", path="workload/a", file_text="x")
    assert "file_text must be text" in refused(bench, command="create", path=MODEL)
    assert "insert_text must be text" in refused(bench, command="insert", path=MODEL, insert_line=0)
    assert "is empty" in refused(bench, command="insert", path=MODEL, insert_line=0, insert_text="")


@pytest.mark.parametrize(
    ("path", "after", "text", "result"),
    [
        (MODEL, 0, "A = 1\n", b"A = 1\nWIDTH = 64\nDEPTH = 2\n"),
        (MODEL, 1, "A = 1", b"WIDTH = 64\nA = 1\nDEPTH = 2\n"),
        (MODEL, 2, "\n\nA = 1\n", b"WIDTH = 64\nDEPTH = 2\n\n\nA = 1\n"),
        (NOTES, 1, "more", b"no line end\nmore\n"),
        (NOTES, 0, "more", b"more\nno line end"),
    ],
)
@pytest.mark.parametrize("name", ["insert_text", "new_str"])
def test_text_is_inserted_as_whole_lines_after_a_line(path, after, text, result, name):
    bench = Workbench(FILES)
    did(bench, command="insert", path=path, insert_line=after, **{name: text})
    assert bench.files[path] == result


@pytest.mark.parametrize("after", [-1, 3, None, "1", 1.0, True, 10**99])
def test_a_line_that_is_not_there_is_refused(after):
    reason = refused(Workbench(FILES), command="insert", path=MODEL, insert_line=after, insert_text="x")
    assert "from 0 to 2" in reason


def test_a_file_is_deleted_unless_the_contract_needs_it():
    bench = Workbench(FILES)
    assert bench.delete(f"/repo/{NOTES}") is None
    assert NOTES not in bench.files
    assert bench.changes() == (Delete(path=NOTES),)
    for path in (MODEL, NOTES, "workload", "workload/../x", None, 5):
        assert isinstance(bench.delete(path), Refusal)


# --- the jail -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [MODEL, f"./{MODEL}", f"/{MODEL}", f"/home/me/repo/{MODEL}", "workload//./model.py", "/./workload/model.py"],
)
def test_a_file_has_one_name_however_it_is_called(path):
    bench = Workbench(FILES)
    did(bench, command="create", path=path, file_text="x = 1\n")
    assert sorted(bench.files) == sorted(FILES)


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
def test_any_other_path_is_refused_with_what_is_allowed(path):
    bench = Workbench(FILES)
    for call in (
        {"command": "view"},
        {"command": "create", "file_text": "x = 1\n"},
        {"command": "insert", "insert_line": 0, "insert_text": "x"},
        {"command": "str_replace", "old_str": "x", "new_str": "y"},
    ):
        assert "only files below workload/" in refused(bench, path=path, **call)
    assert isinstance(bench.delete(path), Refusal)


def test_case_twins_are_refused():
    bench = Workbench(FILES)
    assert "case only" in refused(bench, command="create", path="workload/Model.py", file_text="x = 1\n")
    assert "case only" in refused(bench, command="create", path="workload/Notes/a.txt", file_text="x")
    assert f"did you mean {MODEL}?" in refused(bench, command="view", path="workload/MODEL.py")
    assert "file and a folder" in refused(bench, command="create", path=f"{MODEL}/x.py", file_text="x")


# --- text and limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["\r", "\0", "\x1b[2J", "\u202e", "\u200b", "\ufeff", "\ufffd", "\ud800", "\u2028"]
)
def test_hidden_text_is_refused_at_once_with_the_reason_of_edits(bad):
    bench = Workbench(FILES)
    text = f"a = 1\n# {bad}\n"
    reason = refused(bench, command="create", path=MODEL, file_text=text)
    if bad != "\ud800":
        expected = edits.apply(FILES, [Write(path=MODEL, content=text)])
        assert reason == expected.reason
    assert "line 3 holds" in refused(bench, command="insert", path=MODEL, insert_line=1, insert_text=f"\n{bad}")
    assert "line 2 holds" in refused(bench, command="str_replace", path=MODEL, old_str="DEPTH", new_str=bad)


def test_limits_are_those_of_edits():
    bench = Workbench(FILES)
    assert "at most" in refused(bench, command="create", path=NOTES, file_text="x" * (MAX_FILE_BYTES + 1))
    assert "at most" in refused(bench, command="create", path=NOTES, file_text="ä" * MAX_FILE_BYTES)
    did(bench, command="create", path=NOTES, file_text="x" * MAX_FILE_BYTES)
    assert "at most" in refused(bench, command="insert", path=NOTES, insert_line=0, insert_text="x")
    for number in range(MAX_FILES - len(FILES)):
        did(bench, command="create", path=f"workload/f{number}.txt", file_text="")
    assert "200 are allowed" in refused(bench, command="create", path="workload/one_more.txt", file_text="")
    for number in range(7):
        reply = bench.edit(
            {"command": "create", "path": f"workload/f{number}.txt", "file_text": "x" * MAX_FILE_BYTES}
        )
    assert isinstance(reply, Refusal) and "the tree would have" in reply.reason


def test_python_that_does_not_parse_is_told_and_allowed_until_it_is_submitted():
    bench = Workbench(FILES)
    reply = did(bench, command="str_replace", path=MODEL, old_str="DEPTH = 2", new_str="DEPTH = (2")
    problem = edits.apply(FILES, bench.changes())
    assert isinstance(problem, Refusal) and problem.reason in reply
    assert "refused" not in did(bench, command="str_replace", path=MODEL, old_str="(2", new_str="(2)")


@pytest.mark.parametrize(
    "old", ["a" * 100_000, "\n" * 100_000 + "x", ("a\n" * 100_000) + "b", " " * 200_000, "a\n"]
)
@pytest.mark.parametrize("data", ["a" * 250_000, "\n" * 250_000, "a\n" * 125_000, " \n" * 125_000])
def test_crafted_text_takes_no_time(old, data):
    bench = Workbench({**FILES, NOTES: data.encode()})
    start = time.process_time()
    bench.edit({"command": "str_replace", "path": NOTES, "old_str": old, "new_str": "b"})
    bench.edit({"command": "view", "path": NOTES})
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
@settings(deadline=None, max_examples=300)
def test_the_changes_make_the_scratch_copy_of_the_original(calls):
    bench = Workbench(FILES)
    for call in calls:
        bench.delete(call) if isinstance(call, str) else bench.edit(call)
    made = bench.changes()
    result = edits.apply(FILES, made)
    if bench.files == FILES:
        assert made == ()
    elif edits.check_tree(bench.files) is None:
        assert result == bench.files
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
@settings(deadline=None, max_examples=500)
def test_no_json_makes_it_raise(submitted):
    bench = Workbench(FILES)
    reply = bench.edit(submitted)
    bench.delete(submitted)
    assert isinstance(reply, str | Refusal)
    assert isinstance(reply, str) or reply.reason.isprintable()
