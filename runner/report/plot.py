"""`progress.png`: the night in one picture, in the style of karpathy/autoresearch.

Experiment number against val_bpb: grey dots were discarded, green ones kept. The line is the champion, without the
runs that chose it, the bars its 90 % interval, the band around it one standard deviation of the noise. The dotted
line is the lowest score of any run so far, which luck draws. Experiments without a score are ticks at the bottom;
scores far above the baseline are arrows at the top, so that one broken idea does not flatten the rest of the
night.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from runner.records import Experiment, Verdict
from runner.report.findings import Level, find
from runner.report.labels import Box, Label, nearest, place
from runner.report.summary import score_of, sum_up
from runner.storage.files import replace_file
from runner.untrusted import one_line

SIZE_INCHES = (13.0, 6.8)
DOTS_PER_INCH = 130
LABEL_CHARS = 46
MAX_LABELS = 40

INK = "#1f2933"
FAINT = "#7b8794"
GREY = "#b4bcc6"
GREEN = "#12a150"
AMBER = "#c2750c"
LOWEST = "lowest of all scores"
TICK_COLOURS = {
    Verdict.DISCARD: GREY,  # stopped early
    Verdict.CRASH: "#d64545",
    Verdict.INVALID: "#8b5cf6",
    Verdict.INFRA: "#d9a514",
}


class _Point(NamedTuple):
    number: int
    bpb: float


def progress_png(experiments: Sequence[Experiment], path: Path, title: str) -> None:
    """Draw the experiments and put the picture in place in one step.

    Args:
        experiments: in the order of their numbers; open ones are left out.
        path: where the picture goes.
        title: first words of the heading.

    Raises:
        DiskFullError: it cannot be written.
    """
    replace_file(path, _render([one for one in experiments if one.verdict is not None], title))


def _render(experiments: Sequence[Experiment], title: str) -> bytes:
    import matplotlib as mpl  # lazy: about a second

    # The defaults, not the user's matplotlibrc: that one may ask for LaTeX, which would run on a model's text.
    with mpl.rc_context():
        mpl.rcdefaults()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, facecolor="white", layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _decorate(axes)
        _heading(axes, experiments, title)
        if any(score_of(experiment) is not None for experiment in experiments):
            _draw(axes, canvas, experiments)
        else:
            axes.text(0.5, 0.5, "no score yet", transform=axes.transAxes, ha="center", color=FAINT)
            axes.set_xticks([])
            axes.set_yticks([])
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
        return picture.getvalue()


def _decorate(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(axis="y", color="#edf0f3", linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9)
    axes.set_xlabel("experiment", color=FAINT, fontsize=10)
    axes.set_ylabel("validation bits per byte (lower is better)", color=FAINT, fontsize=10)


def _heading(axes: Any, experiments: Sequence[Experiment], title: str) -> None:
    night = sum_up(experiments)
    plural = "" if night.num_experiments == 1 else "s"
    text = f"{one_line(title, 60)}: {night.num_experiments} experiment{plural}, {night.counts[Verdict.KEEP]} kept"
    levels = find(experiments).debiased
    if night.baseline_bpb is not None and len(levels) > 1:
        first, last = levels[0].bpb, levels[-1].bpb
        text += f", {first:.4f} → {last:.4f} bpb ({100 * (last / first - 1):+.2f} %)".replace("-", "−")
    axes.set_title(
        _drawable(text), loc="left", fontsize=13, fontweight="bold", color=INK, pad=14, parse_math=False
    )


def _draw(axes: Any, canvas: Any, experiments: Sequence[Experiment]) -> None:
    from matplotlib.ticker import MaxNLocator

    found = find(experiments)
    kept = [_Point(level.number, level.bpb) for level in found.debiased]
    kept_numbers = {point.number for point in kept}
    others = [
        _Point(one.number, score)
        for one in experiments
        if (score := score_of(one)) is not None and one.number not in kept_numbers
    ]
    last = max(experiment.number for experiment in experiments)
    raw = [_Point(level.number, level.bpb) for level in found.raw]
    low, high = _limits(
        kept, others, sum_up(experiments).sigma_bpb, min((point.bpb for point in raw), default=None)
    )
    axes.set_ylim(low, high)
    margin = max(0.5, 0.02 * last)
    axes.set_xlim(-margin, last + margin)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    crowd = max(0.55, min(1.0, 40 / (last + 1)))  # dots shrink as the night fills

    inside = [point for point in others if point.bpb <= high]
    above = [point for point in others if point.bpb > high]
    axes.scatter(
        [point.number for point in inside],
        [point.bpb for point in inside],
        s=42 * crowd, color=GREY, linewidths=0, zorder=3, label="discarded",
    )  # fmt: skip
    if above:
        axes.scatter(
            [point.number for point in above],
            [0.988] * len(above),
            s=42, marker="^", color=GREY, linewidths=0, zorder=3, clip_on=False,
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
    canvas.draw()  # fixes the layout, so that texts can be measured in pixels
    if kept:
        _label_keeps(axes, canvas, experiments, [*kept, *inside], kept, raw, found.debiased)


def _legend(axes: Any) -> None:
    """One row below the axes, or two, where it hides no experiment."""
    entries = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    order = ["kept (bar: 90 % interval)", "champion", LOWEST, "noise, ±1 sigma", "baseline"]
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
    """From just below the lowest score to the baseline and the ordinary discards; never to the wild ones."""
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
    for verdict, colour in TICK_COLOURS.items():
        numbers = [one.number for one in experiments if one.verdict is verdict and score_of(one) is None]
        if numbers:
            axes.scatter(
                numbers,
                [0.016] * len(numbers),
                s=60, marker="|", color=colour, linewidths=1.8, zorder=3, clip_on=False,
                transform=axes.get_xaxis_transform(), label=f"{verdict} (no score)",
            )  # fmt: skip


def _champion(
    axes: Any, experiments: Sequence[Experiment], kept: Sequence[_Point], end: float, size: float
) -> None:
    """The kept dots, the line of the best so far and the noise around it."""
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
        zorder=4, label="kept (bar: 90 % interval)",
    )  # fmt: skip


def _intervals(axes: Any, levels: Sequence[Level]) -> None:
    known = [level for level in levels if level.half_bpb is not None]
    axes.errorbar(
        [level.number for level in known],
        [level.bpb for level in known],
        yerr=[level.half_bpb for level in known],
        fmt="none", ecolor=GREEN, elinewidth=1.1, capsize=2.5, capthick=1.1, alpha=0.9, zorder=3,
    )  # fmt: skip


def _label_keeps(
    axes: Any,
    canvas: Any,
    experiments: Sequence[Experiment],
    points: Sequence[_Point],
    kept: Sequence[_Point],
    raw: Sequence[_Point],
    levels: Sequence[Level],
) -> None:
    """Name the kept experiments, the largest steps first, wherever there is room."""
    names = {one.number: _drawable(one_line(one.hypothesis, LABEL_CHARS)) for one in experiments}
    steps = [(before.bpb - after.bpb, after) for before, after in pairwise(kept)]
    order = [point for _, point in sorted(steps, key=lambda step: -step[0])][:MAX_LABELS]
    style = {"fontsize": 8, "color": INK, "parse_math": False, "zorder": 5}
    scale = DOTS_PER_INCH / 72

    def pixel(point: _Point) -> tuple[float, float]:
        x, y = axes.transData.transform(point)
        return float(x), float(y)

    labels = []
    for point in order:
        probe = axes.text(0, 0, names[point.number], **style)
        extent = probe.get_window_extent(canvas.get_renderer())
        probe.remove()
        labels.append(Label(*pixel(point), extent.width, extent.height))
    occupied = [Box(x, y, x, y).grown(4 * scale) for x, y in map(pixel, points)]
    frame = Box(*axes.get_window_extent().extents).grown(-4)
    occupied.append(Box(frame.left, frame.bottom, frame.right, frame.bottom + 9 * scale))  # the ticks
    for curve in (kept, raw):
        corners = [pixel(point) for point in curve] + [(frame.right, pixel(point)[1]) for point in curve[-1:]]
        for (x, y), (next_x, next_y) in pairwise(corners):
            occupied.append(Box(x, y, next_x, y).grown(1.5))
            occupied.append(Box(next_x, min(y, next_y), next_x, max(y, next_y)).grown(1.5))
    for level in levels:
        x, low = pixel(_Point(level.number, level.bpb - (level.half_bpb or 0.0)))
        _, high = pixel(_Point(level.number, level.bpb + (level.half_bpb or 0.0)))
        occupied.append(Box(x, low, x, high).grown(3.5))
    for point, label, box in zip(order, labels, place(labels, frame, occupied), strict=True):
        if box is None:
            continue
        # In pixels from the figure's corner, where the free place was found.
        axes.annotate(
            names[point.number],
            xy=(label.x, label.y), xycoords="figure pixels",
            xytext=(box.left, box.bottom), textcoords="figure pixels",
            ha="left", va="bottom", annotation_clip=False, **style,
        )  # fmt: skip
        axes.annotate(
            "",
            xy=(label.x, label.y), xycoords="figure pixels",
            xytext=nearest(label, box), textcoords="figure pixels", annotation_clip=False, zorder=2,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def _drawable(text: str) -> str:
    """`text` with a box for what the font cannot draw, which would be a warning for each character."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    known = get_font(findfont(FontProperties())).get_charmap()
    return "".join(char if ord(char) in known else "\N{WHITE SQUARE}" for char in text)
