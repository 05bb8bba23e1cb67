"""Check that our engine answers, and wait for it while it does not.

An engine that restarts says nothing about an idea, so no model should be asked, and paid, for the next one
meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from runner.errors import EngineAwayError, EngineError, Interrupted
from runner.sandbox.engine import Engine, engine_errors

log = structlog.get_logger()

PATIENCE_SECONDS = 600.0
"""Longest outage before the night ends: an upgrade of the package takes a minute, a person takes longer."""
PAUSES_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Pauses between attempts; the last one repeats."""


def check_engine_identity(engine: Engine) -> None:
    """Check that the engine which answers at the socket is the one we connected to.

    Raises:
        EngineError: no engine answers, or another one does.
    """
    engine.client.close()  # its idle connections: one may lead to an engine that was here in between
    client = engine.quick_client()
    try:
        with engine_errors("asking the engine for its id"):
            info = client.info()
            found = info["ID"], info["DockerRootDir"]
    finally:
        client.close()
    ours = engine.daemon_id, engine.data_root
    if found != ours:
        theirs, ours_named = " in ".join(found), " in ".join(ours)
        raise EngineError(f"another Docker engine ({theirs}) answers at {engine.url}, ours was {ours_named}")


def await_engine(
    engine: Engine,
    *,
    note: Callable[[str], None],
    stopping: Callable[[], bool],
    patience_seconds: float | None = None,
) -> None:
    """Wait until our engine answers.

    Args:
        note: called with one message when the wait begins, and with one when the engine is back.
        stopping: whether the user asked to stop.
        patience_seconds: longest wait; `PATIENCE_SECONDS` when absent.

    Raises:
        EngineAwayError: it did not answer in time.
        Interrupted: `stopping()` became true during the wait.
    """
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    began = time.monotonic()
    attempts = 0
    while True:
        try:
            check_engine_identity(engine)
        except EngineError as error:
            reason = error.message
        else:
            if attempts:
                note("the Docker engine is back")
                log.info("engine_back", seconds=round(time.monotonic() - began, 1))
            return
        if not attempts:
            note(f"{reason}; waiting up to {patience / 60:g} minutes for the engine")
            log.warning("engine_away", reason=reason)
        pause_ends = time.monotonic() + PAUSES_SECONDS[min(attempts, len(PAUSES_SECONDS) - 1)]
        attempts += 1
        while time.monotonic() < pause_ends:
            if stopping():
                raise Interrupted(
                    "stopped while the Docker engine was away", "run the same command again to continue"
                )
            if time.monotonic() - began > patience:
                raise EngineAwayError(
                    f"the Docker engine stayed away for {patience / 60:g} minutes: {reason}",
                    "make engine, then start again: nothing is lost",
                )
            time.sleep(0.2)
