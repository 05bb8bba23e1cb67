"""Time and money of a campaign: where its hours went, and how much its language model cost.

Duty is the share of wall time in which a container of the phase `train` runs: from the request for it until its
end is recorded, start-up and `import torch` included. The ledger's times are whole seconds, so each stretch is
known to within a second: 5% of a training of 20 s, nothing of one of 300 s.

Every second counts once, as the first of `KINDS` that fits: the phase of the running container; `unknown` for a
lost run and for an experiment whose times are missing; within an experiment `build` before its first run (git and
image) and `other` after it; `propose` between experiments.

The ledger does not know when a controller was stopped. A stretch of more than `PAUSE_SECONDS` in which nothing is
known to have run is taken for that, and left out of every share.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from runner.records import Experiment, Phase, RunEnd, RunRecord, UsageTotals, Verdict
from runner.report.drift import parse_time
from runner.report.summary import BASELINE, Summary, summarize

PAUSE_SECONDS = 30 * 60
NUM_RECENT = 10
"""Experiments behind the rates that are called recent."""
KINDS = ("train", "score", "audit", "unknown", "build", "other", "propose")

_RUNNING = {Phase.TRAIN: "train", Phase.SCORE: "score", Phase.TEST: "score", Phase.AUDIT: "audit"}


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Everything that went into a campaign."""

    experiments: tuple[Experiment, ...]  # all, or the newest ones
    summary: Summary
    usage: UsageTotals
    target: int
    profile: str | None
    budget_usd: float | None  # 0: no limit; None: not known

    def as_json(self) -> dict[str, Any]:
        """Return plain data: `spending` is null if no model was asked, `duty` if no time has passed."""
        whole, recent = self._duties()
        times = {
            "share": whole.share(),
            "recent_share": recent.share(),
            "seconds": whole.seconds,
            "paused_seconds": whole.paused_seconds,
        }
        return {
            "spending": asdict(self._spending()) if self.usage.num_responses else None,
            "duty": times if whole.total_seconds else None,
        }

    def lines(self) -> list[str]:
        """Describe time and money for people."""
        whole, recent = self._duties()
        has_more = len(self.experiments) > NUM_RECENT + 1
        line = duty_line(whole, recent if has_more else None, duty_name(self.profile))
        num_closed = sum(one.verdict is not None and one.number != BASELINE for one in self.experiments)
        if line is not None and num_closed < self.summary.num_experiments:
            line += f" (newest {num_closed:,} experiments)"
        return [*([] if line is None else [line]), *spending_lines(self._spending())]

    def _duties(self) -> list[Duty]:
        since = [float("-inf"), _end_before(self.experiments, NUM_RECENT)]
        return _sums(stretches(self.experiments), since)

    def _spending(self) -> Spending:
        return spending(
            self.experiments, self.usage, target=self.target, budget_usd=self.budget_usd, summary=self.summary
        )


class Stretch(NamedTuple):
    """A stretch of time that went to one thing."""

    kind: str  # of KINDS
    start: float  # seconds since the epoch
    end: float


@dataclass(frozen=True, kw_only=True)
class Duty:
    """Sums over some stretches."""

    seconds: Mapping[str, float]  # by kind, without those that did not occur
    paused_seconds: float  # not among them

    @property
    def total_seconds(self) -> float:
        """All time except pauses."""
        return sum(self.seconds.values())

    def share(self, kind: str = "train") -> float | None:
        """Share of the total. That includes unknown time: the true share may be higher. None if all is unknown."""
        if self.total_seconds <= self.seconds.get("unknown", 0.0):
            return None
        return self.seconds.get(kind, 0.0) / self.total_seconds


def duty(experiments: Sequence[Experiment], *, last: int | None = None) -> Duty:
    """Sum up a campaign, or one experiment of it: then without the time in which it was proposed.

    Args:
        experiments: in the order of their numbers.
        last: count only this many closed experiments at the end, each with the stretch before it; all if there are
            fewer.
    """
    (found,) = _sums(stretches(experiments), [float("-inf") if last is None else _end_before(experiments, last)])
    return found


def stretches(experiments: Sequence[Experiment]) -> Iterator[Stretch]:
    """Cut the time from the first to the last moment in the ledger wherever something began or ended."""
    rank = {kind: number for number, kind in enumerate(KINDS)}
    kinds: list[int] = []
    times: list[float] = []  # start and end of each span in turn
    for one in experiments:
        for kind, start, end in _spans(one):
            if start < end:
                kinds.append(rank[kind])
                times += (start, end)
    if not kinds:
        return
    kinds.append(rank["propose"])  # whatever no other span covers
    times += (min(times), max(times))
    # An experiment whose start is missing may lie anywhere between the others.
    between = "propose" if all(parse_time(one.started_at) is not None for one in experiments) else "unknown"
    names = (*KINDS[:-1], between)
    running = [0] * len(KINDS)  # spans, by kind
    changes: dict[float, list[tuple[int, int]]] = defaultdict(list)  # by moment: kind, and one span more or less
    for place, begin, finish in zip(kinds, times[::2], times[1::2], strict=True):
        changes[begin].append((place, 1))
        changes[finish].append((place, -1))
    for begin, finish in pairwise(sorted(changes)):
        for place, change in changes[begin]:
            running[place] += change
        first = next(place for place, number in enumerate(running) if number)
        yield Stretch(names[first], begin, finish)


def duty_line(whole: Duty, recent: Duty | None, name: str) -> str | None:
    """Describe the hours for people: `GPU duty 93% (last 10: 95%) of 7 h 58 min; …`. None when no time has passed.

    Args:
        whole: of a night or of an experiment.
        recent: of its last experiments, if these are fewer.
        name: what duty is called here, see `duty_name`.
    """
    if not whole.total_seconds:
        return None
    share, recent_share = whole.share(), None if recent is None else recent.share()
    if share is None:
        return f"{name} unknown: the ledger has no times"
    least = "at least " if whole.seconds.get("unknown") else ""
    latest = "" if recent_share is None else f" (last {NUM_RECENT}: {recent_share:.0%})"
    rest = ", ".join(
        f"{kind} {seconds / whole.total_seconds:.0%}"
        for kind, seconds in sorted(whole.seconds.items(), key=lambda item: -item[1])
        if kind != "train"
    )
    paused = f"; pauses of {duration(whole.paused_seconds)} left out" if whole.paused_seconds else ""
    rest = f"; {rest}" if rest else ""
    return f"{name} {least}{share:.0%}{latest} of {duration(whole.total_seconds)}{rest}{paused}"


def duty_name(profile: str | None) -> str:
    """Return what the share of time in training is called under a profile."""
    return "GPU duty" if profile == "cuda" else "training duty"


def duration(seconds: float) -> str:
    """Format a duration: `95 s`, `42 min`, `7 h 58 min`."""
    minutes = round(seconds / 60)
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _sums(found: Iterable[Stretch], since: Sequence[float]) -> list[Duty]:
    """Sum up the stretches from each of some moments on."""
    seconds: list[defaultdict[str, float]] = [defaultdict(float) for _ in since]
    for kind, start, end in found:
        name = "pause" if end - start > PAUSE_SECONDS and kind not in _RUNNING.values() else kind
        for sums, begin in zip(seconds, since, strict=True):
            if start >= begin:
                sums[name] += end - start
    return [Duty(paused_seconds=sums.pop("pause", 0.0), seconds=dict(sums)) for sums in seconds]


def _end_before(experiments: Sequence[Experiment], last: int) -> float:
    """Return when the last experiment before the `last` closed ones ended."""
    earlier = [one for one in experiments if one.verdict is not None][:-last]
    ends = (end for one in earlier if (end := parse_time(one.ended_at)) is not None)
    return max(ends, default=float("-inf"))


def _spans(experiment: Experiment) -> Iterator[tuple[str, float, float]]:
    """List what is known of an experiment; spans may overlap, the first of KINDS wins."""
    opened = parse_time(experiment.started_at)
    if opened is None:
        return
    closed = parse_time(experiment.ended_at)
    runs = [(_kind(run), parse_time(run.opened_at), parse_time(run.closed_at)) for run in experiment.runs]
    # An open experiment is known as far as its last run; a run in progress has no end yet.
    end = closed if closed is not None else max((end for _, _, end in runs if end is not None), default=opened)
    if (closed is None and experiment.verdict is not None) or any(
        start is None or stop is None for _, start, stop in runs
    ):
        yield ("unknown", opened, end)
    first = min((start for _, start, _ in runs if start is not None), default=end)
    yield ("build", opened, first)
    yield ("other", first, end)
    controls = [(_kind(run), parse_time(run.opened_at), parse_time(run.closed_at)) for run in experiment.controls]
    for kind, start, stop in (*runs, *controls):
        if start is not None and stop is not None:
            yield (kind, start, stop)


def _kind(run: RunRecord) -> str:
    # The end of a lost run was recorded when it was missed, perhaps the next morning.
    return "unknown" if run.end is RunEnd.LOST else _RUNNING[run.phase]


@dataclass(frozen=True, kw_only=True)
class Spending:
    """The cost of the language model, the gain that it bought, and what the rest will cost at this rate.

    A figure that cannot be computed yet is None: nothing kept, nothing gained, nothing closed.
    """

    total_usd: float  # everything, including conversations that led to no experiment
    per_experiment_usd: float | None  # total / closed experiments, the baseline not counted
    per_keep_usd: float | None
    per_millibit_usd: float | None  # total / (gain over the baseline in 0.001 bpb)
    recent_usd: float | None  # mean of the last closed experiments, their own conversations only
    projected_usd: float | None  # total + recent * (target - closed); abandoned conversations not foreseen
    target: int
    budget_usd: float | None  # None: not known, or no limit
    affordable: int | None  # experiments that the rest of the budget pays for at the recent rate
    cached_share: float | None  # of the tokens of all prompts, those that were read from the cache
    usage: UsageTotals


def spending(
    experiments: Sequence[Experiment],
    usage: UsageTotals,
    *,
    target: int,
    budget_usd: float | None,
    summary: Summary | None = None,
) -> Spending:
    """Compute what a campaign cost.

    Args:
        experiments: of the campaign, in the order of their numbers.
        usage: of the whole campaign.
        target: how many experiments are wanted in all.
        budget_usd: 0: no limit; None: not known.
        summary: of the campaign, where only its newest experiments are given.
    """
    night = summary or summarize(experiments)
    num_closed = night.num_experiments
    closed = [one for one in experiments if one.verdict is not None and one.number != BASELINE]
    last = closed[-NUM_RECENT:]
    target = max(target, num_closed)  # `try` goes beyond it
    rate = sum(one.cost_usd for one in last) / len(last) if last else None
    budget = budget_usd or None  # 0 is no limit
    gain = None
    if night.baseline_bpb is not None and night.best_bpb is not None:
        gain = night.baseline_bpb - night.best_bpb
    prompts = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return Spending(
        total_usd=usage.cost_usd,
        per_experiment_usd=usage.cost_usd / num_closed if num_closed else None,
        per_keep_usd=usage.cost_usd / night.counts[Verdict.KEEP] if night.counts[Verdict.KEEP] else None,
        per_millibit_usd=usage.cost_usd / (1000 * gain) if gain is not None and gain > 0 else None,
        recent_usd=rate,
        projected_usd=None if rate is None else usage.cost_usd + rate * max(0, target - num_closed),
        target=target,
        budget_usd=budget,
        affordable=int(max(0.0, budget - usage.cost_usd) / rate) if budget and rate else None,
        cached_share=usage.cache_read_tokens / prompts if prompts else None,
        usage=usage,
    )


def spending_lines(spent: Spending) -> list[str]:
    """Describe the spending for people; no lines if no model was asked."""
    usage = spent.usage
    if not usage.num_responses:
        return []
    prices = [
        f"${value:.3f} per {unit}"
        for value, unit in (
            (spent.per_experiment_usd, "experiment"),
            (spent.per_keep_usd, "keep"),
            (spent.per_millibit_usd, "0.001 bpb gained"),
        )
        if value is not None
    ]
    cached = "" if spent.cached_share is None else f" ({spent.cached_share:.0%} of all prompts)"
    lines = [
        ": ".join([f"spent ${spent.total_usd:,.2f}", *([", ".join(prices)] if prices else [])]),
        f"tokens: {tokens(usage.input_tokens)} input, {tokens(usage.output_tokens)} output, "
        f"{tokens(usage.cache_read_tokens)} read from the cache{cached}, "
        f"{tokens(usage.cache_write_tokens)} written to it",
    ]
    budget = "" if spent.budget_usd is None else f"the budget is ${spent.budget_usd:,.2f}"
    if spent.projected_usd is None or not spent.recent_usd:
        return [*lines, budget] if budget else lines
    if spent.affordable is not None:
        budget = f"; {budget}, enough for about {spent.affordable:,} more"
    total = f"about ${spent.projected_usd:,.2f} for all {spent.target:,} experiments"
    return [*lines, f"at the current rate {total}{budget}"]


def tokens(count: int) -> str:
    """Format a number of tokens to three digits: 950, 12.3 k, 4.56 M."""
    if count < 1000:
        return str(count)
    value, unit = (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
