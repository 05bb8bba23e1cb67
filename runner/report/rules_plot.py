"""What keep rules find and what they believe, in one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.report.plot import DOTS_PER_INCH, FAINT, GREEN, GREY, INK
from runner.storage.files import replace_file

if TYPE_CHECKING:
    from runner.decision.simulation import Summary


def rules_png(summaries: Sequence[Summary], path: Path, title: str) -> None:
    """A bar of true improvement for each rule, a mark where its report stands, its share of false keeps in words.

    Raises:
        DiskFullError: it cannot be written.
    """
    import matplotlib as mpl  # lazy: about a second

    with mpl.rc_context():
        mpl.rcdefaults()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.0, 0.62 * len(summaries) + 1.6), layout="constrained", dpi=DOTS_PER_INCH)
        axes = figure.add_subplot()
        places = range(len(summaries), 0, -1)
        right = max(max(one.true_gain, one.reported_gain) for one in summaries)
        for place, one in zip(places, summaries, strict=True):
            axes.barh(place, one.true_gain, color=GREEN if one.rule == "ours" else GREY, height=0.6)
            axes.plot([one.reported_gain] * 2, [place - 0.38, place + 0.38], color=INK, linewidth=2.2)
            words = f"{one.false_share:.1%} of {one.keeps:.1f} keeps false"
            axes.text(right * 1.03, place, words, va="center", color=INK, fontsize=10)
        axes.set_yticks(list(places), [one.rule for one in summaries])
        axes.set_xlim(0, right * 1.42)
        axes.set_xlabel(
            "bar: true improvement; mark: what the rule reports (bpb, mean over campaigns)", color=FAINT
        )
        axes.set_title(title, loc="left", color=INK, fontsize=11)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.tick_params(left=False)
        picture = io.BytesIO()
        FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
        replace_file(path, picture.getvalue())
