"""Nights without an engine in which every candidate is built and discarded at once."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

from runner.campaign import measurement, night
from runner.decision.memory import Memory
from runner.evaluation import evaluator
from runner.records import Outcome, Trial


class NoTraining:
    """A running trial of a program that is stopped at once."""

    def __init__(self, seed):
        self.seed = seed

    def claim(self):
        return Trial(seed=self.seed, outcome=Outcome.STOPPED, reason="scripted")


def discard_everything(monkeypatch):
    """Build nothing, train nothing, wait for nothing."""
    built = SimpleNamespace(id="i", layer_digest="l")
    monkeypatch.setattr(
        measurement, "open_trial", lambda _evaluator, request, *_: nullcontext(NoTraining(request.seed))
    )
    monkeypatch.setattr(evaluator.images, "find_candidate", lambda *_, **__: None)
    monkeypatch.setattr(evaluator.images, "build_candidate", lambda *_, **__: built)
    monkeypatch.setattr(measurement, "check_engine_identity", lambda *_: None)
    monkeypatch.setattr(night, "await_engine", lambda *_, **__: None)
    monkeypatch.setattr(night, "EMPTY_PAUSES_SECONDS", (0.0,) * 5)
    monkeypatch.setattr(Memory, "control_due", lambda *_: False)
