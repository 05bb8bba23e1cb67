"""Watching one container: what its PID 1 reports, and the host's own deadline."""

from __future__ import annotations

import json
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
from runner.sandbox.kernel_limits import LimitWatch

POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0
"""How much later than PID 1 the host kills: it only acts when PID 1 did not."""
MISSING_TIMES = 3
"""How often in a row an engine must say that a container is not there before it is believed."""
FLUSH_SECONDS = 30.0
"""How long PID 1 waits for us to take the rest of an answer; see `locked_eval/container/supervisor.py`."""

_ENDS = {0: RunEnd.FINISHED, 40: RunEnd.DEADLINE, 41: RunEnd.FAILED, 42: RunEnd.STARTUP, 43: RunEnd.LOST}
"""Exit codes of the supervisor; see `locked_eval/container/supervisor.py`."""


@dataclass
class Reports:
    """What PID 1 said on stderr."""

    pending: bytes = b""
    ready: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    ending: int | None = None
    """How PID 1 means to end: it says so before it kills, and `ended` when everything is dead."""
    last: dict[str, object] = field(default_factory=dict)

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self.line(line.decode("utf-8", "replace"))

    def line(self, line: str) -> None:
        """Take one line."""
        try:
            report = json.loads(line)
        except ValueError:
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
        """A figure of the last report."""
        value = self.last.get(name)
        return float(value) if isinstance(value, int | float) else None

    def whole(self, name: str) -> int | None:
        """A whole number of the last report."""
        value = self.last.get(name)
        return value if isinstance(value, int) else None


class State(NamedTuple):
    """What the engine says of a container that has ended; nothing of one that lives on."""

    exit_code: int | None = None
    out_of_memory: bool = False


@dataclass
class Killer:
    """The host's own deadline: a thread with its own client that kills, whatever the others do."""

    engine: Engine
    container_id: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    fired: bool = False

    def watch(self, started: threading.Event, startup_seconds: float, limit_seconds: float) -> None:
        """Wait until the deadline, then kill until somebody has seen the end."""
        give_up = time.monotonic() + startup_seconds + GRACE_SECONDS
        while not started.is_set() and time.monotonic() < give_up:
            if self.cancelled.wait(POLL_SECONDS):
                return
        if self.cancelled.wait(limit_seconds + GRACE_SECONDS):
            return
        self.fired = True  # recorded before the act: exit code 137 alone is ambiguous
        while not self.cancelled.is_set():
            # A frozen process dies when it thaws; an engine may say that it killed, and not have done it; an
            # engine that is away may come back. PID 1 has its own deadline.
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
    *,
    started: threading.Event,
    startup_seconds: float,
    limit_seconds: float,
    done: threading.Event | None = None,
    meanwhile: Callable[[], None] = lambda: None,
    gives_up: Callable[[], bool] = lambda: False,
    watch: LimitWatch | None = None,
) -> tuple[State, bool]:
    """Wait until the container has ended, or `done`. No single answer of the engine ends the wait.

    Args:
        meanwhile: called again and again; what it raises ends the wait.
        gives_up: called again and again; once it says so the container is killed, which is waited for.
        watch: looks at the container's limits while it runs; one that was changed ends the wait.

    Returns: how it ended, and whether the host killed it at its deadline.

    Raises:
        EngineError: the engine failed; says nothing about the candidate.
    """
    killer = Killer(engine, container_id)
    thread = threading.Thread(
        target=killer.watch, args=(started, startup_seconds, limit_seconds), name="killer", daemon=True
    )
    thread.start()
    give_up = time.monotonic() + startup_seconds + limit_seconds + FLUSH_SECONDS + 10 * GRACE_SECONDS
    client = engine.quick_client()
    missing = 0
    try:
        while True:
            if done is not None and done.is_set():
                return State(), killer.fired
            try:
                state = client.api.inspect_container(container_id)["State"]
                if state["Status"] in ("exited", "dead"):
                    return State(state["ExitCode"], bool(state.get("OOMKilled"))), killer.fired
                paused, process = bool(state.get("Paused")), int(state.get("Pid") or 0)
                missing = 0
            except docker.errors.NotFound as error:
                missing += 1
                if missing >= MISSING_TIMES:
                    raise EngineError("a container of ours was removed by somebody else") from error
            except (docker.errors.DockerException, requests.RequestException, *NONSENSE) as error:
                if time.monotonic() > give_up:
                    raise EngineError(
                        f"the Docker engine went away: {error}", "make engine", fault="the engine went away"
                    ) from error
            else:
                if paused:  # its clock ran on: whatever comes of it is not the candidate's doing
                    raise EngineError("a container of ours was paused by somebody else")
                if watch is not None:
                    watch.look(process)
            if time.monotonic() > give_up:
                raise EngineError("a container did not end after it was killed", "autoresearch doctor")
            meanwhile()
            if gives_up():
                with suppress(docker.errors.DockerException, requests.RequestException, *NONSENSE):
                    client.api.kill(container_id)  # asked again at the next turn, unless it has ended
            time.sleep(POLL_SECONDS)
    finally:
        killer.cancelled.set()
        client.close()


def container_cpu_seconds(engine: Engine, container_id: str) -> float | None:
    """CPU time of a running container since its start, as the engine counts it; None when it does not say."""
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
    """What the host knows of a run that it ended early: PID 1 dies before it can tell."""

    wall_seconds: float  # on the host's clock
    cpu_seconds: float | None  # as the engine counts; None: it did not say


def record(
    phase: Phase,
    seed: int,
    state: State,
    killed: bool,
    reports: Reports,
    log: str = "",
    given_up: GivenUp | None = None,
) -> RunRecord:
    """What is known of an ended run, from PID 1's last report, the engine and the host's own clock.

    Args:
        given_up: the host ended it early, if it did not end by itself just before that.
    """
    code = reports.whole("code")
    if code is None:
        code = state.exit_code
    end = _ENDS.get(-1 if code is None else code, RunEnd.LOST)
    out_of_memory = state.out_of_memory or bool(reports.last.get("out_of_memory"))
    status = reports.whole("status")
    if end is RunEnd.FAILED and out_of_memory and status == -9:
        end = RunEnd.OUT_OF_MEMORY
    if end is RunEnd.LOST and code == 137:
        if killed and reports.ending is not None:
            # PID 1 was on time, but what it killed died slowly. One that was silent at its deadline was stopped
            # from outside, for from inside nobody can: that run stays lost.
            end = RunEnd.DEADLINE if _ENDS.get(reports.ending) is RunEnd.DEADLINE else RunEnd.LOST
        elif out_of_memory and not killed and given_up is None:
            end = RunEnd.OUT_OF_MEMORY
    if given_up is not None and end is RunEnd.LOST and code == 137 and not killed:
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
