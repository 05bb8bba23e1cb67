"""Pauses of the controller that tests need not sit out, in one place for every process that a test starts."""

from __future__ import annotations

from importlib import import_module

PAUSES = {
    "runner.evaluation.audit.PAUSE_SECONDS": 0.05,
    "runner.campaign.measurement.FAULT_PAUSE_SECONDS": 0.05,
    "runner.sandbox.engine_outage.PAUSES_SECONDS": (0.05, 0.2, 0.5),
}
OF_SHARED_CORES = {"runner.evaluation.outcome.BUSY_SHARE": 1000.0}
"""A time limit that is missed on a test's core, which other work shares, is the program's fault here."""
OF_PROPOSERS = {
    "runner.proposers.llm.request_policy.FIRST_WAIT_SECONDS": 0.05,
    "runner.campaign.night.EMPTY_PAUSES_SECONDS": (0.0, 0.05, 0.05, 0.05, 0.05),
}
"""Only in processes of their own: unit tests ask for the real ones."""


def shorten(*, proposers: bool = False) -> None:
    """Set them in this process."""
    for path, seconds in {**PAUSES, **OF_SHARED_CORES, **(OF_PROPOSERS if proposers else {})}.items():
        module, _, name = path.rpartition(".")
        found = import_module(module)
        assert hasattr(found, name), f"{path} is gone"
        setattr(found, name, seconds)
