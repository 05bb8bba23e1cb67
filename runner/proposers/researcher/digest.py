"""The ledger as a language model reads it: what was tried, what it gave, what crashed and why, what is open.

It stays below `MAX_TOKENS`, however long the night is: each section has its share of the room, and where that
ends the rest is counted only; `read_experiments` shows it. The same history gives the same words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from runner.decision.history import is_near_miss, stack_of
from runner.decision.keep_rule import AS_GOOD
from runner.proposers.researcher.plateau import near_misses
from runner.proposers.researcher.submit_tool import CATEGORIES
from runner.records import Experiment, Verdict
from runner.untrusted import prompt_line

MAX_TOKENS = 8_000
CHARACTERS_PER_TOKEN = 3
"""Text like this has more, so that the budget errs safely; `bench/digest.py` measures it."""
HYPOTHESIS_CHARACTERS = 240
SHORT_CHARACTERS = 120
"""Of a hypothesis in a long list."""
REASON_CHARACTERS = 160
CATEGORY_CHARACTERS = 40
RARE = 0.05
"""A category with a smaller share of the experiments is an open direction."""
HURTS = 0.05
"""Below this probability of an improvement an edit did harm."""


def digest(
    history: Sequence[Experiment], *, running: Experiment | None = None, max_tokens: int = MAX_TOKENS
) -> str:
    """Summarise a ledger.

    Experiments that our own infrastructure spoiled are left out: they say nothing about their idea.

    Args:
        history: closed experiments, oldest first, the baseline included.
        running: the one that is measured now.
        max_tokens: of the result, at most.
    """
    room = max_tokens * CHARACTERS_PER_TOKEN
    tried = [one for one in history if one.verdict is not None and one.verdict is not Verdict.INFRA and one.number]
    near = near_misses(tried)
    missed = {one.number for one in near}
    stacks = stack_of(history if running is None else (*history, running))
    by_category: dict[str, list[Experiment]] = defaultdict(list)
    for one in reversed(tried):
        by_category[_category(one)].append(one)
    parts = [
        _standing(history, tried),
        "" if running is None else f"Running now, verdict unknown:\n{_line(running, stacks)}",
        _section(
            "Kept: the champion's lineage, newest first (each against the champion before it)",
            [_line(one, stacks) for one in reversed(tried) if one.verdict is Verdict.KEEP],
            room * 22 // 100,
        ),
        _section("Near misses, best first", [_line(one, stacks) for one in near], room * 18 // 100),
        *_categories(by_category, missed, stacks, room * 30 // 100),
        _section(
            "Crashed, newest first",
            [_line(one, stacks) for one in reversed(tried) if one.verdict is Verdict.CRASH],
            room * 14 // 100,
        ),
        _section(
            "Refused or invalid, newest first",
            [_line(one, stacks) for one in reversed(tried) if one.verdict is Verdict.INVALID],
            room * 6 // 100,
        ),
        _open_directions(by_category, len(tried)),
    ]
    return "\n\n".join(part for part in parts if part)


def _standing(history: Sequence[Experiment], tried: Sequence[Experiment]) -> str:
    champions = [
        one for one in history if one.val_bpb is not None and (one.number == 0 or one.verdict is Verdict.KEEP)
    ]
    counts = ", ".join(f"{sum(one.verdict is verdict for one in tried)} {verdict}" for verdict in _ORDER)
    lines = [f"{len(tried)} experiments so far: {counts}." if tried else "No experiments so far."]
    if champions:
        first, best = champions[0], champions[-1]
        lines.append(f"Baseline #{first.number}: val_bpb {first.val_bpb:.6f}.")
        if best is not first:
            lines.append(f"Champion #{best.number}: val_bpb {best.val_bpb:.6f}.")
        else:
            lines.append("The baseline is the champion.")
    sigmas = [one.sigma_bpb for one in history if one.sigma_bpb is not None]
    if sigmas:
        lines.append(f"Noise σ (standard deviation of one measurement): {sigmas[-1]:.6f} bpb.")
    return " ".join(lines)


_ORDER = (Verdict.KEEP, Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID)


def _categories(
    by_category: dict[str, list[Experiment]], missed: set[int], stacks: Mapping[int, int], room: int
) -> list[str]:
    """What was thrown away, by category; near misses stand elsewhere."""
    listed = {name: [one for one in ones if _plain_discard(one, missed)] for name, ones in by_category.items()}
    sections = []
    for name in sorted(by_category, key=lambda name: (-len(by_category[name]), name)):
        ones = by_category[name]
        kept = sum(one.verdict is Verdict.KEEP for one in ones)
        crashed = sum(one.verdict is Verdict.CRASH for one in ones)
        deltas = [one.delta_bpb for one in ones if one.delta_bpb is not None]
        title = f"{name}: {len(ones)} tried, {kept} kept, {crashed} crashed"
        if deltas:
            title += f", best {min(deltas):+.6f} bpb"
        lines = [_line(one, stacks, SHORT_CHARACTERS) for one in listed[name]]
        total = sum(map(len, listed.values())) or 1
        share = max(room * len(lines) // total, room // (4 * len(by_category)))
        sections.append(_section(title, lines, share, always=True))
    return sections


def _is_stopped(one: Experiment) -> bool:
    return one.verdict is Verdict.DISCARD and one.val_bpb is None


def _plain_discard(one: Experiment, missed: set[int]) -> bool:
    return one.verdict is Verdict.DISCARD and one.number not in missed


def _open_directions(by_category: dict[str, list[Experiment]], total: int) -> str:
    rare = [
        f"{name} ({len(by_category.get(name, ()))} tried)"
        for name in CATEGORIES
        if len(by_category.get(name, ())) <= RARE * total
    ]
    return f"Open directions, never or rarely tried: {', '.join(rare)}." if rare else ""


def _section(title: str, lines: Sequence[str], room: int, *, always: bool = False) -> str:
    if not lines and not always:
        return ""
    shown = [f"{title}:" if lines else f"{title}."]
    for position, line in enumerate(lines):
        room -= len(line) + 1
        if room < 0:
            shown.append(f"- and {len(lines) - position} more")
            break
        shown.append(line)
    return "\n".join(shown)


def _category(one: Experiment) -> str:
    return prompt_line(one.category, CATEGORY_CHARACTERS) if one.category else "without a category"


def _line(one: Experiment, stacks: Mapping[int, int], hypothesis_characters: int = HYPOTHESIS_CHARACTERS) -> str:
    facts = [f"#{one.number}"]
    if one.delta_bpb is not None:
        effect = f"{one.delta_bpb:+.6f} bpb"
        if (known := one.figures) is not None:
            runs = "1 run" if len(known.trials) == 1 else f"{len(known.trials)} runs"
            effect = f"{one.delta_bpb:+.6f} ± {known.se_bpb:.6f} bpb ({runs}, {known.better:.0%} sure to help)"
        elif one.sigma_bpb:
            effect += f" ({one.delta_bpb / one.sigma_bpb:+.1f}σ)"
        facts.append(effect)
    if one.category is not None:
        facts.append(_category(one))
    if one.retry_of is not None:
        facts.append(f"second try of #{one.retry_of}")
    line = f"- {', '.join(facts)}: {prompt_line(one.hypothesis, hypothesis_characters)}"
    lesson = _lesson(one, stacks)
    return f"{line} → {lesson}" if lesson else line


def _lesson(one: Experiment, stacks: Mapping[int, int]) -> str:
    """What an experiment teaches, in a few words; nothing where nobody knows.

    Args:
        stacks: of near misses that were tried again together, by number: the experiment that did.
    """
    # A discard without a figure was stopped early, for what its reason says.
    if one.verdict in (Verdict.CRASH, Verdict.INVALID) or _is_stopped(one):
        return prompt_line(one.reason or "", REASON_CHARACTERS)
    if one.figures is None:
        return ""
    if one.verdict is Verdict.KEEP:
        return "as good, and simpler" if (one.reason or "").startswith(AS_GOOD) else "helps"
    if one.number in stacks:
        return f"may help a little: tried again in #{stacks[one.number]}"
    if is_near_miss(one):
        return "may help a little"
    return "hurts" if one.figures.better < HURTS else "no effect that shows"
