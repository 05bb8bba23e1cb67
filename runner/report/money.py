"""What a campaign's language model cost, what it bought, and what the rest will cost at this rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.records import Experiment, UsageTotals, Verdict
from runner.report.summary import BASELINE, sum_up

NUM_LAST = 10


@dataclass(frozen=True, kw_only=True)
class Money:
    """Figures in USD. What cannot be told yet is None: nothing kept, nothing gained, nothing closed."""

    spent: float  # on everything, conversations without an experiment included
    per_experiment: float | None  # spent / closed experiments, the baseline not counted
    per_keep: float | None
    per_millibit: float | None  # spent / (gain over the baseline in 0.001 bpb)
    last_experiments: float | None  # mean of the last closed ones, their own conversations only
    projected: float | None  # spent + last_experiments * (target - closed); abandoned conversations not foreseen
    target: int
    budget: float | None  # None: not known, or no limit
    left_in_budget: int | None  # experiments that the rest of the budget pays at the rate of the last ones
    cached_share: float | None  # of the tokens of all prompts, those that were read from the cache
    usage: UsageTotals


def count_money(
    experiments: Sequence[Experiment], usage: UsageTotals, *, target: int, budget_usd: float | None
) -> Money:
    """Put the figures together.

    Args:
        experiments: of the campaign, in the order of their numbers.
        usage: of the whole campaign.
        target: how many experiments are wanted in all.
        budget_usd: 0: no limit; None: not known.
    """
    night = sum_up(experiments)
    closed = [one for one in experiments if one.verdict is not None and one.number != BASELINE]
    last = closed[-NUM_LAST:]
    rate = sum(one.cost_usd for one in last) / len(last) if last else None
    budget = budget_usd or None  # 0 is no limit
    gain = None
    if night.baseline_bpb is not None and night.best_bpb is not None:
        gain = night.baseline_bpb - night.best_bpb
    prompts = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return Money(
        spent=usage.cost_usd,
        per_experiment=usage.cost_usd / len(closed) if closed else None,
        per_keep=usage.cost_usd / night.counts[Verdict.KEEP] if night.counts[Verdict.KEEP] else None,
        per_millibit=usage.cost_usd / (1000 * gain) if gain is not None and gain > 0 else None,
        last_experiments=rate,
        projected=None if rate is None else usage.cost_usd + rate * max(0, target - len(closed)),
        target=target,
        budget=budget,
        left_in_budget=int(max(0.0, budget - usage.cost_usd) / rate) if budget and rate else None,
        cached_share=usage.cache_read_tokens / prompts if prompts else None,
        usage=usage,
    )


def money_lines(money: Money) -> list[str]:
    """For people; nothing when no model was asked."""
    usage = money.usage
    if not usage.num_responses:
        return []
    prices = [
        f"${value:.3f} per {what}"
        for value, what in (
            (money.per_experiment, "experiment"),
            (money.per_keep, "keep"),
            (money.per_millibit, "0.001 bpb gained"),
        )
        if value is not None
    ]
    cached = "" if money.cached_share is None else f" ({100 * money.cached_share:.0f} % of all prompts)"
    lines = [
        ": ".join([f"spent ${money.spent:,.2f}", *([", ".join(prices)] if prices else [])]),
        f"tokens: {tokens(usage.input_tokens)} input, {tokens(usage.output_tokens)} output, "
        f"{tokens(usage.cache_read_tokens)} read from the cache{cached}, "
        f"{tokens(usage.cache_write_tokens)} written to it",
    ]
    budget = "" if money.budget is None else f"the budget is ${money.budget:,.2f}"
    if money.projected is None or not money.last_experiments:
        return [*lines, budget] if budget else lines
    if money.left_in_budget is not None:
        budget = f"; {budget}, enough for about {money.left_in_budget:,} more"
    lines.append(f"at this rate about ${money.projected:,.2f} after all {money.target:,} experiments{budget}")
    return lines


def tokens(count: int) -> str:
    """A number of tokens, to three digits: 950, 12.3 k, 4.56 M."""
    if count < 1000:
        return str(count)
    value, unit = (count / 1e3, "k") if count < 999_500 else (count / 1e6, "M")
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
