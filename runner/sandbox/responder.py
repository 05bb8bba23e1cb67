"""A container whose candidate answers with bytes: claims in scoring, logits in an audit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.config import Config
from runner.errors import EngineError
from runner.failpoints import Step, around
from runner.records import Phase, RunEnd, RunRecord
from runner.sandbox.containers import (
    OutputVolume,
    Owner,
    create_container,
    discard,
    limits_of,
    move_container,
    remove_container,
    spare_cores,
)
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.kernel_limits import Limits, LimitWatch
from runner.sandbox.streams import Attachment
from runner.sandbox.supervision import GRACE_SECONDS, POLL_SECONDS, Reports, record, wait

RECEIVE_SECONDS = 60.0
"""Longest wait for bytes that PID 1 has written already."""
SETTLE_SECONDS = 5.0
"""How long an engine may take to tell the end of a container whose stream has ended."""


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A started container that imports torch and then waits for the word. Use `open_answering`."""

    engine: Engine
    container_id: str
    phase: Phase
    startup_seconds: float
    limit_seconds: float
    limits: Limits  # while it answers
    moves: bool  # whether it warms up elsewhere, so as not to disturb a measurement
    attachment: Attachment
    reports: Reports

    def await_ready(self) -> None:
        """Wait until it is warm.

        Raises:
            EngineError: the container did not come up.
        """
        give_up = time.monotonic() + self.startup_seconds + GRACE_SECONDS
        while not self.reports.ready.wait(POLL_SECONDS):
            self.refuse_dead(late=time.monotonic() > give_up)

    def refuse_dead(self, *, late: bool = False) -> None:
        """A container that ended while it warmed up is told at once, not after the training.

        Args:
            late: refuse one that is still warming up as well.

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
        """A stream that broke will bring no answer: told long before the time for it is over.

        Raises:
            EngineError: it broke, and the container did not end with it.
        """
        closed_at = self.attachment.closed_at
        if closed_at is None or self.reports.ended.is_set() or time.monotonic() - closed_at < SETTLE_SECONDS:
            return
        raise EngineError(f"the stream of the {self.phase} container broke", "autoresearch doctor")

    def go(self, seed: int) -> tuple[RunRecord, bytes | None]:
        """Give the word once it is warm; returns how it ended, and the whole answer of a candidate that finished.

        Every process of the candidate is dead then. The container may linger, and hold its volume.

        Raises:
            EngineError: the engine failed; says nothing about the candidate.
        """
        self.await_ready()
        watch = LimitWatch(self.container_id, self.phase, self.limits)
        if self.moves:
            watch.look(move_container(self.engine, self.container_id, self.limits))
        try:
            self.attachment.send(b"g")
        except OSError as error:
            raise EngineError(f"the {self.phase} container is gone: {error}", "autoresearch doctor") from error
        state, killed = wait(
            self.engine,
            self.container_id,
            started=self.reports.started,
            startup_seconds=GRACE_SECONDS + 5,
            limit_seconds=self.limit_seconds,
            done=self.reports.ended,
            meanwhile=self.refuse_broken,
            watch=watch,
        )
        watch.look_again()  # one that lingers still has them
        # An engine tells the end of a container before it has delivered the last of its stream.
        self.reports.ended.wait(0 if killed or state.exit_code == 137 else GRACE_SECONDS)
        run = record(self.phase, seed, state, killed and self.reports.started.is_set(), self.reports)
        if run.end is not RunEnd.FINISHED:
            return run, None
        if not self.reports.ended.is_set():  # else a lost report would pass for an empty answer
            raise EngineError(f"the last report of the {self.phase} container did not come", "autoresearch doctor")
        answer = self.attachment.receive(self.reports.whole("answer_bytes") or 0, RECEIVE_SECONDS)
        if answer is None and not self.attachment.overflowed:
            raise EngineError(
                f"the answer of the {self.phase} container did not come whole", "autoresearch doctor"
            )
        return run, answer


@contextmanager
def open_answering(
    engine: Engine,
    *,
    config: Config,
    image_id: str,
    owner: Owner,
    phase: Phase,
    program: str,
    read_only: Mapping[str, Path],
    volume: str,
    limit_seconds: float,
    hold_seconds: float,
    linger_seconds: float,
    max_bytes: int,
) -> Iterator[Answering]:
    """Start the container; remove it whatever happens.

    Args:
        program: what PID 1 starts, `score` or `audit`.
        read_only: host folders by mount point; `/rows` holds the rows to answer.
        volume: name of the volume with the checkpoint; PID 1 alone can read it here.
        hold_seconds: longest wait for the word.
        linger_seconds: how long the container holds the volume after an answer.
        max_bytes: more of an answer is thrown away, and the answer with it.

    Raises:
        EngineError: the engine failed.
    """
    spare = spare_cores(config)
    with ExitStack() as stack:
        container_id = create_container(
            engine,
            config=config,
            image_id=image_id,
            phase=phase,
            command=[
                program,
                *("--startup", str(config.startup_seconds)),
                *("--limit", str(limit_seconds)),
                *("--hold", str(hold_seconds)),
                *("--linger", str(linger_seconds)),
            ],
            environment={
                "ROWS_DIR": "/rows",
                "PROFILE": config.profile,
                "VOCAB_SIZE": str(config.vocab_size),
                "SCORE_BATCH_ROWS": str(config.score_batch_rows),
            },
            read_only=read_only,
            # PID 1 copies the checkpoint from there: locked_eval/container/supervisor.py
            output_volume=OutputVolume(volume, "/root/out", writable=False),
            owner=owner,
            interactive=True,
            cores=spare or None,
        )
        stack.callback(discard, remove_container, engine.client, container_id)
        reports = Reports()
        with engine_errors(f"starting the {phase} container"):
            attachment = Attachment(engine, container_id, max_bytes, reports.feed)
            stack.callback(attachment.close)
            with around(Step.CONTAINER_STARTED):
                engine.client.api.start(container_id)
        yield Answering(
            engine=engine,
            container_id=container_id,
            phase=phase,
            startup_seconds=config.startup_seconds,
            limit_seconds=limit_seconds,
            limits=limits_of(config),
            moves=bool(spare),
            attachment=attachment,
            reports=reports,
        )
