"""One training: `workload.train` in a container of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from runner.config import Config
from runner.errors import EngineError
from runner.failpoints import Step, around
from runner.records import Phase, RunRecord
from runner.sandbox.container_spec import ContainerSpec, OutputVolume
from runner.sandbox.containers import Sandbox, limits_of, open_container
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.kernel_limits import LimitWatch
from runner.sandbox.streams import follow_logs
from runner.sandbox.supervision import Clock, GivenUp, Reports, container_cpu_seconds, record, wait

LOG_BYTES = 256 * 1024
LOG_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Training:
    """Inputs of one training."""

    image_id: str
    volume: str
    """Receives the checkpoint."""
    data: Mapping[str, Path]
    """Files of `/data` by name, as issued for the seed."""
    seed: int
    cores: tuple[int, ...] | None = None
    """Cores of the host; `choose_cores` when absent."""

    def spec(self, config: Config, phase: str = "train") -> ContainerSpec:
        """The container of the training.

        Args:
            phase: kind of container, for its label.
        """
        return ContainerSpec(
            phase=phase,
            image_id=self.image_id,
            command=["train", "--startup", str(config.startup_seconds), "--limit", str(config.train_seconds)],
            environment={
                "DATA_DIR": "/data",
                "OUT_DIR": "/out",
                "SEED": str(self.seed),
                "DEADLINE_SECONDS": str(config.train_seconds),
                "PROFILE": config.sizes,
            },
            read_only={f"/data/{name}": path for name, path in self.data.items()},
            output_volume=OutputVolume(self.volume, "/out", writable=True),
            cores=self.cores,
        )


def _nothing() -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that a training calls while it runs."""

    on_line: Callable[[str], None] | None = None
    """Receives every line that the candidate prints, from another thread; untrusted."""
    on_start: Callable[[], None] = _nothing
    """Called once, from another thread, when the candidate's clock starts."""
    on_end: Callable[[], None] = _nothing
    """Called once, when the container has ended."""
    gives_up: Callable[[], bool] | None = None
    """Called repeatedly once the clock runs; True ends the run, as `stopped`."""
    meanwhile: Callable[[], None] = _nothing
    """Called repeatedly; an exception that it raises ends the run."""


def train(sandbox: Sandbox, training: Training, callbacks: Callbacks) -> RunRecord:
    """Run `workload.train` once.

    Raises:
        EngineError: the engine failed; says nothing about the candidate.
    """
    engine, config = sandbox.engine, sandbox.config
    reports, over = Reports(), threading.Event()

    def on_report(line: str) -> None:
        before = reports.started.is_set()
        reports.line(line)
        if reports.started.is_set() and not before:
            callbacks.on_start()

    with open_container(sandbox, training.spec(config)) as container_id:
        try:
            with engine_errors("starting the train container"), around(Step.CONTAINER_STARTED):
                engine.client.api.start(container_id)
            early = _EarlyEnd(engine, container_id, callbacks.gives_up)
            follow_logs(engine, container_id, stderr=True, on_line=on_report, over=over)
            if callbacks.on_line is not None:
                follow_logs(engine, container_id, stderr=False, on_line=callbacks.on_line, over=over)
            state = wait(
                engine,
                container_id,
                Clock(
                    started=reports.started,
                    startup_seconds=config.startup_seconds,
                    limit_seconds=config.train_seconds,
                ),
                meanwhile=callbacks.meanwhile,
                gives_up=lambda: reports.started.is_set() and early.is_due(),
                watch=LimitWatch(container_id, "train", limits_of(config, training.cores)),
            )
            callbacks.on_end()
            final = Reports()
            final.feed(_read_log(engine, container_id, stderr=True) + b"\n")
            printed = _read_log(engine, container_id, stderr=False).decode("utf-8", "replace")
            return record(Phase.TRAIN, training.seed, state, final, printed, early.given_up)
        finally:
            over.set()


@dataclass
class _EarlyEnd:
    """The decision to end a training early, and its times on the host."""

    engine: Engine
    container_id: str
    gives_up: Callable[[], bool] | None
    given_up: GivenUp | None = None
    _began: tuple[float, float | None] | None = None  # moment and CPU seconds at the start of the clock

    def is_due(self) -> bool:
        """Called repeatedly from the start of the candidate's clock on."""
        if self.gives_up is None:
            return False
        if self._began is None:
            self._began = (time.monotonic(), container_cpu_seconds(self.engine, self.container_id))
        if self.given_up is None and self.gives_up():
            cpu = container_cpu_seconds(self.engine, self.container_id)
            moment, before = self._began
            self.given_up = GivenUp(
                wall_seconds=time.monotonic() - moment,
                cpu_seconds=None if cpu is None or before is None else round(max(0.0, cpu - before), 4),
            )
        return self.given_up is not None


@retry(
    retry=retry_if_exception_type(EngineError),
    stop=stop_after_attempt(LOG_ATTEMPTS),  # a training would be lost with its log
    wait=wait_fixed(1.0),
    reraise=True,
)
def _read_log(engine: Engine, container_id: str, stderr: bool) -> bytes:
    """Read one stream of an ended container; the engine caps the log at 2 MB.

    Raises:
        EngineError: it failed every time.
    """
    with engine_errors("reading a log"):
        log: bytes = engine.client.api.logs(container_id, stdout=not stderr, stderr=stderr)
        return log[-LOG_BYTES:]
