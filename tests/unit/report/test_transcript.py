"""Transcripts: all is there, folded with a count, and nothing that a model writes reaches the terminal raw."""

from __future__ import annotations

import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.report.transcript import BAR, transcript


def exchange(**parts):
    return {
        "thinking": "",
        "text": "",
        "stop": "calls",
        "calls": [],
        "results": [],
        "words": "",
        "usage": None,
        **parts,
    }


def conversation(*exchanges, **parts):
    opening = {"system": "rules", "material": "code", "task": "propose"}
    return {"model": "m", "opening": opening, "exchanges": list(exchanges), "outcome": "submitted", **parts}


def call(**given):
    return exchange(calls=[{"name": "str_replace_based_edit_tool", "input": given}])


def test_a_conversation_reads_from_top_to_bottom():
    first = exchange(
        thinking="perhaps deeper",
        text="I look.",
        calls=[
            {"name": "e", "input": {"command": "view", "path": "workload/model.py", "view_range": [1, 9]}},
            {"name": "history", "input": {"number": 3}},
        ],
        results=[{"text": "     1\tDEPTH = 2", "is_error": False}, {"text": "there is none", "is_error": True}],
        usage={
            "model": "m", "input_tokens": 1200, "output_tokens": 300, "cache_read_tokens": 90_000,
            "cache_write_tokens": 0, "cost_usd": 0.0123,
        },
    )  # fmt: skip
    second = exchange(text="No idea.", stop="said", words="Call the tool.")
    assert transcript(conversation(first, second)).split("\n") == [
        "conversation with m, turns: 2",
        "system:",
        "  │ rules",
        "material:",
        "  │ code",
        "task:",
        "  │ propose",
        "",
        "turn 1, calls, 1.20 k input, 90.0 k cached, 300 output, $0.0123",
        "thinking:",
        "  │ perhaps deeper",
        "says:",
        "  │ I look.",
        "call: view workload/model.py lines [1, 9]",
        "result:",
        "  │      1  DEPTH = 2",
        "call: history",
        "  │ number: 3",
        "refused:",
        "  │ there is none",
        "",
        "turn 2, said",
        "says:",
        "  │ No idea.",
        "reply:",
        "  │ Call the tool.",
        "",
        "outcome: submitted",
    ]


def test_a_replacement_is_a_small_diff():
    before = "a\nb\nc\nDEPTH = 2\nd\ne\nf"
    made = transcript(
        conversation(
            call(command="str_replace", path="p", old_str=before, new_str=before.replace("2", "3\nX = 1"))
        )
    )
    assert made.split("\n")[-10:-2] == [
        "call: str_replace p",
        *(f"{BAR}{line}" for line in (" b", " c", "-DEPTH = 2", "+DEPTH = 3", "+X = 1", " d", " e")),
    ]


def test_a_change_of_blank_lines_alone_is_shown():
    made = transcript(conversation(call(command="str_replace", path="p", old_str="\n\n", new_str="    \n")))
    assert f"{BAR}-\n{BAR}-\n{BAR}+" in made


@pytest.mark.parametrize("number", [10**400, float("nan"), float("inf"), -1, True])
def test_impossible_numbers_are_left_out(number):
    usage = {"input_tokens": number, "cost_usd": number}
    assert "turn 1, calls\n" in transcript(conversation(exchange(usage=usage)))


@pytest.mark.parametrize("name", ["insert_text", "new_str"])
def test_an_insertion_and_a_new_file_are_added_lines(name):
    made = transcript(conversation(call(command="insert", path="p", insert_line=7, **{name: "x\ny\n"})))
    assert f"call: insert p after line 7\n{BAR}+x\n{BAR}+y" in made
    assert f"call: create q\n{BAR}+z" in transcript(
        conversation(call(command="create", path="q", file_text="z\n"))
    )


def test_long_parts_are_folded_with_a_count_and_shown_whole_when_asked():
    text = "\n".join(f"line {number}" for number in range(1, 501)) + "\n" + "x" * 9000 + "end"
    said = conversation(exchange(text=text))
    short = transcript(said)
    assert "line 40" in short and "line 41" not in short and "  … 461 more lines" in short
    assert len(short) < 2000
    whole = transcript(said, full=True)
    assert "line 500" in whole and "more lines" not in whole and whole.count("x") > 9000 - 1 and "end" in whole
    wide = transcript(conversation(exchange(text="y" * 1000)))
    assert "… 840 more characters" in wide


HOSTILE = [
    "\x1b[2J\x1b[1;1Hturn 9, said",
    "\x1b]0;title\x07",
    "\x9b31m",
    "kept\rhidden",
    "\u202egnirts",
    "\0\x08\x7f",
    "\ud800",
    "a\u2028b\x0bc\x0cd\x85e",
    "\u200b" * 50,
]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("bad", HOSTILE)
def test_nothing_of_a_model_reaches_the_terminal_raw_or_passes_for_a_heading(bad, full):
    everywhere = exchange(
        thinking=bad, text=bad, stop=bad, words=bad,
        calls=[
            {"name": bad, "input": {bad: bad}},
            {"name": "e", "input": {"command": "create", "path": bad, "file_text": bad}},
        ],
        results=[{"text": bad, "is_error": False}], usage={"model": bad, "input_tokens": bad},
    )  # fmt: skip
    made = transcript(
        conversation(
            everywhere, model=bad, outcome=bad, opening=dict.fromkeys(("system", "material", "task"), bad)
        ),
        full=full,
    )
    assert not any(unicodedata.category(char)[0] == "C" for char in made if char != "\n")
    made.encode()
    ours = ("conversation", "system:", "material:", "task:", "turn 1", "thinking:", "says:", "call:", "result:")
    for line in made.split("\n"):
        assert line == "" or line.startswith((*ours, BAR.rstrip(), "reply:", "outcome:", "  … "))


def test_a_carriage_return_hides_nothing():
    assert "kept" in transcript(conversation(exchange(text="kept\rhidden")))


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(), max_size=20)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                [
                    "model",
                    "opening",
                    "exchanges",
                    "calls",
                    "results",
                    "input",
                    "name",
                    "text",
                    "command",
                    "path",
                    "usage",
                    "cost_usd",
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(JSON, st.booleans())
def test_any_json_can_be_shown(value, full):
    for shown in (value, conversation(exchange(calls=value, results=value, usage=value))):
        made = transcript(shown, full=full)
        assert not any(unicodedata.category(char)[0] == "C" for char in made if char != "\n")


@pytest.mark.parametrize("text", ["\x1b]" * 1_000_000, "a\n" * 1_000_000, "\u0301" * 1_000_000, "x\r" * 1_000_000])
def test_megabytes_take_no_time(text):
    start = time.process_time()
    transcript(
        conversation(exchange(thinking=text), call(command="str_replace", path="p", old_str=text, new_str=text))
    )
    assert time.process_time() - start < 3
