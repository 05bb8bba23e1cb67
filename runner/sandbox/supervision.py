"""Supervision of one container: the reports of its PID 1, and the host's own deadline."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

import docker
import requests
from docker.api.client import APIClient

from runner.errors import EngineError
from runner.records import Phase, RunEnd, RunRecord
from runner.sandbox.engine import NONSENSE, Engine
from runner.sandbox.kernel_limits import PAUSED, LimitWatch

POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0
"""Delay of the host's kill after that of PID 1: the host acts only when PID 1 did not."""
MISSING_TIMES = 3
"""Consecutive answers that a container does not exist before the engine is believed."""
FLUSH_SECONDS = 30.0
"""Time that PID 1 gives us to read the rest of an answer; see `locked_eval/container/supervisor.py`."""

_ENDS = {0: RunEnd.FINISHED, 40: RunEnd.DEADLINE, 41: RunEnd.FAILED, 42: RunEnd.STARTUP, 43: RunEnd.LOST}
"""Exit codes of the supervisor; see `locked_eval/container/supervisor.py`."""
_EXIT_OUT_OF_MEMORY = 6
"""Exit code of scorer and auditor; see `locked_eval/container/handover.py`."""


@dataclass
class Reports:
    """Reports of PID 1, read from its stderr."""

    pending: bytes = b""
    ready: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    ending: int | None = None
    """Exit code that PID 1 intends; sent before it kills. `ended` is sent when every process is dead."""
    last: dict[str, object] = field(default_factory=dict)

    def feed(self, data: bytes) -> None:
        """Parse the next bytes of the stream."""
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self.line(line.decode("utf-8", "replace"))

    def line(self, line: str) -> None:
        """Parse one line."""
        try:
            report = json.loads(line)
        except (ValueError, RecursionError):
            return
        event = report.get("event") if isinstance(report, dict) else None
        if event == "ready":
            self.ready.set()
        elif event == "started":
            self.started.set()
        elif event == "ending":
            code = report.get("code")
            self.ending = code if isinstance(code, int) else None
        elif event == "ended":
            self.last = report
            self.ended.set()

    def number(self, name: str) -> float | None:
        """A number in the last report; None when it is absent."""
        value = self.last.get(name)
        return float(value) if isinstance(value, int | float) and abs(value) <= sys.float_info.max else None

    def whole(self, name: str) -> int | None:
        """A whole number in the last report; None when it is absent."""
        value = self.last.get(name)
        return value if isinstance(value, int) else None


class State(NamedTuple):
    """The end of a container, as the engine reports it; the defaults are those of a running one."""

    exit_code: int | None = None
    out_of_memory: bool = False
    killed: bool = False  # by the host, at the deadline of a run whose clock had started


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Time limits of one run, and the events that start and end it."""

    started: threading.Event
    startup_seconds: float
    limit_seconds: float
    done: threading.Event | None = None  # ends the wait for a container that lives on


@dataclass
class Killer:
    """The host's own deadline: a thread with its own client that kills, whatever the other threads do."""

    engine: Engine
    container_id: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    fired: bool = False

    def watch(self, clock: Clock) -> None:
        """Wait until the deadline, then kill until `cancelled` is set."""
        give_up = time.monotonic() + clock.startup_seconds + GRACE_SECONDS
        while not clock.started.is_set() and time.monotonic() < give_up:
            if self.cancelled.wait(POLL_SECONDS):
                return
        if self.cancelled.wait(clock.limit_seconds + GRACE_SECONDS):
            return
        self.fired = True  # recorded before the act: exit code 137 alone is ambiguous
        while not self.cancelled.is_set():
            # A frozen process dies when it thaws; an engine may report a kill that did not happen; an engine that
            # is away may come back. PID 1 has its own deadline.
            for act in (APIClient.kill, APIClient.unpause):
                client = self.engine.quick_client()
                try:
                    act(client.api, self.container_id)
                except docker.errors.NotFound:
                    return
                except (docker.errors.DockerException, requests.RequestException, *NONSENSE):
                    pass  # also: it is not running, it is not paused
                finally:
                    client.close()
                if self.cancelled.wait(POLL_SECONDS):
                    return
            self.cancelled.wait(1.0)


def wait(
    engine: Engine,
    container_id: str,
    clock: Clock,
    *,
    meanwhile: Callable[[], None] = lambda: None,
    gives_up: Callable[[], bool] = lambda: False,
    watch: LimitWatch | None = None,
) -> State:
    """Wait until the container has ended, or until `clock.done`. No single answer of the engine ends the wait.

    Args:
        meanwhile: called repeatedly; an exception that it raises ends the wait.
        gives_up: called repeatedly; once it returns True the container is killed, and its end is awaited.
        watch: checks the limits of the container while it runs; a limit that was changed ends the wait.

    Raises:
        EngineError: the engine failed; says nothing about the candidate.
    """
    killer = Killer(engine, container_id)
    threading.Thread(target=killer.watch, args=(clock,), name="killer", daemon=True).start()
    give_up = time.monotonic() + clock.startup_seconds + clock.limit_seconds + FLUSH_SECONDS + 10 * GRACE_SECONDS
    client = engine.quick_client()
    missing = 0
    try:
        while True:
            if clock.done is not None and clock.done.is_set():
                return State(killed=killer.fired and clock.started.is_set())
            try:
                state = client.api.inspect_container(container_id)["State"]
                if state["Status"] in ("exited", "dead"):
                    killed = killer.fired and clock.started.is_set()
                    return State(state["ExitCode"], bool(state.get("OOMKilled")), killed)
                paused, process = bool(state.get("Paused")), int(state.get("Pid") or 0)
                missing = 0
            except docker.errors.NotFound as error:
                missing += 1
                if missing >= MISSING_TIMES:
                    raise EngineError("one of our containers was removed by another program") from error
            except (docker.errors.DockerException, requests.RequestException, *NONSENSE) as error:
                if time.monotonic() > give_up:
                    raise EngineError(
                        f"the Docker engine went away: {error}", "make engine", fault="the engine went away"
                    ) from error
            else:
                if paused:  # its clock ran on: the candidate is not to blame for the outcome
                    raise EngineError(PAUSED)
                if watch is not None:
                    watch.check(process)
            if time.monotonic() > give_up:
                raise EngineError("a container did not end after it was killed", "autoresearch doctor")
            meanwhile()
            if gives_up():
                with suppress(docker.errors.DockerException, requests.RequestException, *NONSENSE):
                    client.api.kill(container_id)  # sent again in the next turn, unless the container has ended
            time.sleep(POLL_SECONDS)
    finally:
        killer.cancelled.set()
        client.close()


def container_cpu_seconds(engine: Engine, container_id: str) -> float | None:
    """CPU seconds of a running container since its start, as the engine counts them; None when unavailable."""
    client = engine.quick_client()
    try:
        stats = client.api.stats(container_id, stream=False, one_shot=True)
        return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9
    except (docker.errors.DockerException, requests.RequestException, *NONSENSE):
        return None
    finally:
        client.close()


@dataclass(frozen=True, kw_only=True)
class GivenUp:
    """Times of a run that the host ended early, where PID 1 dies before it can report them."""

    wall_seconds: float  # on the host's clock
    cpu_seconds: float | None  # as the engine counts them; None: unavailable


def record(
    phase: Phase, seed: int, state: State, reports: Reports, log: str = "", given_up: GivenUp | None = None
) -> RunRecord:
    """Build the record of an ended run from PID 1's last report, the engine, and the host's own clock.

    Args:
        given_up: times of a run that the host ended early; ignored when the run ended by itself just before that.
    """
    code = reports.whole("code")
    if code is None:
        code = state.exit_code
    end = _ENDS.get(-1 if code is None else code, RunEnd.LOST)
    out_of_memory = state.out_of_memory or bool(reports.last.get("out_of_memory"))
    status = reports.whole("status")
    killed = out_of_memory and status == -9
    if end is RunEnd.FAILED and (killed or (phase is not Phase.TRAIN and status == _EXIT_OUT_OF_MEMORY)):
        end = RunEnd.OUT_OF_MEMORY
    if end is RunEnd.LOST and code == 137:
        if state.killed and reports.ending is not None:
            # PID 1 was on time, but the processes that it killed died slowly. A PID 1 that was silent at its
            # deadline was stopped from outside, since nothing inside can stop it: that run stays lost.
            end = RunEnd.DEADLINE if _ENDS.get(reports.ending) is RunEnd.DEADLINE else RunEnd.LOST
        elif out_of_memory and not state.killed and given_up is None:
            end = RunEnd.OUT_OF_MEMORY
    if given_up is not None and end is RunEnd.LOST and code == 137 and not state.killed:
        return RunRecord(
            phase=phase,
            seed=seed,
            end=RunEnd.STOPPED,
            exit_code=None,
            wall_seconds=round(given_up.wall_seconds, 4),
            cpu_seconds=given_up.cpu_seconds,
            log_tail=log,
        )
    return RunRecord(
        phase=phase,
        seed=seed,
        end=end,
        exit_code=code if status is None else status,
        wall_seconds=reports.number("wall_seconds"),
        cpu_seconds=reports.number("cpu_seconds"),
        log_tail=log,
    )
