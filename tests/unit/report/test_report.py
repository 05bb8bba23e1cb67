"""Reports: hostile text stays text, absent scores stay absent, labels never overlap."""

from __future__ import annotations

import csv
import io
import itertools
import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console

from runner.errors import DiskFullError
from runner.records import AuditRecord, Experiment, Phase, RunEnd, RunRecord, SealedScore, Verdict
from runner.report.audits import audit_lines, sealed_line, sealed_tsv, strikes_line
from runner.report.explain import explain
from runner.report.labels import Box, Label, place
from runner.report.plot import progress_png
from runner.report.table import plain_lines, summary, table
from runner.report.tsv import COLUMNS, results_tsv
from runner.untrusted import REPLACEMENT, clean, cut, one_line, progress

HOSTILE = [
    '"never closed',
    "=HYPERLINK(\"http://evil\")",
    "@SUM(A1)",
    "-2+3",
    "tab\there\nand a line\r\nand another\u2028one",
    "[bold red]markup[/bold red] [/]",
    r"$\frac{1}{0$ $$",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07",
    "日本語 👩‍🔬 עברית \u202egnirts",
    "\ud800",
    "",
]  # fmt: skip


def experiment(number: int, verdict: str | None = "discard", bpb: float | None = 1.9, **more) -> Experiment:
    defaults = {"hypothesis": f"idea {number}", "proposer": "optuna", "sigma_bpb": 0.01}
    return Experiment(
        number=number,
        verdict=None if verdict is None else Verdict(verdict),
        val_bpb=bpb,
        **{**defaults, **more},
    )


def run(phase: Phase = Phase.TRAIN, end: RunEnd = RunEnd.DEADLINE, **more) -> RunRecord:
    defaults = {"seed": 1, "exit_code": None, "wall_seconds": 20.0, "cpu_seconds": 19.0}
    return RunRecord(phase=phase, end=end, **{**defaults, **more})


def night(num_experiments: int, seed: int = 0) -> list[Experiment]:
    chance = random.Random(seed)
    best, made = 2.05, [experiment(0, "keep", 2.05, hypothesis="baseline", kept_commit="0" * 40)]
    for number in range(1, num_experiments + 1):
        draw = chance.random()
        if draw < 0.1:
            made.append(experiment(number, "crash", None))
        elif draw < 0.3:
            best -= 0.03 * chance.random() + 0.02
            made.append(experiment(number, "keep", best, hypothesis=f"keep {number} " + "word " * 9))
        else:
            made.append(experiment(number, "discard", best + 0.1 * chance.random()))
    return made


# Text


def test_ordinary_text_is_left_alone():
    text = "step 120 loss 3.214\n  indented Größe → 日本語 ±1\n\nlast"
    assert clean(text) == text


def test_only_the_last_lines_stay():
    assert clean("a\nb\nc\n\n\n", max_lines=2) == "b\nc"
    assert clean("a\nb", max_lines=0) == ""


def test_a_long_line_keeps_its_beginning():
    assert clean("x" * 300, max_chars_per_line=10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("hostile", "seen"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[1;1Hgone", "gone"),
        ("\x9b31mred", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\sixel", "sixel"),
        ("\x1b(0box\x1bc", "box"),
        ("\x1b]0;never closed", f"{REPLACEMENT}]0;never closed"),
        ("loss 3.1\rloss 3.0\rloss 2.9", "loss 2.9"),
        ("windows\r\nline", "windows\nline"),
        ("nul\x00\x00\x01bell\x07", f"nul{REPLACEMENT}bell{REPLACEMENT}"),
        ("hid\x08\x08\x08den", f"hid{REPLACEMENT}den"),
        ("\u202etxet\u202c", f"{REPLACEMENT}txet{REPLACEMENT}"),
        ("zero\u200bwidth\ufeff", f"zero{REPLACEMENT}width{REPLACEMENT}"),
        ("tag\U000e0041\U000e0042s", f"tag{REPLACEMENT}s"),
        ("bytes\U0001f600\U000e0101\U000e0142\ufe01", "bytes\U0001f600"),
        ("a\u0301\u0301\u0301\u0301\u0301b", "a\u0301\u0301b"),
        ("line\u2028separator", f"line{REPLACEMENT}separator"),
        ("\ud800surrogate", f"{REPLACEMENT}surrogate"),
        ("a\tb", "a   b"),
        ("fill\u3164er\u115f\u1160s\uffa0", f"fill{REPLACEMENT}er{REPLACEMENT}s{REPLACEMENT}"),
        ("join\u034fer \u2800blank", f"join{REPLACEMENT}er {REPLACEMENT}blank"),
    ],
)
def test_what_could_deceive_a_reader_is_neutralised(hostile, seen):
    assert clean(hostile) == seen


# Default_Ignorable_Code_Point of Unicode 15.1, and the blank of Braille: nothing of it is seen.
_IGNORABLE = (
    *(
        "\u00ad",
        "\u034f",
        "\u061c",
        "\u115f",
        "\u1160",
        "\u17b4",
        "\u17b5",
        "\u2800",
        "\u3164",
        "\ufeff",
        "\uffa0",
    ),
    *map(chr, [*range(0x180B, 0x1810), *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)]),
    *map(chr, [*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0x1BCA0, 0x1BCA4)]),
    *map(chr, [*range(0x1D173, 0x1D17B), *range(0xE0000, 0xE1000)]),
)


def test_no_character_that_shows_nothing_is_left():
    assert set(clean("\n".join(f"a{char}b" for char in _IGNORABLE), len(_IGNORABLE)).split("\n")) == {
        f"a{REPLACEMENT}b",
        "ab",
    }


@given(st.text(st.characters(), max_size=400))
@settings(deadline=None, max_examples=300)
def test_cleaned_text_is_bounded_visible_and_stable(text):
    cleaned = clean(text, max_lines=5, max_chars_per_line=40)
    lines = cleaned.split("\n")
    assert len(lines) <= 5
    assert all(len(line) <= 40 for line in lines)
    assert not any(unicodedata.category(char)[0] == "C" for char in cleaned if char != "\n")
    assert clean(cleaned, 5, 40) == cleaned
    assert "\n" not in one_line(text, 30)
    assert len(one_line(text, 30)) <= 30
    cleaned.encode()


@pytest.mark.parametrize(
    "unit", ["\x1b]", "\x90", "\x1b[", "\x9b", "\x1b[0", "\x1b ", "a\r", "\x00", "\u0301", "\n"]
)
def test_megabytes_of_hostile_text_take_no_time(unit):
    start = time.process_time()
    clean(unit * 2_000_000)
    one_line(unit * 2_000_000)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("line", "figures"),
    [
        ("step 120 loss 3.214 tokens/s 31000", "step 120 loss 3.214 tokens/s 31000"),
        ("step 120 loss 3.214 tokens/s 31000 elapsed 0.3", "step 120 loss 3.214 tokens/s 31000"),
        ("[rank 0] step 7 | loss 3 | tokens/s 3,100", "step 7 loss 3 tokens/s 3,100"),
        ("step 1 the people of loss 2.1 these United States tokens/s 9", "step 1 loss 2.1 tokens/s 9"),
        ("the people of these United States", None),
        ("step 1 loss nan tokens/s 3", None),
        ("step 1 loss ٣ tokens/s ٣", None),
        ("step " * 100_000, None),
        ("step 1 " * 100_000, None),
    ],
)
def test_a_live_view_gets_figures_and_no_other_text(line, figures):
    assert progress(line) == figures


def test_a_cut_text_never_exceeds_its_limit():
    assert [cut("abc def", limit) for limit in (7, 6, 5, 1)] == ["abc def", "abc d…", "abc…", "…"]


# results.tsv


def rows(experiments):
    return list(csv.DictReader(io.StringIO(results_tsv(experiments)), delimiter="\t"))


def test_the_table_has_karpathys_columns_in_his_order():
    assert results_tsv([]) == "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
    assert COLUMNS == ("commit", "val_bpb", "memory_gb", "status", "description")


def test_a_kept_row_names_the_kept_commit_and_a_discarded_one_the_tried_commit():
    made = rows(
        [
            experiment(1, "keep", 1.8, tried_commit="a" * 40, kept_commit="b" * 40),
            experiment(2, "discard", 1.95, tried_commit="c" * 40),
        ]
    )
    assert [row["commit"] for row in made] == ["b" * 7, "c" * 7]
    assert [row["val_bpb"] for row in made] == ["1.800000", "1.950000"]
    assert [row["status"] for row in made] == ["keep", "discard"]


@pytest.mark.parametrize(("verdict", "bpb"), [("crash", None), ("crash", 0.0), ("invalid", 0.1), ("infra", None)])
def test_an_experiment_without_a_believed_score_has_an_empty_one(verdict, bpb):
    assert rows([experiment(1, verdict, bpb)])[0]["val_bpb"] == ""


@pytest.mark.parametrize("bpb", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_none_is_left_empty(bpb):
    assert rows([experiment(1, "discard", bpb)])[0]["val_bpb"] == ""


def test_an_open_experiment_has_no_row():
    assert rows([experiment(1, None, None)]) == []


@pytest.mark.parametrize("hypothesis", HOSTILE)
def test_a_hostile_description_stays_one_field_of_text(hypothesis):
    made = rows([experiment(1, hypothesis=hypothesis), experiment(2, hypothesis="plain")])
    assert len(made) == 2
    assert made[1]["description"] == "plain"
    assert None not in made[0]
    assert not made[0]["description"].startswith(("=", "+", "-", "@", '"'))
    assert "\x1b" not in made[0]["description"]


# Table and summary


@pytest.mark.parametrize("hypothesis", HOSTILE)
def test_a_hostile_hypothesis_is_printed_and_not_interpreted(hypothesis):
    made = [experiment(1, "keep", hypothesis=hypothesis), experiment(2, hypothesis=hypothesis)]
    lines = plain_lines(made)
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)
    screen = io.StringIO()
    Console(file=screen, width=200, no_color=True).print(table(made, 200, title="[red]night"))
    assert "[red]night" in screen.getvalue()
    if "markup" in hypothesis:
        assert "[bold red]markup[/bold red]" in screen.getvalue()


def test_numbers_are_whole_in_a_narrow_terminal():
    screen = io.StringIO()
    made = [experiment(1, "discard", 1.912345, delta_bpb=0.012345, hypothesis="word " * 40, runs=(run(),))]
    Console(file=screen, width=80, no_color=True).print(table(made, 80))
    row = next(line for line in screen.getvalue().splitlines() if "discard" in line)
    assert "1.912345" in row
    assert "+0.012345" in row
    assert " 20 " in row
    assert len(row.rstrip()) <= 80


def test_plain_lines_are_aligned():
    made = [experiment(1, "keep", 1.8, delta_bpb=-0.1, runs=(run(),)), experiment(112, "crash", None)]
    columns = {
        line.index(word) for line, word in zip(plain_lines(made), ("hypothesis", "idea", "idea"), strict=True)
    }
    assert len(columns) == 1


def test_an_experiment_without_a_score_shows_none_in_the_table():
    assert "0.5" not in plain_lines([experiment(1, "invalid", 0.5)])[1]


def test_the_summary_tells_gain_counts_and_noise():
    made = [
        experiment(0, "keep", 2.0),
        experiment(1, "keep", 1.8),
        experiment(2, "discard", 1.85),
        experiment(3, "crash", None),
        experiment(4, "invalid", 0.1),
        experiment(5, None, None),
    ]
    assert summary(made) == (
        "Baseline 2.0000 → best 1.8000 bpb (-0.2000, -10.00 %), experiment 1. "
        "4 experiments: 1 kept, 1 discarded, 1 crashed, 1 invalid. Noise sigma 0.0100 bpb."
    )


def test_a_summary_without_improvement_or_baseline_says_so():
    assert summary([]) == "No baseline yet: nothing can be compared."
    assert "no experiment yet" in summary([experiment(0, "keep", 2.0)])
    assert "No improvement" in summary([experiment(0, "keep", 2.0), experiment(1)])
    assert "2 lost to infrastructure" in summary(
        [experiment(0, "keep", 2.0), experiment(1, "infra", None), experiment(2, "infra", None)]
    )


# Explanations

FAILED = run(end=RunEnd.FAILED, exit_code=1)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (experiment(0, "keep", 2.0), ["The baseline", "2.0000", "0.0100"]),
        (experiment(3, None, None), ["Still running"]),
        (experiment(3, "keep", 1.8, delta_bpb=-0.05, champion=1), ["Kept", "better than experiment 1", "5.0 t"]),
        (experiment(3, "discard", 1.8, delta_bpb=-0.01), ["Discarded", "too little to tell from luck"]),
        (experiment(3, "discard", 1.8, delta_bpb=0.05, sigma_bpb=None), ["0.0500 worse than the champion"]),
        (experiment(3, "crash", None, runs=(run(end=RunEnd.OUT_OF_MEMORY),)), ["Crashed", "ran out of memory"]),
        (
            experiment(3, "crash", None, retry_of=2, runs=(FAILED,), log_tail="x\nKeyError\n"),
            ["exit code 1 after 20 s", "retry of experiment 2", "Its last words: KeyError"],
        ),
        (experiment(3, "invalid", None, reason="claims above zero."), ["Invalid: claims above zero."]),
        (experiment(3, "infra", None, runs=(run(end=RunEnd.LOST),)), ["says nothing about the idea", "vanished"]),
        (
            experiment(3, "discard", 1.8, champion=2, delta_bpb=0.02, reason="not better"),
            ["not better: val_bpb 1.8000 is 0.0200 worse than experiment 2"],
        ),
    ],
)  # fmt: skip
def test_a_verdict_is_explained(one, words):
    text = explain(one)
    assert all(word in text for word in words), text
    assert text.endswith((".", "KeyError"))


@pytest.mark.parametrize("end", RunEnd)
def test_every_way_to_end_has_its_words(end):
    assert explain(experiment(3, "crash", None, runs=(run(end=end),)))


def test_an_explanation_of_hostile_text_is_harmless():
    text = explain(experiment(3, "crash", None, reason="\x1b[2J\nx", log_tail="\u202eboo\x1b]0;t\x07"))
    assert text.isprintable()
    assert "\u202e" not in text


# Audits and the sealed rows

AUDIT = AuditRecord(
    claimed_bpb=1.5, num_positions=8192, mean_nats=-1e-6, se_nats=2e-6, upper_nats=2.3e-6,
    exceedances=(4, 3, 2, 1), repeat=1e-7, suffix=0.31, neighbours=None,
    finding="not_causal", reason="not causal: x",
)  # fmt: skip


def test_an_audit_shows_every_figure_and_its_reason():
    text = "\n".join(audit_lines(AUDIT))
    for word in ("1.500000", "8,192", "-1e-06", "2e-06", "4, 3, 2, 1", "1e-07", "0.31", "not measured"):
        assert word in text
    assert text.endswith("not causal: x")


def test_strikes_name_the_champions_whose_challengers_were_refused():
    assert strikes_line({}) is None
    assert strikes_line({4: 1, 0: 2}) == "Refused by the audit: challengers, 2 of experiment 0, 1 of experiment 4."


def test_sealed_scores_compare_the_last_keep_with_the_mean_of_the_baseline():
    scores = [
        SealedScore(number=0, seed=1, val_bpb=2.0, test_bpb=2.1),
        SealedScore(number=0, seed=2, val_bpb=2.2, test_bpb=2.3),
        SealedScore(number=3, seed=3, val_bpb=2.0, test_bpb=2.15),
    ]
    assert sealed_line([]) is None
    assert sealed_line(scores[:2]) == "Sealed test rows (as claimed): 2.2000 bpb (validation 2.1000)."
    assert sealed_line(scores) == (
        "Sealed test rows (as claimed): 2.2000 → 2.1500 bpb (-0.0500); validation 2.1000 → 2.0000 (-0.1000)."
    )
    assert sealed_tsv(scores).splitlines()[3] == "3\t3\t2.000000\t2.150000"


# Labels and plot

BOXES = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    *(st.floats(0, 900) for _ in range(2)),
    *(st.floats(1, 60) for _ in range(2)),
)
LABELS = st.builds(Label, st.floats(0, 1000), st.floats(0, 600), st.floats(5, 300), st.floats(5, 15))


@given(st.lists(LABELS, max_size=12), st.lists(BOXES, max_size=20))
@settings(deadline=None, max_examples=60)
def test_labels_never_overlap_anything_and_stay_inside(labels, occupied):
    frame = Box(0, 0, 1000, 600)
    places = place(labels, frame, occupied)
    found = [box for box in places if box is not None]
    assert len(places) == len(labels)
    assert all(frame.holds(box) for box in found)
    assert not any(box.overlaps(other) for box in found for other in occupied)
    assert not any(one.overlaps(other) for one, other in itertools.combinations(found, 2))


def test_a_label_with_room_is_always_placed():
    assert place([Label(500, 300, 100, 10)], Box(0, 0, 1000, 600), []) != [None]


@pytest.mark.parametrize(
    "made",
    [
        [],
        [experiment(1, None, None)],
        [experiment(0, "crash", None)],
        [experiment(0, "keep", 2.0)],
        [experiment(0, "keep", 2.0, sigma_bpb=None), experiment(1, "keep", 2.0, sigma_bpb=None)],
        [experiment(1, "discard", 2.0)],
        [experiment(0, "keep", 2.0), experiment(1, "discard", 1e9), experiment(2, "discard", float("nan"))],
        [experiment(number, "keep", 2 - number / 10, hypothesis=text) for number, text in enumerate(HOSTILE)],
        night(8),
        night(120),
    ],
    ids=["empty", "open", "crash", "one", "flat", "no baseline", "outliers", "hostile", "8", "120"],
)  # fmt: skip
def test_any_night_can_be_drawn(made, tmp_path):
    progress_png(made, tmp_path / "progress.png", "night $x$ [b]")
    with Image.open(tmp_path / "progress.png") as picture:
        picture.load()
        assert picture.size == (1690, 884)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]


def test_the_same_night_gives_the_same_picture(tmp_path):
    for name in ("a.png", "b.png"):
        progress_png(night(8), tmp_path / name, "night")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    target = tmp_path / "progress.png"
    target.write_bytes(b"old")

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DiskFullError, match="No space"):
        progress_png(night(8), target, "night")
    monkeypatch.undo()
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["progress.png"]


def test_drawing_leaves_no_global_state(tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with mpl.rc_context({"text.usetex": True, "axes.facecolor": "red"}):
        progress_png(night(8), tmp_path / "progress.png", "night")
        assert mpl.rcParams["text.usetex"] is True
    assert dict(mpl.rcParams) == before
