"""One candidate: trained in one container, scored and audited in others, one volume in memory between them.

The scorer is started first. It holds the volume (a tmpfs volume lives only while a started container
has it), imports torch on cores that no candidate is measured on, and waits for the word on its stdin. Where
candidates have every core, training waits until it is warm. After its answer
its PID 1 alone lives on, so that the same checkpoint can be audited. No two containers of a session ever
run candidate code at the same time, and none but that of training can reach the volume: PID 1 copies the
checkpoint for each.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.config import Config
from runner.errors import EngineError
from runner.failpoints import Step, around
from runner.records import Phase, RunRecord
from runner.sandbox.containers import (
    OutputVolume,
    Owner,
    create_container,
    create_output_volume,
    discard,
    limits_of,
    remove_container,
    remove_volume,
    spare_cores,
)
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.kernel_limits import LimitWatch
from runner.sandbox.responder import Answering, open_answering
from runner.sandbox.streams import follow_logs
from runner.sandbox.supervision import GivenUp, Reports, container_cpu_seconds, record, wait

LOG_BYTES = 256 * 1024
LOG_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Mounts:
    """Host files that containers see, all read-only."""

    locked: Path  # holds locked_eval/
    train: Callable[[int], Mapping[str, Path]]  # files of `/data` by name, as issued for a seed
    val: Path
    test: Path


@dataclass(frozen=True, kw_only=True)
class Session:
    """A warm scorer and an output volume for one candidate. Use `open_session`."""

    engine: Engine
    config: Config
    mounts: Mounts
    image_id: str
    owner: Owner
    volume: str
    scorer: Answering

    def train(
        self,
        seed: int,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[], None] | None = None,
        on_end: Callable[[], None] | None = None,
        gives_up: Callable[[], bool] | None = None,
    ) -> RunRecord:
        """Run `workload.train` once.

        Args:
            seed: issued by the host for this run; the order and the choice of the data follow from it.
            on_line: gets every line that the candidate prints, from another thread; untrusted.
            on_start: called once, from another thread, when the candidate's clock starts.
            on_end: called once, when the container has ended.
            gives_up: asked again and again once the clock runs; a yes ends the run, as `stopped`.

        Raises:
            EngineError: the engine failed; says nothing about the candidate.
        """
        return train(
            self.engine,
            config=self.config,
            mounts=self.mounts,
            image_id=self.image_id,
            owner=self.owner,
            volume=self.volume,
            seed=seed,
            on_line=on_line,
            on_start=on_start,
            on_end=on_end,
            gives_up=gives_up,
            meanwhile=self.scorer.refuse_dead,
        )

    def score(self, seed: int) -> tuple[RunRecord, bytes | None]:
        """Score the validation rows in the warm container; returns how it ended, and the claims.

        Raises:
            EngineError: the engine failed.
        """
        return self.scorer.go(seed)

    def auditor(self, rows: Path, *, limit_seconds: float, max_bytes: int) -> AbstractContextManager[Answering]:
        """Start a container that answers the rows of an audit; another one may wait for the word meanwhile.

        Args:
            rows: folder with the audit's files; see `locked_eval/container/auditor.py`.
            limit_seconds: wall clock of the answer.
            max_bytes: more of an answer is thrown away, and the answer with it.

        Raises:
            EngineError: the engine failed.
        """
        return self._answering(Phase.AUDIT, "audit", rows, limit_seconds, max_bytes)

    def score_test(self, seed: int, max_bytes: int) -> tuple[RunRecord, bytes | None]:
        """Score the sealed test rows; returns how it ended, and the claims.

        Raises:
            EngineError: the engine failed.
        """
        with self._answering(
            Phase.TEST, "score", self.mounts.test, self.config.score_seconds, max_bytes
        ) as container:
            return container.go(seed)

    def _answering(
        self, phase: Phase, program: str, rows: Path, limit_seconds: float, max_bytes: int
    ) -> AbstractContextManager[Answering]:
        return open_answering(
            self.engine,
            config=self.config,
            image_id=self.image_id,
            owner=self.owner,
            phase=phase,
            program=program,
            read_only={"/locked": self.mounts.locked, "/rows": rows},
            volume=self.volume,
            limit_seconds=limit_seconds,
            hold_seconds=2 * start_up_seconds(self.config) + limit_seconds,  # while another one answers
            linger_seconds=0,
            max_bytes=max_bytes,
        )


def train(
    engine: Engine,
    *,
    config: Config,
    mounts: Mounts,
    image_id: str,
    owner: Owner,
    volume: str,
    seed: int,
    cores: tuple[int, ...] | None = None,
    on_line: Callable[[str], None] | None = None,
    on_start: Callable[[], None] | None = None,
    on_end: Callable[[], None] | None = None,
    gives_up: Callable[[], bool] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> RunRecord:
    """Run `workload.train` once in a container of its own; the other arguments are those of `Session.train`.

    Args:
        volume: where its checkpoint goes.
        cores: where it runs; `choose_cores` when absent.
        meanwhile: called again and again; what it raises ends the run.

    Raises:
        EngineError: the engine failed; says nothing about the candidate.
    """
    files = {f"/data/{name}": path for name, path in mounts.train(seed).items()}
    container_id = create_container(
        engine,
        config=config,
        image_id=image_id,
        phase="train",
        command=["train", "--startup", str(config.startup_seconds), "--limit", str(config.train_seconds)],
        environment={
            "DATA_DIR": "/data",
            "OUT_DIR": "/out",
            "SEED": str(seed),
            "DEADLINE_SECONDS": str(config.train_seconds),
            "PROFILE": config.profile,
        },
        read_only={"/locked": mounts.locked, **files},
        output_volume=OutputVolume(volume, "/out", writable=True),
        owner=owner,
        interactive=False,
        cores=cores,
    )
    over = threading.Event()
    try:
        with engine_errors("starting the train container"), around(Step.CONTAINER_STARTED):
            engine.client.api.start(container_id)
        reports = Reports()

        def on_report(line: str) -> None:
            before = reports.started.is_set()
            reports.line(line)
            if on_start is not None and reports.started.is_set() and not before:
                on_start()

        early = _EarlyEnd(engine, container_id, gives_up)
        follow_logs(engine, container_id, stderr=True, on_line=on_report, over=over)
        if on_line is not None:
            follow_logs(engine, container_id, stderr=False, on_line=on_line, over=over)
        state, killed = wait(
            engine,
            container_id,
            started=reports.started,
            startup_seconds=config.startup_seconds,
            limit_seconds=config.train_seconds,
            meanwhile=meanwhile,
            gives_up=lambda: reports.started.is_set() and early.is_due(),
            watch=LimitWatch(container_id, "train", limits_of(config, cores)),
        )
        if on_end is not None:
            on_end()
        final = Reports()
        final.feed(_read_log(engine, container_id, stderr=True) + b"\n")
        log = _read_log(engine, container_id, stderr=False).decode("utf-8", "replace")
        killed = killed and reports.started.is_set()
        return record(Phase.TRAIN, seed, state, killed, final, log, early.given_up)
    finally:
        over.set()
        discard(remove_container, engine.client, container_id)


@dataclass
class _EarlyEnd:
    """Whether a training is ended early, and what the host knows of it then."""

    engine: Engine
    container_id: str
    gives_up: Callable[[], bool] | None
    given_up: GivenUp | None = None
    _began: tuple[float, float | None] | None = None  # moment and CPU seconds, at the start of the clock

    def is_due(self) -> bool:
        """Asked again and again from the start of the candidate's clock."""
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


def start_up_seconds(config: Config) -> float:
    """The longest that a container takes from its creation to its word, the engine's part included."""
    return config.startup_seconds + 60


@contextmanager
def open_session(
    engine: Engine, *, config: Config, mounts: Mounts, image_id: str, owner: Owner, max_claims_bytes: int
) -> Iterator[Session]:
    """Create the volume and start the scorer; remove both whatever happens.

    Raises:
        EngineError: the engine failed, or the scorer did not come up.
    """
    with ExitStack() as stack:
        volume = create_output_volume(engine, config, owner)
        stack.callback(discard, remove_volume, engine.client, volume)
        start_up = start_up_seconds(config)
        scorer = stack.enter_context(
            open_answering(
                engine,
                config=config,
                image_id=image_id,
                owner=owner,
                phase=Phase.SCORE,
                program="score",
                read_only={"/locked": mounts.locked, "/rows": mounts.val},
                volume=volume,
                limit_seconds=config.score_seconds,
                hold_seconds=start_up * 2 + config.train_seconds,
                linger_seconds=3 * start_up + 6 * config.score_seconds,  # for two auditors and the sealed rows
                max_bytes=max_claims_bytes,
            )
        )
        if not spare_cores(config):
            scorer.await_ready()  # on the core of the training, whose clock runs
        yield Session(
            engine=engine,
            config=config,
            mounts=mounts,
            image_id=image_id,
            owner=owner,
            volume=volume,
            scorer=scorer,
        )


def _read_log(engine: Engine, container_id: str, stderr: bool) -> bytes:
    """One stream of an ended container; the engine caps the log at 2 MB. Asked for more than once, if need be.

    Raises:
        EngineError: every time it failed.
    """
    for attempt in range(LOG_ATTEMPTS):
        try:
            with engine_errors("reading a log"):
                log: bytes = engine.client.api.logs(container_id, stdout=not stderr, stderr=stderr)
                return log[-LOG_BYTES:]
        except EngineError:
            if attempt == LOG_ATTEMPTS - 1:
                raise
            time.sleep(1.0)  # a training would be lost with it
    raise AssertionError
