"""The tool that shows past experiments to the model: a filtered list, or a few of them in full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runner.edits import Refusal
from runner.proposers.llm.chat import Tool
from runner.proposers.researcher.outcome import REASON_CHARACTERS, category_of, effect_of
from runner.proposers.researcher.submit_tool import HYPOTHESIS_CHARACTERS
from runner.records import Experiment, Verdict
from runner.untrusted import fenced, prompt_line, prompt_text

STATUSES = ("any", "keep", "accept", "discard", "unclear", "crash", "invalid")
MAX_LISTED = 100
MAX_IN_FULL = 5
LINE_CHARACTERS = 400
DIFF_CHARACTERS = 12_000
LOG_CHARACTERS = 6_000
SHORT_CHARACTERS = 240
"""Of a hypothesis in the list."""

TOOL = Tool(
    name="read_experiments",
    description="Read past experiments. With numbers: these experiments in full, with diff, figures and the log "
    f"of a crash (at most {MAX_IN_FULL}). Without numbers: a list, newest first, filtered by status, by a file "
    "that was changed, and by category; 'any' or an empty string does not filter. accept lists edits "
    "that went onto the tip; keep, discard and unclear also list certificates of the tip.",
    strict=True,
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["numbers", "status", "file", "category", "limit"],
        "properties": {
            "numbers": {"type": "array", "items": {"type": "integer"}},
            "status": {"type": "string", "enum": list(STATUSES)},
            "file": {"type": "string", "description": "For example workload/optim.py"},
            "category": {"type": "string"},
            "limit": {"type": "integer", "description": f"Maximum length of the list, up to {MAX_LISTED}"},
        },
    },
)


def read(submitted: object, history: Sequence[Experiment]) -> str | Refusal:
    """Answer one call.

    Args:
        submitted: the input of the call: any JSON.
        history: closed experiments, oldest first, the baseline included.
    """
    if not isinstance(submitted, Mapping):
        return Refusal(reason="the input must be an object")
    numbers = submitted.get("numbers") or []
    if not isinstance(numbers, list) or not all(_is_number(number) for number in numbers):
        return Refusal(reason="numbers must be a list of experiment numbers")
    if numbers:
        return _in_full(numbers, history)
    status, file, category = (submitted.get(name) or "" for name in ("status", "file", "category"))
    if not all(isinstance(value, str) for value in (status, file, category)):
        return Refusal(reason="status, file and category must be strings")
    if status and status not in STATUSES:
        return Refusal(reason=f"status must be one of: {', '.join(STATUSES)}")
    limit = submitted.get("limit")
    if limit is not None and not _is_number(limit):
        return Refusal(reason="limit must be a number")
    # An experiment that our infrastructure spoiled says nothing about its idea.
    found = [one for one in history if one.verdict is not Verdict.INFRA]
    if status not in ("", "any"):
        found = [one for one in found if one.verdict == status]
    if file:
        found = [one for one in found if _touches(one, file)]
    if category not in ("", "any"):
        found = [one for one in found if one.category == category]
    return _listed(found, min(MAX_LISTED, max(1, limit or MAX_LISTED)))


def _is_number(value: object) -> bool:
    # Python refuses to print an integer with too many digits.
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**18


def _touches(experiment: Experiment, file: str) -> bool:
    path = file.strip().removeprefix("/").removeprefix("./")
    return any(
        line.startswith("diff --git ") and f" b/{path}" in line + " " and line.endswith(path)
        for line in experiment.diff.split("\n")
    )


def _listed(found: Sequence[Experiment], limit: int) -> str:
    if not found:
        return "No experiment matches."
    lines = [_line(one) for one in found[::-1][:limit]]
    if len(found) > limit:
        lines.append(f"and {len(found) - limit} more")
    return fenced("history", "\n".join(lines))


def _line(one: Experiment) -> str:
    facts = [f"#{one.number}", str(one.verdict), *_figures(one)]
    if (category := category_of(one)) is not None:
        facts.append(category)
    text = f"{', '.join(facts)}: {prompt_line(one.hypothesis, SHORT_CHARACTERS)}"
    if one.reason:
        text += f" → {prompt_line(one.reason, REASON_CHARACTERS)}"
    return text[:LINE_CHARACTERS]


def _figures(one: Experiment) -> list[str]:
    figures = []
    if one.val_bpb is not None:
        figures.append(f"val_bpb {one.val_bpb:.6f}")
    if (effect := effect_of(one)) is not None:
        figures.append(f"{effect} against #{one.parent}")
    return figures


def _in_full(numbers: Sequence[int], history: Sequence[Experiment]) -> str | Refusal:
    if len(numbers) > MAX_IN_FULL:
        return Refusal(reason=f"at most {MAX_IN_FULL} experiments can be read in full at once")
    by_number = {one.number: one for one in history}
    unknown = [number for number in numbers if number not in by_number]
    if unknown:
        last = max(by_number, default=0)
        return Refusal(reason=f"there is no experiment {unknown[0]}; their numbers are 0 to {last}")
    return "\n\n".join(_shown(by_number[number]) for number in dict.fromkeys(numbers))


def _shown(one: Experiment) -> str:
    facts = ", ".join([f"Experiment {one.number}: {one.verdict}", *_figures(one)])
    parts = [facts + (f". {prompt_line(one.reason, 400)}" if one.reason else ".")]
    parts.append(fenced("hypothesis", prompt_text(one.hypothesis, HYPOTHESIS_CHARACTERS)))
    if one.diff:
        parts.append(fenced("diff", prompt_text(one.diff, DIFF_CHARACTERS)))
    if one.verdict is Verdict.CRASH and one.log_tail:
        parts.append(fenced("log", prompt_text(one.log_tail[-LOG_CHARACTERS:], LOG_CHARACTERS)))
    return "\n".join(parts)
