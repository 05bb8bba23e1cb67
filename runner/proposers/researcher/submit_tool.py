"""The tool that ends a conversation: the model submits its edits with a hypothesis and a prediction."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from runner.decision.keep_rule import SIMPLIFICATION
from runner.edits import Refusal
from runner.proposers.llm.chat import Tool
from runner.untrusted import prompt_text

NAME = "submit_experiment"
CATEGORIES = (
    "architecture",
    "optimizer",
    "schedule",
    "data_order",
    "initialization",
    "regularization",
    "systems",
    SIMPLIFICATION,
)
HYPOTHESIS_CHARACTERS = 1000
RISK_CHARACTERS = 300
MAX_DELETED = 50

TOOL = Tool(
    name=NAME,
    description="Submit your edits as the next experiment. This ends the conversation, unless the submission is "
    "refused: then correct it and submit again.",
    strict=True,
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["hypothesis", "category", "expected_delta_bpb", "probability", "risk", "delete"],
        "properties": {
            "hypothesis": {
                "type": "string",
                "description": "What you change and why it should lower val_bpb, in one to three sentences.",
            },
            "category": {"type": "string", "enum": list(CATEGORIES)},
            "expected_delta_bpb": {
                "type": "number",
                "description": "The change in val_bpb that you expect; negative is better.",
            },
            "probability": {
                "type": "number",
                "description": "The probability, from 0 to 1, that the experiment is accepted onto the tip.",
            },
            "risk": {"type": "string", "description": "The most likely way to fail, in one sentence."},
            "delete": {
                "type": "array",
                "items": {"type": "string"},
                "description": "Files to delete, as paths from the repository root (workload/…). Usually empty.",
            },
        },
    },
)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A well-formed call of the tool."""

    hypothesis: str
    category: str
    expected_delta_bpb: float
    probability: float
    risk: str
    delete: tuple[str, ...]


def read(submitted: object) -> Submission | Refusal:
    """Check the form of a call, since not every server enforces the schema."""
    if not isinstance(submitted, Mapping):
        return Refusal(reason="the input must be an object")
    hypothesis, category = submitted.get("hypothesis"), submitted.get("category")
    if not isinstance(hypothesis, str) or not prompt_text(hypothesis, HYPOTHESIS_CHARACTERS):
        return Refusal(reason="the hypothesis is missing")
    if category not in CATEGORIES:
        return Refusal(reason=f"the category must be one of: {', '.join(CATEGORIES)}")
    expected, probability = _number(submitted.get("expected_delta_bpb")), _number(submitted.get("probability"))
    if expected is None:
        return Refusal(reason="expected_delta_bpb must be a number")
    if probability is None or not 0 <= probability <= 1:
        return Refusal(reason="probability must be a number from 0 to 1")
    risk, delete = submitted.get("risk", ""), submitted.get("delete", [])
    if not isinstance(risk, str):
        return Refusal(reason="risk must be text")
    if not isinstance(delete, list) or not all(isinstance(path, str) for path in delete):
        return Refusal(reason="delete must be a list of paths")
    if len(delete) > MAX_DELETED:
        return Refusal(reason=f"at most {MAX_DELETED} files can be deleted at once")
    return Submission(
        hypothesis=prompt_text(hypothesis, HYPOTHESIS_CHARACTERS),
        category=str(category),
        expected_delta_bpb=expected,
        probability=probability,
        risk=prompt_text(risk, RISK_CHARACTERS),
        delete=tuple(delete),
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
