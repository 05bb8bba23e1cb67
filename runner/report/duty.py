"""Where the hours of a campaign went: how long trainings ran, and what else the machine did.

Duty is the share of wall time in which a container of the phase `train` runs: from the moment that it is asked for
until its end is written down, its start and `import torch` included. The ledger's times are whole seconds, so each
stretch is known to within a second: 5 % of a training of 20 s, nothing of one of 300 s.

Every second has one name, the first of `KINDS` that fits: what a container ran for; `unknown` for a run that was
lost and for an experiment whose times are missing; in an experiment `build` before its first run (git and image)
and `other` after it; `propose` between experiments.

The ledger does not know when a controller was stopped. A stretch of more than `PAUSE_SECONDS` in which nothing is
known to have run is taken for that, and left out of every share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

from runner.records import Experiment, Phase, RunEnd, RunRecord

PAUSE_SECONDS = 30 * 60
NUM_LAST = 10
KINDS = ("train", "score", "audit", "unknown", "build", "other", "propose")

_RUNNING = {Phase.TRAIN: "train", Phase.SCORE: "score", Phase.TEST: "score", Phase.AUDIT: "audit"}


class Stretch(NamedTuple):
    """Some time that went to one thing."""

    kind: str  # of KINDS
    start: float  # seconds since the epoch
    end: float


@dataclass(frozen=True, kw_only=True)
class Duty:
    """Sums over some stretches."""

    seconds: Mapping[str, float]  # by kind; those that did not occur are left out
    paused_seconds: float  # not among them

    @property
    def total_seconds(self) -> float:
        """All but the pauses."""
        return sum(self.seconds.values())

    def share(self, kind: str = "train") -> float | None:
        """Of the total, the unknown included: the true share may be higher. None when nothing is known."""
        if self.total_seconds <= self.seconds.get("unknown", 0.0):
            return None
        return self.seconds.get(kind, 0.0) / self.total_seconds


def duty(experiments: Sequence[Experiment], *, last: int | None = None) -> Duty:
    """Sum up a campaign, or a single experiment of it: then without the time in which it was proposed.

    Args:
        experiments: in the order of their numbers.
        last: only so many closed ones at the end, each with the stretch before it; all when there are fewer.
    """
    since = float("-inf")
    if last is not None:
        earlier = [one for one in experiments if one.verdict is not None][:-last]
        since = max((end for one in earlier if (end := _seconds(one.ended_at)) is not None), default=since)
    seconds: defaultdict[str, float] = defaultdict(float)
    paused = 0.0
    for kind, start, end in stretches(experiments):
        if start < since:
            continue
        if kind not in _RUNNING.values() and end - start > PAUSE_SECONDS:
            paused += end - start
        else:
            seconds[kind] += end - start
    return Duty(seconds=dict(seconds), paused_seconds=paused)


def stretches(experiments: Sequence[Experiment]) -> list[Stretch]:
    """The time from the first to the last moment that the ledger knows, cut where something began or ended."""
    spans = [span for one in experiments for span in _spans(one) if span.start < span.end]
    if not spans:
        return []
    spans.append(Stretch("propose", min(span.start for span in spans), max(span.end for span in spans)))
    # An experiment whose start is missing may lie anywhere between the others.
    between = "propose" if all(_seconds(one.started_at) is not None for one in experiments) else "unknown"
    changes = sorted(
        [(span.start, span.kind, 1) for span in spans] + [(span.end, span.kind, -1) for span in spans]
    )
    found: list[Stretch] = []
    active: Counter[str] = Counter()
    for (now, kind, step), (then, _, _) in pairwise(changes):
        active[kind] += step
        if now < then:
            first = next(name for name in KINDS if active[name] > 0)
            found.append(Stretch(between if first == "propose" else first, now, then))
    return found


def duty_line(whole: Duty, recent: Duty | None, word: str) -> str | None:
    """For people: `GPU duty 93 % (last 10: 95 %) of 7 h 58 min; …`. None when no time has passed.

    Args:
        whole: of a night or of an experiment.
        recent: of its last experiments, if that is another one.
        word: what duty is called here.
    """
    if not whole.total_seconds:
        return None
    share, recent_share = whole.share(), None if recent is None else recent.share()
    if share is None:
        return f"{word} unknown: the ledger has no times"
    least = "at least " if whole.seconds.get("unknown") else ""
    latest = "" if recent_share is None else f" (last {NUM_LAST}: {_percent(recent_share)})"
    rest = ", ".join(
        f"{kind} {_percent(seconds / whole.total_seconds)}"
        for kind, seconds in sorted(whole.seconds.items(), key=lambda item: -item[1])
        if kind != "train"
    )
    paused = f"; pauses of {_clock(whole.paused_seconds)} left out" if whole.paused_seconds else ""
    return (
        f"{word} {least}{_percent(share)}{latest} of {_clock(whole.total_seconds)}"
        f"{f'; {rest}' if rest else ''}{paused}"
    )


def _spans(experiment: Experiment) -> Iterator[Stretch]:
    """What is known of an experiment; spans may overlap, the first of KINDS wins."""
    opened = _seconds(experiment.started_at)
    closed = _seconds(experiment.ended_at)
    if opened is None:
        return
    runs = [(run, _seconds(run.opened_at), _seconds(run.closed_at)) for run in experiment.runs]
    ends = [end for _, _, end in runs if end is not None]
    # An open experiment is known as far as its last run; what runs now has no end yet.
    end = closed if closed is not None else max(ends, default=opened)
    if (closed is None and experiment.verdict is not None) or any(None in times for _, *times in runs):
        yield Stretch("unknown", opened, end)
    first = min((start for _, start, _ in runs if start is not None), default=end)
    yield Stretch("build", opened, first)
    yield Stretch("other", first, end)
    controls = [(run, _seconds(run.opened_at), _seconds(run.closed_at)) for run in experiment.controls]
    for run, start, stop in (*runs, *controls):
        if start is not None and stop is not None:
            yield Stretch(_kind(run), start, stop)


def _kind(run: RunRecord) -> str:
    # Its end was written down when it was missed, perhaps the next morning.
    return "unknown" if run.end is RunEnd.LOST else _RUNNING[run.phase]


def _seconds(moment: str | None) -> float | None:
    if moment is None:
        return None
    try:
        found = datetime.fromisoformat(moment)
    except ValueError:
        return None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _clock(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
