"""One candidate: trained in one container, scored and audited in others, with one volume in memory between them.

The scorer is started first. It holds the volume (a tmpfs volume lives only while a started container has it),
imports torch on cores on which no candidate is measured, and waits for the start signal on its stdin. Where
candidates have every core, training waits until the scorer is ready. After the scorer's answer its PID 1 alone
lives on, so that the same checkpoint can be audited; or, where memory ran out, scored in smaller batches. No two
containers of a session ever run candidate code at the same time, and only the one of the training can reach the
volume: for the others PID 1 copies the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.config import Config
from runner.records import Phase, RunRecord
from runner.sandbox.containers import Owner, Sandbox, create_output_volume, discard, remove_volume
from runner.sandbox.core_meter import STRETCH
from runner.sandbox.engine import Engine
from runner.sandbox.responder import Question, Responder, open_responder
from runner.sandbox.training import Callbacks, Training, train


@dataclass(frozen=True, kw_only=True)
class Mounts:
    """Host files that containers see, all of them read-only."""

    locked: Path  # holds `locked_eval/`
    train: Callable[[int], Mapping[str, Path]]  # files of `/data` by name, as issued for a seed
    val: Path
    test: Path


@dataclass(frozen=True, kw_only=True)
class Session:
    """A waiting scorer and an output volume for one candidate. Use `open_session`."""

    sandbox: Sandbox
    mounts: Mounts
    image_id: str
    volume: str
    scorer: Responder
    max_claims_bytes: int

    @property
    def keeps_checkpoint(self) -> bool:
        """Whether the scorer, which has ended, still holds the volume: its PID 1 may have been killed, too."""
        return self.scorer.reports.ended.is_set()

    def train(
        self,
        seed: int,
        on_line: Callable[[str], None] | None = None,
        on_start: Callable[[], None] = lambda: None,
        on_end: Callable[[], None] = lambda: None,
        gives_up: Callable[[], bool] | None = None,
    ) -> RunRecord:
        """Run `workload.train` once; `Callbacks` explains the functions.

        Args:
            seed: issued by the host for this run; determines the order and the choice of the data.

        Raises:
            EngineError: the engine failed; says nothing about the candidate.
        """
        return train(
            self.sandbox,
            Training(image_id=self.image_id, volume=self.volume, data=self.mounts.train(seed), seed=seed),
            Callbacks(
                on_line=on_line,
                on_start=on_start,
                on_end=on_end,
                gives_up=gives_up,
                meanwhile=self.scorer.refuse_dead,
            ),
        )

    def score(self, seed: int, batch_rows: int) -> tuple[RunRecord, bytes | None]:
        """Score the validation rows; returns how the run ended, and the claims.

        Args:
            batch_rows: rows of a forward pass. The waiting container takes as many as the settings say, once; for
                fewer, another one is started.

        Raises:
            EngineError: the engine failed.
        """
        config = self.sandbox.config
        if batch_rows == config.score_batch_rows:
            return self.scorer.go(seed)
        limit_seconds, max_bytes = config.score_seconds, self.max_claims_bytes
        with self._respond(Phase.SCORE, self.mounts.val, batch_rows, limit_seconds, max_bytes) as container:
            return container.go(seed)

    def auditor(
        self, rows: Path, *, batch_rows: int, limit_seconds: float, max_bytes: int
    ) -> AbstractContextManager[Responder]:
        """Start a container that answers the rows of an audit; it may wait for its start signal beside another.

        Args:
            rows: folder with the audit's files; see `locked_eval/container/auditor.py`.
            batch_rows: those of the scoring that it audits.
            limit_seconds: wall clock of the answer, without what other programs took of its cores.
            max_bytes: a longer answer is discarded.

        Raises:
            EngineError: the engine failed.
        """
        return self._respond(Phase.AUDIT, rows, batch_rows, limit_seconds, max_bytes)

    def score_test(self, seed: int, batch_rows: int, max_bytes: int) -> tuple[RunRecord, bytes | None]:
        """Score the sealed test rows, as `score` does; returns how the run ended, and the claims.

        Raises:
            EngineError: the engine failed.
        """
        seconds = self.sandbox.config.score_seconds
        with self._respond(Phase.TEST, self.mounts.test, batch_rows, seconds, max_bytes) as container:
            return container.go(seed)

    def _respond(
        self, phase: Phase, rows: Path, batch_rows: int, limit_seconds: float, max_bytes: int
    ) -> AbstractContextManager[Responder]:
        question = Question(
            phase=phase,
            program="audit" if phase is Phase.AUDIT else "score",
            image_id=self.image_id,
            rows=rows,
            batch_rows=batch_rows,
            volume=self.volume,
            limit_seconds=limit_seconds,
            # while another one answers
            hold_seconds=2 * start_up_seconds(self.sandbox.config) + STRETCH * limit_seconds,
            linger_seconds=0,
            max_bytes=max_bytes,
        )
        return open_responder(self.sandbox, question)


def start_up_seconds(config: Config) -> float:
    """Longest time from a container's creation to its first report, the engine's part included."""
    return config.startup_seconds + 60


def linger_seconds(config: Config) -> float:
    """Longest time for which the volume is needed after the first scoring.

    That is for two auditors, the sealed rows, and further scorings, each with half the rows of the one before.
    """
    halvings = config.score_batch_rows.bit_length() - 1
    return (3 + halvings) * start_up_seconds(config) + (6 + halvings) * STRETCH * config.score_seconds


@contextmanager
def open_session(
    engine: Engine, *, config: Config, mounts: Mounts, image_id: str, owner: Owner, max_claims_bytes: int
) -> Iterator[Session]:
    """Create the volume and start the scorer, and remove both in any case.

    Raises:
        EngineError: the engine failed, or the scorer did not come up.
    """
    sandbox = Sandbox(engine=engine, config=config, locked=mounts.locked, owner=owner)
    with ExitStack() as stack:
        volume = create_output_volume(engine, config, owner)
        stack.callback(discard, remove_volume, engine.client, volume)
        start_up = start_up_seconds(config)
        question = Question(
            phase=Phase.SCORE,
            program="score",
            image_id=image_id,
            rows=mounts.val,
            batch_rows=config.score_batch_rows,
            volume=volume,
            limit_seconds=config.score_seconds,
            hold_seconds=start_up * 2 + config.train_seconds,
            linger_seconds=linger_seconds(config),
            max_bytes=max_claims_bytes,
        )
        scorer = stack.enter_context(open_responder(sandbox, question))
        if not scorer.moves:
            scorer.await_ready()  # it shares the cores of the training, whose clock runs
        yield Session(
            sandbox=sandbox,
            mounts=mounts,
            image_id=image_id,
            volume=volume,
            scorer=scorer,
            max_claims_bytes=max_claims_bytes,
        )
