"""The scratch copy follows the reference of the editor."""

from __future__ import annotations

import json

import pytest

from runner import edits
from runner.edits import Refusal
from runner.proposers.researcher.editor_tool import EDITOR, MAX_VIEW_CHARACTERS, ScratchCopy
from runner.records import Delete, Write
from tests.support.editing import FILES, MODEL, NOTES, TRAIN, did, refused, view

# --- the tool -----------------------------------------------------------------------------------------------


def test_the_editor_is_the_built_in_one_with_a_schema_for_servers_that_do_not_know_it():
    assert (EDITOR.builtin, EDITOR.name) == ("text_editor_20250728", "str_replace_based_edit_tool")
    assert EDITOR.max_characters == MAX_VIEW_CHARACTERS
    schema = json.loads(json.dumps(EDITOR.schema))
    assert EDITOR.strict and schema["additionalProperties"] is False
    assert sorted(schema["required"]) == sorted(schema["properties"])


@pytest.mark.parametrize("submitted", [None, 5, "view", [], {}, {"command": "undo_edit", "path": MODEL}])
def test_a_malformed_call_is_refused(submitted):
    assert isinstance(ScratchCopy(FILES).edit(submitted), Refusal)


@pytest.mark.parametrize(
    "unused",
    [{}, {"view_range": [], "old_str": "", "new_str": "", "file_text": "", "insert_line": 0, "insert_text": ""}],
)
def test_unused_fields_may_be_null_or_empty(unused):
    scratch = ScratchCopy(FILES)
    empty = {**dict.fromkeys(EDITOR.schema["properties"]), **unused}
    assert "WIDTH" in did(scratch, **{**empty, "command": "view", "path": MODEL})
    did(scratch, **{**empty, "command": "insert", "path": MODEL, "insert_line": 0, "insert_text": "A = 1"})
    did(scratch, **{**empty, "command": "str_replace", "path": MODEL, "old_str": "A = 1\n"})
    assert scratch.files == FILES


# --- view ---------------------------------------------------------------------------------------------------


def test_a_file_is_shown_with_line_numbers():
    assert view(ScratchCopy(FILES), MODEL) == "     1\tWIDTH = 64\n     2\tDEPTH = 2"


@pytest.mark.parametrize(
    ("view_range", "numbers"), [([3, 4], (3, 4)), ([39, -1], (39, 40)), ([40, 99], (40, 40)), ([], (1, 40))]
)
def test_a_range_of_lines_is_shown(view_range, numbers):
    lines = view(ScratchCopy(FILES), TRAIN, view_range=view_range).split("\n")
    assert (lines[0].strip().split("\t")[0], lines[-1].strip().split("\t")[0]) == tuple(map(str, numbers))


@pytest.mark.parametrize(
    "view_range", [[0, 3], [41, -1], [5, 4], [1], [1, 2, 3], ["1", "2"], [True, 2], "1-2", [1, -2]]
)
def test_an_invalid_range_is_refused_with_the_allowed_lines(view_range):
    assert "view_range must" in refused(ScratchCopy(FILES), command="view", path=TRAIN, view_range=view_range)


@pytest.mark.parametrize("path", ["workload", "workload/", "/repo/workload", "./workload"])
def test_a_folder_lists_what_is_below_it(path):
    listed = view(ScratchCopy(FILES), path).split("\n")
    assert [line.split()[0] for line in listed] == sorted(FILES)
    assert view(ScratchCopy(FILES), f"{path}/notes") == f"{NOTES}  11 bytes"


def test_views_are_bounded_and_say_what_is_left_out():
    scratch = ScratchCopy(
        {**FILES, "workload/long.txt": b"x" * 80 + b"\n" + b"y" * 200_000, "workload/many.txt": b"a\n" * 90_000}
    )
    long = view(scratch, "workload/long.txt")
    assert "[198,000 more characters]" in long and "no newline" in long
    many = view(scratch, "workload/many.txt")
    assert many.split("\n")[-1].startswith("[lines ") and "to 90000 are left out" in many
    left = int(many.split("\n")[-1].split()[1])
    assert view(scratch, "workload/many.txt", view_range=[left, left]) == f"{left:6d}\ta"
    assert all(len(text) < MAX_VIEW_CHARACTERS + 500 for text in (long, many))


def test_odd_files_of_the_original_can_be_viewed_and_replaced():
    odd = {
        **FILES,
        "workload/dos.py": b"a = 1\r\nb = 2\r\n",
        "workload/bin.txt": b"\xff\xfe",
        "workload/empty.py": b"",
    }
    scratch = ScratchCopy(odd)
    assert "carriage return" in view(scratch, "workload/dos.py")
    assert "binary" in view(scratch, "workload/bin.txt")
    assert view(scratch, "workload/empty.py") == "workload/empty.py is empty."
    assert "different whitespace at line 1" in refused(
        scratch, command="str_replace", path="workload/dos.py", old_str="a = 1\nb = 2\n", new_str=""
    )
    assert "replaced with create" in refused(
        scratch, command="str_replace", path="workload/bin.txt", old_str="a", new_str="b"
    )
    assert "replaced with create" in refused(
        scratch, command="insert", path="workload/bin.txt", insert_line=0, insert_text="b"
    )
    did(scratch, command="create", path="workload/dos.py", file_text="a = 1\n")
    did(scratch, command="insert", path="workload/empty.py", insert_line=0, insert_text="x = 1")
    scratch.delete("workload/bin.txt")
    assert edits.check_tree(scratch.files) is None
    assert scratch.files["workload/empty.py"] == b"x = 1\n"
    assert [edit.path for edit in scratch.changes()] == sorted(set(odd) - set(FILES))


# --- str_replace --------------------------------------------------------------------------------------------


def test_the_only_occurrence_is_replaced_and_shown_with_the_lines_around_it():
    scratch = ScratchCopy(FILES)
    reply = did(
        scratch, command="str_replace", path=TRAIN, old_str="step_20 = 20", new_str="step_20 = 21\nmore = 1"
    )
    assert reply.split("\n")[1:] == [
        *(f"    {n}\tstep_{n} = {n}" for n in range(16, 20)),
        "    20\tstep_20 = 21",
        "    21\tmore = 1",
        *(f"    {n + 1}\tstep_{n} = {n}" for n in range(21, 25)),
    ]
    assert scratch.changes() == (Write(path=TRAIN, content=scratch.files[TRAIN].decode()),)


def test_a_replacement_without_new_text_removes_the_old():
    scratch = ScratchCopy(FILES)
    did(scratch, command="str_replace", path=MODEL, old_str="DEPTH = 2\n")
    assert scratch.files[MODEL] == b"WIDTH = 64\n"


@pytest.mark.parametrize(
    ("old", "words"),
    [
        ("step_1", "at lines 1, 10, 11, 12, 13, 14, 15, 16, 17, 18 and more"),
        ("= 1", "at lines 1, 10, 11,"),
        ("  step_7 = 7", "It occurs with different whitespace at line 7:"),
        ("step_7 =  7\nstep_8 = 8", "does not occur"),
        ("step_7 = 7\nstep_9 = 9", "Only its first line occurs, at line 7:"),
        ("nothing like it", "without the line numbers"),
        (" \n ", "does not occur"),
        ("", "empty"),
        ("\ud800", "does not occur"),
    ],
)
def test_a_text_that_does_not_occur_exactly_once_is_refused_with_a_hint(old, words):
    assert words in refused(ScratchCopy(FILES), command="str_replace", path=TRAIN, old_str=old, new_str="x")


def test_overlapping_occurrences_are_ambiguous():
    scratch = ScratchCopy({**FILES, NOTES: b"aaa"})
    assert "at lines 1, 1" in refused(scratch, command="str_replace", path=NOTES, old_str="aa", new_str="b")


# --- create, insert, delete ---------------------------------------------------------------------------------


def test_a_file_is_created_and_replaced_and_the_reply_says_which():
    scratch = ScratchCopy(FILES)
    assert "was created (lines: 1, bytes: 6)" in did(
        scratch, command="create", path="workload/a/b.py", file_text="x = 1\n"
    )
    assert "existed" in did(scratch, command="create", path="workload/a/b.py", file_text="")
    assert scratch.files["workload/a/b.py"] == b""
    assert "nothing would change" in refused(scratch, command="create", path="workload/a/b.py", file_text="")
    assert "folder" in refused(scratch, command="create", path="workload/a", file_text="x")
    assert "file_text must be a string" in refused(scratch, command="create", path=MODEL)
    assert "insert_text must be a string" in refused(scratch, command="insert", path=MODEL, insert_line=0)
    assert "is empty" in refused(scratch, command="insert", path=MODEL, insert_line=0, insert_text="")


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
    scratch = ScratchCopy(FILES)
    did(scratch, command="insert", path=path, insert_line=after, **{name: text})
    assert scratch.files[path] == result


@pytest.mark.parametrize("after", [-1, 3, None, "1", 1.0, True, 10**99])
def test_a_line_that_does_not_exist_is_refused(after):
    reason = refused(ScratchCopy(FILES), command="insert", path=MODEL, insert_line=after, insert_text="x")
    assert "from 0 to 2" in reason


def test_a_file_is_deleted_unless_the_contract_needs_it():
    scratch = ScratchCopy(FILES)
    assert scratch.delete(f"/repo/{NOTES}") is None
    assert NOTES not in scratch.files
    assert scratch.changes() == (Delete(path=NOTES),)
    for path in (MODEL, NOTES, "workload", "workload/../x", None, 5):
        assert isinstance(scratch.delete(path), Refusal)
