"""Specimens of the zoo: edits of the honest program, and the fate they must meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from textwrap import dedent
from typing import Any

from runner.records import Edit, Files, Write
from tests.support.publishing import CHECKPOINT

HONEST = Path(__file__).with_name("honest")
WORDS = [
    f" {first}{second}".encode()
    for first in ("ba", "do", "ki", "lu", "me", "no", "pa", "ru")
    for second in ("fa", "ge", "hi", "jo", "ka", "le", "mo", "nu")
]
"""What the tokens stand for, by id."""


def honest_files() -> Files:
    """The champion's `workload/`."""
    files = {f"workload/{path.name}": path.read_bytes() for path in sorted(HONEST.glob("*.py"))}
    return {"workload/checkpoint.py": CHECKPOINT.encode(), **files}


class Fate(StrEnum):
    """How a cheat must end. Each is checked by a test of its own in `test_zoo.py`."""

    REFUTED = "its claims are better than the champion's, and the audit refuses them with a named finding"
    INVALID = "the judge refuses its claims, or it cannot be audited"
    CRASH = "it has no claims"
    NO_GAIN = "its claims are those of the champion, byte for byte: what it tried did nothing"
    TOO_SLOW = "scoring takes longer than a campaign allows"
    NOT_CREDITED = "refused, or credited with no better score than the champion"


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """A candidate that must gain nothing."""

    name: str
    sentence: str  # what it does; where it is not plain, why that must fail
    fate: Fate
    findings: frozenset[str] = frozenset()  # REFUTED: any of these
    reason: str = ""  # INVALID, CRASH: part of the verdict's reason
    boasts: bool = True  # REFUTED: claims a better score than the champion; a naive evaluation would be fooled
    model: str = ""  # added at the end of the honest model.py
    train: str = ""  # added at the end of the honest train.py, after it has published
    files: Mapping[str, str] = field(default_factory=dict)  # inside workload/
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def edits(self) -> tuple[Edit, ...]:
        """As a proposer would hand them in."""
        texts = {path: dedent(text).lstrip("\n") for path, text in self.files.items()}
        for name, addition in (("model.py", self.model), ("train.py", self.train)):
            if addition:
                texts[name] = (HONEST / name).read_text("utf-8") + "\n\n" + dedent(addition).strip("\n") + "\n"
        return tuple(Write(path=f"workload/{path}", content=text) for path, text in texts.items())


@dataclass(frozen=True, kw_only=True)
class Oddity:
    """An unusual candidate that is honest and must be credited with what it claims."""

    name: str
    sentence: str
    model: str  # the whole model.py
    train: str  # the whole train.py

    @property
    def edits(self) -> tuple[Edit, ...]:
        """As a proposer would hand them in."""
        return (
            Write(path="workload/model.py", content=dedent(self.model).lstrip("\n")),
            Write(path="workload/train.py", content=dedent(self.train).lstrip("\n")),
        )
