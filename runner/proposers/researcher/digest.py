"""The ledger as a language model reads it: the experiments so far, their effects, crashes and open directions.

It stays below `MAX_TOKENS` however long the night is: each section has its share of the room, and the experiments
beyond it are only counted; `read_experiments` shows them. The same history gives the same text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from runner.decision import history as lineage
from runner.proposers.researcher.outcome import category_of, counted, effect_of, lesson_of, ruling_of
from runner.proposers.researcher.submit_tool import CATEGORIES
from runner.records import Experiment, Verdict
from runner.untrusted import prompt_line

MAX_TOKENS = 8_000
CHARACTERS_PER_TOKEN = 3
"""Such text has more, so the bound errs on the safe side; `bench/digest.py` measures it."""
HYPOTHESIS_CHARACTERS = 240
SHORT_CHARACTERS = 120
"""Of a hypothesis in a long list."""
MAX_NUMBERS = 20
"""Edits of the tip that are listed by number."""
RARE = 0.05
"""A category with a smaller share of the experiments is an open direction."""
ORDER = (Verdict.ACCEPT, Verdict.DISCARD, Verdict.CRASH, Verdict.INVALID)


def digest(
    history: Sequence[Experiment], *, running: Experiment | None = None, max_tokens: int = MAX_TOKENS
) -> str:
    """Summarize a ledger.

    Experiments that our own infrastructure spoiled are left out: they say nothing about their idea.

    Args:
        history: closed experiments, oldest first, the baseline included.
        running: the experiment in progress.
        max_tokens: upper bound of the result.
    """
    room = max_tokens * CHARACTERS_PER_TOKEN
    tried = [one for one in history if one.verdict is not None and one.verdict is not Verdict.INFRA and one.number]
    newest = tried[::-1]
    certificates = [one for one in newest if one.is_certificate]
    newest = [one for one in newest if not one.is_certificate]
    by_category: dict[str, list[Experiment]] = defaultdict(list)
    for one in newest:
        by_category[category_of(one) or "without a category"].append(one)

    def ended(verdict: Verdict) -> list[Experiment]:
        return [one for one in newest if one.verdict is verdict]

    rulings = lineage.rulings(history)

    def accepted(one: Experiment) -> str:
        return f"{_line(one)}; {ruling_of(rulings.get(one.number))}"

    parts = [
        _standing(history, newest),
        "" if running is None else f"Running now, verdict unknown:\n{_line(running)}",
        _section("Certificates, tip against champion, newest first", certificates, _line, room * 12 // 100),
        _section("Accepted onto the tip, newest first", ended(Verdict.ACCEPT), accepted, room * 28 // 100),
        *_categories(by_category, room * 30 // 100),
        _section("Crashed, newest first", ended(Verdict.CRASH), _line, room * 14 // 100),
        _section("Refused or invalid, newest first", ended(Verdict.INVALID), _line, room * 6 // 100),
        _open_directions(by_category, len(newest)),
    ]
    return "\n\n".join(part for part in parts if part)


def _standing(history: Sequence[Experiment], tried: Sequence[Experiment]) -> str:
    champions = [
        one for one in history if one.val_bpb is not None and (one.number == 0 or one.verdict is Verdict.KEEP)
    ]
    counts = ", ".join(f"{sum(one.verdict is verdict for one in tried)} {verdict}" for verdict in ORDER)
    lines = [f"{len(tried)} ideas so far: {counts}." if tried else "No ideas so far."]
    if champions:
        first, best = champions[0], champions[-1]
        lines.append(f"Baseline #{first.number}: val_bpb {first.val_bpb:.6f}.")
        if best is not first:
            lines.append(f"Champion #{best.number}: val_bpb {best.val_bpb:.6f}.")
        else:
            lines.append("The baseline is the champion.")
        if edits := lineage.tip_edits(history):
            numbers = ", ".join(f"#{one.number}" for one in edits[-MAX_NUMBERS:])
            earlier = "" if len(edits) <= MAX_NUMBERS else "…, "
            count = counted(len(edits), "accepted edit")
            lines.append(f"The tip is the champion with {count} ({earlier}{numbers}), not certified yet.")
        else:
            lines.append("The tip is the champion: no edit is on it.")
    sigmas = [one.sigma_bpb for one in history if one.sigma_bpb is not None]
    if sigmas:
        lines.append(f"Noise σ (standard deviation of one run): {sigmas[-1]:.6f} bpb.")
    return " ".join(lines)


def _categories(by_category: dict[str, list[Experiment]], room: int) -> list[str]:
    """The discards by category."""
    discards = {
        name: [one for one in ones if one.verdict is Verdict.DISCARD] for name, ones in by_category.items()
    }
    total = sum(map(len, discards.values())) or 1
    sections = []

    def line(one: Experiment) -> str:
        return _line(one, SHORT_CHARACTERS)

    for name in sorted(by_category, key=lambda name: (-len(by_category[name]), name)):
        ones = by_category[name]
        accepted = sum(one.verdict is Verdict.ACCEPT for one in ones)
        crashed = sum(one.verdict is Verdict.CRASH for one in ones)
        deltas = [one.delta_bpb for one in ones if one.delta_bpb is not None]
        title = f"{name}: {len(ones)} tried, {accepted} accepted, {crashed} crashed"
        if deltas:
            title += f", best {min(deltas):+.6f} bpb"
        share = max(room * len(discards[name]) // total, room // (4 * len(by_category)))
        sections.append(_section(title, discards[name], line, share, always=True))
    return sections


def _open_directions(by_category: dict[str, list[Experiment]], total: int) -> str:
    rare = [
        f"{name} ({len(by_category.get(name, ()))} tried)"
        for name in CATEGORIES
        if len(by_category.get(name, ())) <= RARE * total
    ]
    return f"Open directions, never or rarely tried: {', '.join(rare)}." if rare else ""


def _section(
    title: str, ones: Sequence[Experiment], line: Callable[[Experiment], str], room: int, *, always: bool = False
) -> str:
    """Title and lines as far as there is room; only lines that fit, and one more, are made."""
    if not ones and not always:
        return ""
    shown = [f"{title}:" if ones else f"{title}."]
    for position, one in enumerate(ones):
        text = line(one)
        room -= len(text) + 1
        if room < 0:
            shown.append(f"- and {len(ones) - position} more")
            break
        shown.append(text)
    return "\n".join(shown)


def _line(one: Experiment, hypothesis_characters: int = HYPOTHESIS_CHARACTERS) -> str:
    retry = None if one.retry_of is None else f"retry of #{one.retry_of}"
    facts = [fact for fact in (f"#{one.number}", effect_of(one), category_of(one), retry) if fact]
    line = f"- {', '.join(facts)}: {prompt_line(one.hypothesis, hypothesis_characters)}"
    lesson = lesson_of(one)
    return f"{line} → {lesson}" if lesson else line
