"""All that one trial needs of this machine: engine, mounts, evaluation rows, claims. No ledger and no git."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import structlog

from runner.config import Config
from runner.corpus.redaction import Redactor
from runner.decision.early_stopping import Calibration
from runner.errors import BaseGoneError, EngineError
from runner.evaluation.contention import Reading, gpu_disturbance
from runner.records import Files, Observer
from runner.sandbox import Engine, images, remove_orphans
from runner.sandbox.containers import Owner
from runner.sandbox.engine_outage import await_engine
from runner.sandbox.gpu_scrub import scrub
from runner.sandbox.gpu_state import container_ids, read_gpu
from runner.sandbox.host import cores_mhz
from runner.sandbox.session import Mounts

log = structlog.get_logger()

Tokens = npt.NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class EvaluationRows:
    """The rows that candidates are judged by, and what an audit needs besides."""

    val_rows: Tokens  # (N, T + 1)
    test_rows: Tokens  # (N', T + 1), sealed
    token_bytes: Tokens  # (V,) raw length of each token
    train_text: Tokens  # (L,) stands in for what an audit withholds

    @property
    def val_targets(self) -> Tokens:
        """`(N, T)` next tokens of the validation rows."""
        return self.val_rows[:, 1:]

    @property
    def test_targets(self) -> Tokens:
        """`(N', T)` next tokens of the sealed rows."""
        return self.test_rows[:, 1:]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program to measure."""

    number: int  # of its experiment; 0 for one that belongs to none
    files: Files
    commit: str  # or another name that is its own: its image is found by it
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # further ones of its image


@dataclass(frozen=True, kw_only=True)
class TrialRequest:
    """A request for one trial."""

    program: Program
    seed: int
    score_limit_seconds: float | None = None  # see `outcome.too_slow`
    early_stop: Calibration | None = None  # recognizes an unpromising training; None: it always runs to its end
    tolerate_contention: bool = False  # score it although it was disturbed
    usual_tokens_per_second: float | None = None  # of a control; see `contention.slower`


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """One place where programs are measured."""

    config: Config
    engine: Engine
    controller: str  # id of the state folder; labels carry it
    mounts: Mounts
    rows: EvaluationRows
    redactor: Redactor  # keeps text of the corpus out of logs
    scratch: Path  # rows of the running audit
    claims: Path  # of the champion
    base: images.BaseImage
    observer: Observer
    stopping: Callable[[], bool] = lambda: False  # whether a person asked to stop; polled in long waits
    power_limit_watts: float | None = None  # of the GPU, when the controller started

    @property
    def base_image(self) -> str:
        """The id of the base image."""
        return self.base.id

    def owner(self, number: int) -> Owner:
        """Labels for everything that belongs to one experiment."""
        return Owner(controller=self.controller, campaign=self.config.tag, experiment=number)

    def ensure_image(self, program: Program) -> images.Image:
        """The image of a program, built if it is not there (any more).

        Raises:
            ImageError: the build failed.
            BaseGoneError: the base image was removed, and cannot be built again.
            EngineError: the engine failed.
        """
        try:
            return self.find_image(program) or self.build(program)
        except BaseGoneError as error:
            self.observer.note(f"{error.message} by another program: building it again")
            self.base.restore()
            return self.build(program)

    def find_image(self, program: Program) -> images.Image | None:
        """The image of a program that was built before; raises what `ensure_image` does."""
        return images.find_candidate(
            self.engine.client, base_id=self.base_image, campaign=self.config.tag, commit=program.commit
        )

    def build(self, program: Program) -> images.Image:
        """Build the image of a program; raises what `ensure_image` does."""
        self.observer.phase(program.number, "build", None)
        built = images.build_candidate(
            self.engine.client,
            base_id=self.base_image,
            files=program.files,
            labels={
                **self.owner(program.number).facts(),
                **program.labels,
                "commit": program.commit,
                "base": self.base_image,
            },
        )
        log.info("image_built", experiment=program.number, image=built.id, layer=built.layer_digest)
        return built

    def scrub(self, number: int) -> None:
        """Overwrite free GPU memory, before candidate code runs.

        A warm container has no GPU memory yet: torch opens no context by itself.
        """
        scrub(
            self.engine,
            config=self.config,
            image_id=self.base_image,
            locked=self.mounts.locked,
            owner=self.owner(number),
        )

    def read_processors(self, cores: Collection[int]) -> Reading:
        """The present state of the processors that a training uses."""
        if self.config.gpu is None:
            return Reading(clock_mhz=cores_mhz(cores))
        state = read_gpu(self.config.gpu, lambda: container_ids(self.engine, self.controller))
        return Reading(clock_mhz=state.clock_mhz, disturbance=gpu_disturbance(state, self.power_limit_watts))

    def await_ready(self) -> None:
        """Wait for our engine, and remove what a failed clean-up left there: it would disturb the next trial.

        Raises:
            EngineAwayError: the engine stayed away.
            Interrupted: a person asked to stop while it was away.
        """
        await_engine(self.engine, note=self.observer.note, stopping=self.stopping)
        try:
            remove_orphans(self.engine, self.controller)
        except EngineError as error:
            log.warning(
                "cleanup_failed", reason=error.message
            )  # found again at the next failure, or the next start
