"""One candidate: train in one container, score in another, share a checkpoint through a volume in memory.

The scorer is started first. It holds the volume (a tmpfs volume lives only while a started container
has it), imports torch while nothing is measured, and waits for the word on its stdin.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import docker
import requests

from runner.config import Config
from runner.errors import EngineError
from runner.records import Phase, RunEnd, RunRecord
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.limits import (
    Owner,
    create_container,
    create_output_volume,
    discard,
    remove_container,
    remove_volume,
)
from runner.sandbox.streams import Attachment, follow_logs

POLL_SECONDS = 0.1
GRACE_SECONDS = 2.0
"""How much later than PID 1 the host kills: it only acts when PID 1 did not."""
LOG_BYTES = 256 * 1024

_ENDS = {0: RunEnd.FINISHED, 40: RunEnd.DEADLINE, 41: RunEnd.FAILED, 42: RunEnd.STARTUP, 43: RunEnd.LOST}
"""Exit codes of the supervisor; see `locked_eval/supervisor.py`."""


@dataclass(frozen=True, kw_only=True)
class Mounts:
    """Host folders that containers see, all read-only."""

    locked: Path  # holds locked_eval/
    train: Path
    val: Path


@dataclass
class _Reports:
    """What PID 1 said on stderr."""

    pending: bytes = b""
    ready: threading.Event = field(default_factory=threading.Event)
    started: threading.Event = field(default_factory=threading.Event)
    ended: dict[str, object] = field(default_factory=dict)

    def feed(self, data: bytes) -> None:
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self.line(line.decode("utf-8", "replace"))

    def line(self, line: str) -> None:
        try:
            report = json.loads(line)
        except ValueError:
            return
        event = report.get("event") if isinstance(report, dict) else None
        if event == "ready":
            self.ready.set()
        elif event == "started":
            self.started.set()
        elif event == "ended":
            self.ended = report

    def number(self, name: str) -> float | None:
        value = self.ended.get(name)
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, kw_only=True)
class Session:
    """A warm scorer and an output volume for one candidate. Use `open_session`."""

    engine: Engine
    config: Config
    mounts: Mounts
    image_id: str
    owner: Owner
    volume: str
    scorer_id: str
    attachment: Attachment
    scorer_reports: _Reports

    def train(
        self,
        seed: int,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[], None] | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> RunRecord:
        """Run `workload.train` once.

        Args:
            seed: issued by the host for this run.
            on_line: gets every line that the candidate prints, from another thread; untrusted.
            on_start: called once, from another thread, when the candidate's clock starts.
            on_end: called once, when the container has ended.

        Raises:
            EngineError: the engine failed; says nothing about the candidate.
        """
        config = self.config
        container_id = create_container(
            self.engine,
            config=config,
            image_id=self.image_id,
            phase="train",
            command=["train", "--startup", str(config.startup_seconds), "--limit", str(config.train_seconds)],
            environment={
                "DATA_DIR": "/data",
                "OUT_DIR": "/out",
                "SEED": str(seed),
                "DEADLINE_SECONDS": str(config.train_seconds),
                "PROFILE": config.profile,
            },
            read_only={"/locked": self.mounts.locked, "/data": self.mounts.train},
            output_volume=self.volume,
            output_writable=True,
            owner=self.owner,
            interactive=False,
        )
        try:
            with engine_errors("starting the train container"):
                self.engine.client.api.start(container_id)
            reports = _Reports()

            def on_report(line: str) -> None:
                before = reports.started.is_set()
                reports.line(line)
                if on_start is not None and reports.started.is_set() and not before:
                    on_start()

            follow_logs(self.engine, container_id, stderr=True, on_line=on_report)
            if on_line is not None:
                follow_logs(self.engine, container_id, stderr=False, on_line=on_line)
            state, killed = _wait(
                self.engine,
                container_id,
                started=reports.started,
                startup_seconds=config.startup_seconds,
                limit_seconds=config.train_seconds,
            )
            if on_end is not None:
                on_end()
            final = _Reports()
            final.feed(_read_log(self.engine, container_id, stderr=True) + b"\n")
            log = _read_log(self.engine, container_id, stderr=False).decode("utf-8", "replace")
            return _record(Phase.TRAIN, seed, state, killed and reports.started.is_set(), final, log)
        finally:
            discard(remove_container, self.engine.client, container_id)

    def score(self, seed: int) -> tuple[RunRecord, bytes | None]:
        """Tell the scorer to go; returns how it ended and its claims when it wrote all that it wanted.

        Raises:
            EngineError: the engine failed.
        """
        config = self.config
        try:
            self.attachment.send(b"g")
        except OSError as error:
            raise EngineError(f"the scorer is gone: {error}", "autoresearch doctor") from error
        state, killed = _wait(
            self.engine,
            self.scorer_id,
            started=self.scorer_reports.started,
            startup_seconds=GRACE_SECONDS + 5,
            limit_seconds=config.score_seconds,
        )
        claims = self.attachment.finish(timeout_seconds=60)
        if self.attachment.broken:
            raise EngineError("the stream of claims broke", "autoresearch doctor")
        started = self.scorer_reports.started.is_set()
        run = _record(Phase.SCORE, seed, state, killed and started, self.scorer_reports, log="")
        if run.end is RunEnd.FINISHED and not self.attachment.overflowed:
            return run, claims
        return run, None


@contextmanager
def open_session(
    engine: Engine, *, config: Config, mounts: Mounts, image_id: str, owner: Owner, max_claims_bytes: int
) -> Iterator[Session]:
    """Create the volume, start the scorer, wait until it is warm; remove both whatever happens.

    Raises:
        EngineError: the engine failed, or the scorer did not come up.
    """
    with ExitStack() as stack:
        volume = create_output_volume(engine, config, owner)
        stack.callback(discard, remove_volume, engine.client, volume)
        hold = config.startup_seconds * 2 + config.train_seconds + 60
        scorer_id = create_container(
            engine,
            config=config,
            image_id=image_id,
            phase="score",
            command=["score", "--startup", str(config.startup_seconds), "--limit", str(config.score_seconds),
                     "--hold", str(hold)],
            environment={
                "OUT_DIR": "/out",
                "VAL_DIR": "/val",
                "PROFILE": config.profile,
                "SCORE_BATCH_ROWS": str(config.score_batch_rows),
            },
            read_only={"/locked": mounts.locked, "/val": mounts.val},
            output_volume=volume,
            output_writable=False,
            owner=owner,
            interactive=True,
        )  # fmt: skip
        stack.callback(discard, remove_container, engine.client, scorer_id)
        reports = _Reports()
        with engine_errors("starting the score container"):
            attachment = Attachment(engine, scorer_id, max_claims_bytes, reports.feed)
            stack.callback(attachment.close)
            engine.client.api.start(scorer_id)
        give_up = time.monotonic() + config.startup_seconds + GRACE_SECONDS
        while not reports.ready.wait(POLL_SECONDS):
            if not attachment.is_open or time.monotonic() > give_up:
                with engine_errors("inspecting the score container"):
                    state = engine.client.api.inspect_container(scorer_id)["State"]
                raise EngineError(
                    f"the score container did not come up ({state['Status']}, exit code {state['ExitCode']})",
                    "is startup_seconds too short? can uid 10001 read .autoresearch/ (modes, SELinux)?",
                )
        yield Session(
            engine=engine,
            config=config,
            mounts=mounts,
            image_id=image_id,
            owner=owner,
            volume=volume,
            scorer_id=scorer_id,
            attachment=attachment,
            scorer_reports=reports,
        )


@dataclass
class _Killer:
    """The host's own deadline: a thread with its own client that kills once, whatever the others do."""

    engine: Engine
    container_id: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    fired: bool = False

    def watch(self, started: threading.Event, startup_seconds: float, limit_seconds: float) -> None:
        give_up = time.monotonic() + startup_seconds + GRACE_SECONDS
        while not started.is_set() and time.monotonic() < give_up:
            if self.cancelled.wait(POLL_SECONDS):
                return
        if self.cancelled.wait(limit_seconds + GRACE_SECONDS):
            return
        self.fired = True  # recorded before the act: exit code 137 alone is ambiguous
        while not self.cancelled.is_set():
            try:
                client = self.engine.another_client()
                try:
                    client.api.kill(self.container_id)
                finally:
                    client.close()
            except docker.errors.NotFound:
                return
            except (docker.errors.DockerException, requests.RequestException):
                self.cancelled.wait(1.0)  # the daemon is away: PID 1 has its own deadline, and it may come back
            else:
                return


def _wait(
    engine: Engine,
    container_id: str,
    *,
    started: threading.Event,
    startup_seconds: float,
    limit_seconds: float,
) -> tuple[dict[str, object], bool]:
    """Wait until the container has ended; returns its final state and whether the host killed it."""
    killer = _Killer(engine, container_id)
    thread = threading.Thread(
        target=killer.watch, args=(started, startup_seconds, limit_seconds), name="killer", daemon=True
    )
    thread.start()
    give_up = time.monotonic() + startup_seconds + limit_seconds + 10 * GRACE_SECONDS
    try:
        while True:
            try:
                state: dict[str, object] = engine.client.api.inspect_container(container_id)["State"]
                if state["Status"] in ("exited", "dead"):
                    return state, killer.fired
            except docker.errors.NotFound as error:
                raise EngineError("a container of ours was removed by somebody else") from error
            except (docker.errors.DockerException, requests.RequestException) as error:
                if time.monotonic() > give_up:
                    raise EngineError(f"the Docker engine went away: {error}", "make engine") from error
            if time.monotonic() > give_up:
                raise EngineError("a container did not end after it was killed", "autoresearch doctor")
            time.sleep(POLL_SECONDS)
    finally:
        killer.cancelled.set()


def _read_log(engine: Engine, container_id: str, stderr: bool) -> bytes:
    """One stream of an ended container; the engine caps the log at 2 MB."""
    with engine_errors("reading a log"):
        log: bytes = engine.client.api.logs(container_id, stdout=not stderr, stderr=stderr)
    return log[-LOG_BYTES:]


def _record(
    phase: Phase, seed: int, state: dict[str, object], killed: bool, reports: _Reports, log: str
) -> RunRecord:
    code = state.get("ExitCode")
    exit_code = code if isinstance(code, int) else None
    end = _ENDS.get(exit_code if exit_code is not None else -1, RunEnd.LOST)
    out_of_memory = bool(state.get("OOMKilled"))
    if end is RunEnd.FAILED and out_of_memory and reports.ended.get("status") == -9:
        end = RunEnd.OUT_OF_MEMORY
    if end is RunEnd.LOST and exit_code == 137:
        if killed:
            end = RunEnd.DEADLINE
        elif out_of_memory:
            end = RunEnd.OUT_OF_MEMORY
    status = reports.ended.get("status")
    return RunRecord(
        phase=phase,
        seed=seed,
        end=end,
        exit_code=status if isinstance(status, int) else exit_code,
        wall_seconds=reports.number("wall_seconds"),
        cpu_seconds=reports.number("cpu_seconds"),
        log_tail=log,
    )
