"""A container whose candidate answers with bytes: claims when it is scored, logits in an audit or a smoke test."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from runner.config import Config
from runner.errors import EngineError
from runner.failpoints import Step, around
from runner.records import Phase, RunEnd, RunRecord
from runner.sandbox.container_spec import ContainerSpec, OutputVolume
from runner.sandbox.containers import Sandbox, limits_of, move_container, open_container
from runner.sandbox.core_meter import STRETCH, CoreMeter, NetLimit
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.kernel_limits import Limits, LimitWatch
from runner.sandbox.reservation import spare_cores
from runner.sandbox.streams import Attachment
from runner.sandbox.supervision import (
    GRACE_SECONDS,
    POLL_SECONDS,
    Clock,
    Reports,
    container_cpu_seconds,
    record,
    wait,
)

REAP_SECONDS = 10.0
"""Longest wait for PID 1 after its deadline was set to now; one that is silent was stopped from outside."""
RECEIVE_SECONDS = 60.0
"""Longest wait for bytes that PID 1 has written already."""
SETTLE_SECONDS = 5.0
"""Longest delay between the end of a container's stream and the engine's report that the container ended."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """The question for a responder: a checkpoint, the rows to answer, and the limits of the answer."""

    phase: Phase
    program: str  # what PID 1 starts: `score`, `audit`, or `check`
    image_id: str
    rows: Path  # host folder
    batch_rows: int  # of a forward pass in scoring; those of an audit have the same shape
    volume: str  # holds the checkpoint; in this container PID 1 alone can read it
    limit_seconds: float  # wall clock of the answer, without what other programs took of its cores
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
                *("--limit", str(STRETCH * self.limit_seconds)),  # the host ends it at its net limit
                *("--hold", str(self.hold_seconds)),
                *("--linger", str(self.linger_seconds)),
            ],
            environment={
                "ROWS_DIR": "/rows",
                "PROFILE": config.sizes,
                "VOCAB_SIZE": str(config.vocab_size),
                "SCORE_BATCH_ROWS": str(self.batch_rows),
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
            "raise startup_seconds, or let uid 10001 read .autoresearch/ (modes, SELinux)",
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

    def _is_silent(self, net: NetLimit) -> bool:
        """Set the deadline to now once the net limit is used up; whether PID 1 then fails to end the run."""
        if net.called_off_at is None and net.is_exceeded():
            with engine_errors("ending an answer"):
                self.engine.client.api.kill(self.container_id, signal="SIGUSR1")  # `supervisor.CALL_OFF`
            net.called_off_at = time.monotonic()
        return net.called_off_at is not None and time.monotonic() - net.called_off_at > REAP_SECONDS

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
        net = NetLimit(
            CoreMeter(self.limits.cores),
            self.limit_seconds,
            lambda: container_cpu_seconds(self.engine, self.container_id),
        )
        net.start()
        try:
            self.attachment.send(b"g")
        except OSError as error:
            raise EngineError(f"the {self.phase} container is gone: {error}", "autoresearch doctor") from error
        clock = Clock(
            started=self.reports.started,
            startup_seconds=GRACE_SECONDS + 5,
            limit_seconds=STRETCH * self.limit_seconds,
            done=self.reports.ended,
        )
        state = wait(
            self.engine,
            self.container_id,
            clock,
            meanwhile=self.refuse_broken,
            gives_up=lambda: self._is_silent(net),
            watch=watch,
        )
        net.meter.stop()
        watch.check_now()  # a container that lingers still has its limits
        # An engine reports the end of a container before it has delivered the last of its stream.
        self.reports.ended.wait(0 if state.killed or state.exit_code == 137 else GRACE_SECONDS)
        run = _net_record(record(self.phase, seed, state, self.reports), net)
        if run.end is not RunEnd.FINISHED:
            return run, None
        if not self.reports.ended.is_set():  # else a lost report would pass for an empty answer
            raise EngineError(f"the last report of the {self.phase} container is missing", "autoresearch doctor")
        answer = self.attachment.receive(self.reports.whole("answer_bytes") or 0, RECEIVE_SECONDS)
        if answer is None and not self.attachment.overflowed:
            raise EngineError(f"the answer of the {self.phase} container is incomplete", "autoresearch doctor")
        return run, answer


def _net_record(run: RunRecord, net: NetLimit) -> RunRecord:
    """The record of a run with the CPU time of others; at its deadline where it took longer than its net limit."""
    run = replace(run, others_cpu_seconds=net.meter.others(run.cpu_seconds, run.wall_seconds))
    if run.end is RunEnd.FINISHED and run.wall_seconds is not None:
        late = net.net_seconds(run.wall_seconds, run.others_cpu_seconds) > net.limit_seconds
        return replace(run, end=RunEnd.DEADLINE) if late else run
    return run


@contextmanager
def open_responder(sandbox: Sandbox, question: Question, *, moves: bool = True) -> Iterator[Responder]:
    """Start the container, and remove it in any case.

    Args:
        moves: let it warm up on spare cores, where there are any.

    Raises:
        EngineError: the engine failed.
    """
    engine, config = sandbox.engine, sandbox.config
    spare = spare_cores(config) if moves else ()
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
