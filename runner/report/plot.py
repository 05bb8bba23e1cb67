"""Pictures: `progress.png`, the night in the style of karpathy/autoresearch, and a comparison of keep rules.

The night is experiment number against val_bpb: gray dots were discarded, green rings accepted onto the tip, gray
crosses accepted and rolled back by a certificate, and green dots kept. The line is the champion: the baseline, and
from there the gain that each certificate measured, the bars its 90% interval, the band around it one standard
deviation of the noise. The dotted line is the lowest score so far, which luck draws. Experiments without a score
are ticks at the bottom; scores far above the baseline are arrows at the top, so that one broken idea does not
flatten the rest.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.decision.history import rulings
from runner.records import Experiment, Verdict
from runner.report.findings import Findings, Level, find
from runner.report.summary import counted, score_of, summarize
from runner.storage.files import replace_file
from runner.untrusted import one_line

if TYPE_CHECKING:
    from runner.decision.simulation import Summary

SIZE_INCHES = (13.0, 6.8)
DOTS_PER_INCH = 130
LABEL_CHARS = 46
MAX_LABELS = 40

INK = "#1f2933"
FAINT = "#7b8794"
GRAY = "#b4bcc6"
GREEN = "#12a150"
AMBER = "#c2750c"
LOWEST = "lowest score so far"
TICK_COLORS = {
    Verdict.DISCARD: GRAY,  # stopped early
    Verdict.CRASH: "#d64545",
    Verdict.INVALID: "#8b5cf6",
    Verdict.INFRA: "#d9a514",
}


class _Point(NamedTuple):
    number: int
    bpb: float


def progress_png(experiments: Sequence[Experiment], path: Path, title: str) -> None:
    """Draw the experiments and write the picture atomically.

    Args:
        experiments: in the order of their numbers; open ones are left out.
        path: where the picture goes.
        title: first words of the heading.

    Raises:
        DiskFullError: it cannot be written.
    """
    replace_file(path, _render([one for one in experiments if one.verdict is not None], title))


def rules_png(summaries: Sequence[Summary], path: Path, title: str) -> None:
    """Draw what keep rules gain and what they believe, from campaigns whose truth is known.

    One bar of true improvement per rule, a mark where its report stands, and its share of false keeps in words.

    Raises:
        DiskFullError: it cannot be written.
    """
    with _canvas((9.0, 0.62 * len(summaries) + 1.6)) as (axes, canvas):
        places = range(len(summaries), 0, -1)
        right = max(max(one.true_gain, one.reported_gain) for one in summaries)
        for place, one in zip(places, summaries, strict=True):
            axes.barh(place, one.true_gain, color=GREEN if one.rule == "ours" else GRAY, height=0.6)
            axes.plot([one.reported_gain] * 2, [place - 0.38, place + 0.38], color=INK, linewidth=2.2)
            text = f"{one.false_share:.1%} of {one.keeps:.1f} keeps false"
            axes.text(right * 1.03, place, text, va="center", color=INK, fontsize=10)
        axes.set_yticks(list(places), [one.rule for one in summaries])
        axes.set_xlim(0, right * 1.42)
        axes.set_xlabel(
            "bar: true improvement; mark: what the rule reports (bpb, mean over campaigns)", color=FAINT
        )
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(left=False)
        replace_file(path, _png(canvas))


def _render(experiments: Sequence[Experiment], title: str) -> bytes:
    with _canvas(SIZE_INCHES) as (axes, canvas):
        found = find(experiments)
        _decorate(axes)
        _heading(axes, experiments, found, title)
        if any(score_of(experiment) is not None for experiment in experiments):
            _draw(axes, experiments, found)
        else:
            axes.text(0.5, 0.5, "no score yet", transform=axes.transAxes, ha="center", color=FAINT)
            axes.set_xticks([])
            axes.set_yticks([])
        return _png(canvas)


@contextmanager
def _canvas(size_inches: tuple[float, float]) -> Iterator[tuple[Any, Any]]:
    """Yield axes and canvas of an empty figure."""
    import matplotlib as mpl  # lazy: about a second

    # The defaults, not the user's matplotlibrc: that one may ask for LaTeX, which would run on a model's text.
    with mpl.rc_context():
        mpl.rcdefaults()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=size_inches, dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
        canvas = FigureCanvasAgg(figure)
        yield figure.add_subplot(), canvas


def _png(canvas: Any) -> bytes:
    picture = io.BytesIO()
    canvas.print_png(picture, metadata={"Software": None})
    return picture.getvalue()


def _decorate(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRAY)
    axes.grid(axis="y", color="#edf0f3", linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.set_xlabel("experiment", color=FAINT, fontsize=10)
    axes.set_ylabel("validation bits per byte (lower is better)", color=FAINT, fontsize=10)


def _heading(axes: Any, experiments: Sequence[Experiment], found: Findings, title: str) -> None:
    night = summarize(experiments)
    counts = (
        f"{counted(night.num_experiments, 'idea')}, {night.counts[Verdict.ACCEPT]} accepted, "
        f"{counted(night.counts[Verdict.KEEP], 'certificate')} kept"
    )
    text = f"{one_line(title, 60)}: {counts}"
    levels = found.debiased
    if night.baseline_bpb is not None and len(levels) > 1:
        first, last = levels[0].bpb, levels[-1].bpb
        text += f", {first:.4f} → {last:.4f} bpb ({last / first - 1:+.2%})".replace("-", "−")
    axes.set_title(
        _drawable(text), loc="left", fontsize=13, fontweight="bold", color=INK, pad=14, parse_math=False
    )


def _draw(axes: Any, experiments: Sequence[Experiment], found: Findings) -> None:
    from matplotlib.ticker import MaxNLocator

    kept = [_Point(level.number, level.bpb) for level in found.debiased]
    kept_numbers = {point.number for point in kept}
    others = [
        _Point(one.number, score)
        for one in experiments
        if (score := score_of(one)) is not None and one.number not in kept_numbers and not one.is_certificate
    ]
    rolled_back = {number for number, one in rulings(experiments).items() if one.verdict is not Verdict.KEEP}
    accepted = {one.number for one in experiments if one.verdict is Verdict.ACCEPT}
    last = max(experiment.number for experiment in experiments)
    steps = (next(same) for _, same in groupby(found.raw, key=lambda level: level.bpb))  # where it falls
    raw = [_Point(level.number, level.bpb) for level in steps]
    low, high = _limits(
        kept, others, summarize(experiments).sigma_bpb, min((point.bpb for point in raw), default=None)
    )
    axes.set_ylim(low, high)
    margin = max(0.5, 0.02 * last)
    axes.set_xlim(-margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    crowd = max(0.55, min(1.0, 40 / (last + 1)))  # dots shrink as the night fills

    inside = [point for point in others if point.bpb <= high]
    discarded = [point for point in inside if point.number not in accepted]
    above = [point for point in others if point.bpb > high]
    axes.scatter(
        [point.number for point in discarded],
        [point.bpb for point in discarded],
        s=42 * crowd, color=GRAY, linewidths=0, zorder=3, label="discarded",
    )  # fmt: skip
    _accepted(axes, [point for point in inside if point.number in accepted], rolled_back, 46 * crowd)
    if above:
        axes.scatter(
            [point.number for point in above],
            [0.988] * len(above),
            s=42, marker="^", color=GRAY, linewidths=0, zorder=3, clip_on=False,
            transform=axes.get_xaxis_transform(), label="discarded, off the scale",
        )  # fmt: skip
    _ticks(axes, experiments)
    if kept:
        _champion(axes, experiments, kept, last + margin, 92 * crowd)
        _intervals(axes, found.debiased)
    if len(raw) > 1:
        axes.step(
            [*(point.number for point in raw), last + margin],
            [*(point.bpb for point in raw), raw[-1].bpb],
            where="post", color=AMBER, linewidth=1.2, linestyle=(0, (1.2, 1.4)), zorder=2,
            label=LOWEST,
        )  # fmt: skip
    _legend(axes)
    axes.figure.draw_without_rendering()  # settles the layout, so that texts can be measured in pixels
    axes.figure.set_layout_engine("none")  # a layout takes as long as the drawing; labels change nothing in it
    if kept:
        _label_keeps(axes, experiments, [*kept, *inside], kept, raw, found.debiased)


def _accepted(axes: Any, points: Sequence[_Point], rolled_back: set[int], size: float) -> None:
    """Draw the accepted edits as rings; those that a certificate rolled back are crossed out."""
    gone = [point for point in points if point.number in rolled_back]
    stay = [point for point in points if point.number not in rolled_back]
    for some, color, marker, label in (
        (stay, GREEN, "o", "accepted onto the tip"), (gone, FAINT, "X", "accepted, rolled back"),
    ):  # fmt: skip
        if some:
            axes.scatter(
                [point.number for point in some],
                [point.bpb for point in some],
                s=size, marker=marker, facecolors="white", edgecolors=color, linewidths=1.3, zorder=3.5,
                label=label,
            )  # fmt: skip


def _legend(axes: Any) -> None:
    """Put the legend below the axes, in one row or two, where it hides no experiment."""
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = ["kept (bar: 90% interval)", "champion", LOWEST, "noise, ±1 sigma", "baseline"]
    names = [name for name in order if name in entries] + [name for name in entries if name not in order]
    columns = len(names) if len(names) < 8 else (len(names) + 1) // 2
    axes.figure.legend(
        [entries[name] for name in names], names,
        loc="outside lower center", ncols=columns, frameon=False, fontsize=9, labelcolor=INK,
        handletextpad=0.5, columnspacing=2.0,
    )  # fmt: skip


def _limits(
    kept: Sequence[_Point], others: Sequence[_Point], sigma: float | None, lowest: float | None
) -> tuple[float, float]:
    """Choose limits from just below the lowest score up to the baseline and ordinary discards, not outliers."""
    values = sorted(point.bpb for point in [*kept, *others])
    start = kept[0].bpb if kept else values[len(values) // 2]
    ordinary = values[int(0.9 * (len(values) - 1))]
    bottom = values[0] if lowest is None else min(lowest, values[0])
    gain = start - bottom
    reach = max(gain, 8 * (sigma or 0.0), 0.001 * start)
    high = max(start, min(ordinary, start + reach)) + 0.08 * reach
    low = bottom - 0.22 * max(high - bottom, reach)  # room for ticks and for labels below the line
    return low, high


def _ticks(axes: Any, experiments: Sequence[Experiment]) -> None:
    for verdict, color in TICK_COLORS.items():
        numbers = [one.number for one in experiments if one.verdict is verdict and score_of(one) is None]
        if numbers:
            axes.scatter(
                numbers,
                [0.016] * len(numbers),
                s=60, marker="|", color=color, linewidths=1.8, zorder=3, clip_on=False,
                transform=axes.get_xaxis_transform(), label=f"{verdict} (no score)",
            )  # fmt: skip


def _champion(
    axes: Any, experiments: Sequence[Experiment], kept: Sequence[_Point], end: float, size: float
) -> None:
    """Draw the kept dots, the line of the champion and the noise around it."""
    numbers = [float(point.number) for point in kept]
    values = [point.bpb for point in kept]
    known = {one.number: one.sigma_bpb for one in experiments if one.sigma_bpb is not None}
    sigmas: list[float] = []
    for point in kept:
        sigmas.append(known.get(point.number, sigmas[-1] if sigmas else 0.0))
    line = ([*numbers, end], [*values, values[-1]])
    if any(sigmas):
        axes.fill_between(
            line[0],
            [value - sigma for value, sigma in zip(line[1], [*sigmas, sigmas[-1]], strict=True)],
            [value + sigma for value, sigma in zip(line[1], [*sigmas, sigmas[-1]], strict=True)],
            step="post", color=GREEN, alpha=0.14, linewidth=0, zorder=1, label="noise, ±1 sigma",
        )  # fmt: skip
    axes.axhline(values[0], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), zorder=1, label="baseline")
    axes.step(*line, where="post", color=GREEN, linewidth=1.8, alpha=0.75, zorder=2, label="champion")
    axes.scatter(
        numbers, values, s=size, color=GREEN, edgecolors="white", linewidths=1.2,
        zorder=4, label="kept (bar: 90% interval)",
    )  # fmt: skip


def _intervals(axes: Any, levels: Sequence[Level]) -> None:
    known = [level for level in levels if level.half_bpb]
    axes.errorbar(
        [level.number for level in known],
        [level.bpb for level in known],
        yerr=[level.half_bpb for level in known],
        fmt="none", ecolor=GREEN, elinewidth=1.1, capsize=2.5, capthick=1.1, alpha=0.9, zorder=3,
    )  # fmt: skip


def _label_keeps(
    axes: Any,
    experiments: Sequence[Experiment],
    points: Sequence[_Point],
    kept: Sequence[_Point],
    raw: Sequence[_Point],
    levels: Sequence[Level],
) -> None:
    """Name the kept experiments, the largest steps first, where a label covers nothing; the others go without.

    The placement is deterministic: the same experiments give the same picture.
    """
    import textalloc

    hypotheses = {one.number: one.hypothesis for one in experiments}
    steps = [(before.bpb - after.bpb, after) for before, after in pairwise(kept)]
    order = [point for _, point in sorted(steps, key=lambda step: -step[0])][:MAX_LABELS]
    if not order:
        return
    lines = [*_corners(kept, axes.get_xlim()[1]), *_corners(raw, axes.get_xlim()[1])]
    lines += [
        ([level.number] * 2, [level.bpb - level.half_bpb, level.bpb + level.half_bpb])
        for level in levels
        if level.half_bpb is not None
    ]
    floor, top = axes.get_ylim()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints when there is no room for any label
        _, _, texts, leaders = textalloc.allocate(
            axes,
            [point.number for point in order],
            [point.bpb for point in order],
            [_drawable(one_line(hypotheses[point.number], LABEL_CHARS)) for point in order],
            x_scatter=[point.number for point in points],
            y_scatter=[point.bpb for point in points],
            x_lines=[x for x, _ in lines],
            y_lines=[y for _, y in lines],
            ylims=(floor + 0.02 * (top - floor), top),  # above the ticks
            # Below a line that falls to the right there is room; above it lie the discards.
            direction=["southwest", "west", "northeast", "east"],
            min_distance=0.006,
            margin=0.003,
            draw_all=False,
            avoid_label_lines_overlap=True,
            avoid_crossing_label_lines=True,
            textsize=8,
            textcolor=INK,
            linecolor=FAINT,
            linewidth=0.6,
            parse_math=False,
            zorder=5,
            plot_kwargs={"zorder": 2},
        )
    for artist in (*texts, *leaders):
        if artist is not None:
            artist.set_in_layout(False)  # it was placed in the layout that is there


def _corners(curve: Sequence[_Point], right: float) -> list[tuple[list[float], list[float]]]:
    """Return the corners of a step curve that extends to the right edge, as one line."""
    if not curve:
        return []
    xs, ys = [float(curve[0].number)], [curve[0].bpb]
    for before, after in pairwise(curve):
        xs += [after.number, after.number]
        ys += [before.bpb, after.bpb]
    return [([*xs, right], [*ys, ys[-1]])]


def _drawable(text: str) -> str:
    """Put a box in place of each character that the font cannot draw: each would be a warning."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(char if ord(char) in known else "\N{WHITE SQUARE}" for char in text)
