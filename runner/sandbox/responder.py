"""A container whose candidate answers with bytes: claims when it is scored, logits in an audit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.config import Config
from runner.errors import EngineError
from runner.failpoints import Step, around
from runner.records import Phase, RunEnd, RunRecord
from runner.sandbox.container_spec import ContainerSpec, OutputVolume
from runner.sandbox.containers import Sandbox, limits_of, move_container, open_container
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.kernel_limits import Limits, LimitWatch
from runner.sandbox.reservation import spare_cores
from runner.sandbox.streams import Attachment
from runner.sandbox.supervision import GRACE_SECONDS, POLL_SECONDS, Clock, Reports, record, wait

RECEIVE_SECONDS = 60.0
"""Longest wait for bytes that PID 1 has written already."""
SETTLE_SECONDS = 5.0
"""Longest delay between the end of a container's stream and the engine's report that the container ended."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question for a responder: a checkpoint, the rows to answer, and the limits of the answer."""

    phase: Phase
    program: str  # what PID 1 starts: `score` or `audit`
    image_id: str
    rows: Path  # host folder
    volume: str  # holds the checkpoint; in this container PID 1 alone can read it
    limit_seconds: float  # wall clock of the answer
    hold_seconds: float  # longest wait for the start signal
    linger_seconds: float  # time for which the container holds the volume after an answer
    max_bytes: int  # a longer answer is discarded

    def spec(self, config: Config, cores: tuple[int, ...] | None) -> ContainerSpec:
        """The container that answers it.

        Args:
            cores: cores on which it warms up; None: those on which it answers.
        """
        return ContainerSpec(
            phase=self.phase,
            image_id=self.image_id,
            command=[
                self.program,
                *("--startup", str(config.startup_seconds)),
                *("--limit", str(self.limit_seconds)),
                *("--hold", str(self.hold_seconds)),
                *("--linger", str(self.linger_seconds)),
            ],
            environment={
                "ROWS_DIR": "/rows",
                "PROFILE": config.profile,
                "VOCAB_SIZE": str(config.vocab_size),
                "SCORE_BATCH_ROWS": str(config.score_batch_rows),
            },
            read_only={"/rows": self.rows},
            # PID 1 copies the checkpoint from there: locked_eval/container/supervisor.py
            output_volume=OutputVolume(self.volume, "/root/out", writable=False),
            interactive=True,
            cores=cores,
        )


@dataclass(frozen=True, kw_only=True)
class Responder:
    """A running container that imports torch and then waits for the start signal. Use `open_responder`."""

    engine: Engine
    container_id: str
    phase: Phase
    startup_seconds: float
    limit_seconds: float
    limits: Limits  # while it answers
    moves: bool  # whether it warms up on other cores, so as not to disturb a measurement
    attachment: Attachment
    reports: Reports

    def await_ready(self) -> None:
        """Wait until it has imported torch.

        Raises:
            EngineError: the container did not come up.
        """
        give_up = time.monotonic() + self.startup_seconds + GRACE_SECONDS
        while not self.reports.ready.wait(POLL_SECONDS):
            self.refuse_dead(late=time.monotonic() > give_up)

    def refuse_dead(self, *, late: bool = False) -> None:
        """Refuse a container that ended while it warmed up, now rather than after the training.

        Args:
            late: refuse a container that is still warming up as well.

        Raises:
            EngineError: it will never answer.
        """
        if self.attachment.is_open and (not late or self.reports.ready.is_set()):
            return
        if self.reports.ready.is_set():
            raise EngineError(f"the waiting {self.phase} container is lost")
        with engine_errors(f"inspecting the {self.phase} container"):
            state = self.engine.client.api.inspect_container(self.container_id)["State"]
            came = f"{state['Status']}, exit code {state['ExitCode']}"
        raise EngineError(
            f"the {self.phase} container did not come up ({came})",
            "is startup_seconds too short? can uid 10001 read .autoresearch/ (modes, SELinux)?",
        )

    def refuse_broken(self) -> None:
        """Refuse a broken stream, which will bring no answer, long before the time limit of the answer.

        Raises:
            EngineError: the stream broke, and the container did not end with it.
        """
        closed_at = self.attachment.closed_at
        if closed_at is None or self.reports.ended.is_set() or time.monotonic() - closed_at < SETTLE_SECONDS:
            return
        raise EngineError(f"the stream of the {self.phase} container broke", "autoresearch doctor")

    def go(self, seed: int) -> tuple[RunRecord, bytes | None]:
        """Send the start signal once the container is ready, and wait for its answer.

        Afterwards every process of the candidate is dead. The container may linger, and hold its volume.

        Returns: how the run ended, and the whole answer of a candidate that finished.

        Raises:
            EngineError: the engine failed; says nothing about the candidate.
        """
        self.await_ready()
        watch = LimitWatch(self.container_id, self.phase, self.limits)
        if self.moves:
            watch.check(move_container(self.engine, self.container_id, self.limits))
        try:
            self.attachment.send(b"g")
        except OSError as error:
            raise EngineError(f"the {self.phase} container is gone: {error}", "autoresearch doctor") from error
        clock = Clock(
            started=self.reports.started,
            startup_seconds=GRACE_SECONDS + 5,
            limit_seconds=self.limit_seconds,
            done=self.reports.ended,
        )
        state = wait(self.engine, self.container_id, clock, meanwhile=self.refuse_broken, watch=watch)
        watch.check_now()  # a container that lingers still has its limits
        # An engine reports the end of a container before it has delivered the last of its stream.
        self.reports.ended.wait(0 if state.killed or state.exit_code == 137 else GRACE_SECONDS)
        run = record(self.phase, seed, state, self.reports)
        if run.end is not RunEnd.FINISHED:
            return run, None
        if not self.reports.ended.is_set():  # else a lost report would pass for an empty answer
            raise EngineError(f"the last report of the {self.phase} container is missing", "autoresearch doctor")
        answer = self.attachment.receive(self.reports.whole("answer_bytes") or 0, RECEIVE_SECONDS)
        if answer is None and not self.attachment.overflowed:
            raise EngineError(f"the answer of the {self.phase} container is incomplete", "autoresearch doctor")
        return run, answer


@contextmanager
def open_responder(sandbox: Sandbox, question: Question) -> Iterator[Responder]:
    """Start the container, and remove it in any case.

    Raises:
        EngineError: the engine failed.
    """
    engine, config = sandbox.engine, sandbox.config
    spare = spare_cores(config)
    with ExitStack() as stack:
        container_id = stack.enter_context(open_container(sandbox, question.spec(config, spare or None)))
        reports = Reports()
        with engine_errors(f"starting the {question.phase} container"):
            attachment = Attachment(engine, container_id, question.max_bytes, reports.feed)
            stack.callback(attachment.close)
            with around(Step.CONTAINER_STARTED):
                engine.client.api.start(container_id)
        yield Responder(
            engine=engine,
            container_id=container_id,
            phase=question.phase,
            startup_seconds=config.startup_seconds,
            limit_seconds=question.limit_seconds,
            limits=limits_of(config),
            moves=bool(spare),
            attachment=attachment,
            reports=reports,
        )
