"""Specimens of the hostile corpus: a program, and the fate it must meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from textwrap import dedent
from typing import Any

from runner.records import RunEnd


class Fate(StrEnum):
    """What the sandbox does about it. Each is checked by a test of its own in `test_behaviors.py`."""

    KILLED = "it runs until its deadline, and ends then with all that it started"
    CONTAINED = "it meets a limit of its own container, and ends by that"
    DENIED = "what it wants is not done; it goes on without it"


@dataclass(frozen=True, kw_only=True)
class Behavior:
    """A training program in a container of its own."""

    name: str
    sentence: str
    fate: Fate
    train: str
    ends: frozenset[RunEnd] = frozenset({RunEnd.FINISHED})  # of training; DEADLINE for what is killed
    log: str = ""  # part of what it printed
    limit_seconds: float = 1.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None  # else that of `tiny_candidates`, which reads nothing of its checkpoint
    scored: bool | None = None  # whether what it left in the output is a checkpoint; None: nobody looks

    @property
    def files(self) -> dict[str, str]:
        """Its `workload/`, as far as it matters."""
        files = {"train.py": dedent(self.train).lstrip("\n")}
        if self.model is not None:
            files["model.py"] = dedent(self.model).lstrip("\n")
        return files


def killed(name: str, sentence: str, train: str, **more: Any) -> Behavior:
    """Killed at the deadline."""
    return Behavior(
        name=name, sentence=sentence, fate=Fate.KILLED, train=train, ends=frozenset({RunEnd.DEADLINE}), **more
    )


def contained(name: str, sentence: str, train: str, *ends: RunEnd, **more: Any) -> Behavior:
    """Ends by a limit, long before its deadline."""
    more.setdefault("limit_seconds", 30.0)
    return Behavior(name=name, sentence=sentence, fate=Fate.CONTAINED, train=train, ends=frozenset(ends), **more)


def denied(name: str, sentence: str, train: str, **more: Any) -> Behavior:
    """Finishes without what it wanted."""
    more.setdefault("limit_seconds", 30.0)
    return Behavior(name=name, sentence=sentence, fate=Fate.DENIED, train=train, **more)
