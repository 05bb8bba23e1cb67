"""Pictures: any campaign can be drawn, the same one always alike, and no label covers another."""

from __future__ import annotations

import itertools

import pytest
import textalloc
from matplotlib.path import Path
from PIL import Image

from runner.errors import DiskFullError
from runner.report import plot
from runner.report.plot import progress_png
from tests.support.synthetic_experiments import HOSTILE, experiment, night


@pytest.fixture
def placed(monkeypatch):
    """What the placement of labels was given, and the texts that it drew."""
    calls = []

    def allocate(axes, *arguments, **options):
        found = real(axes, *arguments, **options)
        calls.append((axes, options, [text for text in found[2] if text is not None]))
        return found

    real = textalloc.allocate
    monkeypatch.setattr(textalloc, "allocate", allocate)
    return calls


@pytest.mark.parametrize("made", [night(16), night(40, seed=3), night(120, seed=5)], ids=["16", "40", "120"])
def test_no_label_covers_a_label_a_point_or_a_line_and_all_stay_inside(made, placed, tmp_path):
    progress_png(made, tmp_path / "progress.png", "night")
    ((axes, options, texts),) = placed
    boxes = [text.get_window_extent() for text in texts]
    assert boxes, "there is room for some"
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.contains(*corner) for box in boxes for corner in box.corners())
    points = axes.transData.transform(list(zip(options["x_scatter"], options["y_scatter"], strict=True)))
    assert not any(box.contains(*point) for box in boxes for point in points)
    for x, y in zip(options["x_lines"], options["y_lines"], strict=True):
        line = Path(axes.transData.transform(list(zip(x, y, strict=True))))
        assert not any(line.intersects_bbox(box, filled=False) for box in boxes)


def test_a_keep_with_room_around_it_has_a_label(placed, tmp_path):
    made = [experiment(0, "keep", 2.0), experiment(1, "discard", 2.1), experiment(9, "keep", 1.8)]
    progress_png(made, tmp_path / "progress.png", "night")
    ((_, _, texts),) = placed
    assert [text.get_text() for text in texts] == ["idea 9"]


def test_accepted_edits_are_marked_with_what_became_of_them_and_the_title_states_the_measured_gain(
    placed, tmp_path
):
    made = [
        experiment(0, "keep", 2.0), experiment(1, "accept", 1.7), experiment(2, "accept", 1.75),
        experiment(3, "keep", 1.8, certifies=(1, 2), delta_bpb=-0.1), experiment(4, "accept", 1.6),
        experiment(5, "discard", 1.85, certifies=(4,)), experiment(6, "accept", 1.65),
        experiment(7, "discard", 1.9),
    ]  # fmt: skip
    progress_png(made, tmp_path / "progress.png", "night")
    ((axes, _, _),) = placed
    points = {
        drawn.get_label(): sorted(int(x) for x, _ in drawn.get_offsets())
        for drawn in axes.collections
        if hasattr(drawn, "get_sizes") and len(drawn.get_sizes())
    }
    assert points["accepted onto the tip"] == [1, 2, 6]
    assert points["accepted, rolled back"] == [4]
    assert points["discarded"] == [7], "a certificate that failed is no idea"
    assert axes.get_title(loc="left") == (
        "night: 5 ideas, 4 accepted, 1 certificate kept, 2.0000 → 1.9000 bpb (−5.00%)"
    )


def test_nothing_is_printed_where_no_label_has_room(placed, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plot, "LABEL_CHARS", 900)
    made = [experiment(0, "keep", 2.0), experiment(1, "keep", 1.9, hypothesis="word " * 180)]
    progress_png(made, tmp_path / "progress.png", "night")
    ((_, _, texts),) = placed
    assert texts == []
    assert capsys.readouterr() == ("", "")


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
        progress_png(night(40), tmp_path / name, "night")
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
