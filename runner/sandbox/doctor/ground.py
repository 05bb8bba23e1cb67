"""The ground of the probes: an image with their programs, a folder for their tasks, and how to run them."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from runner.config import MEBI, Config
from runner.errors import AutoresearchError, DiskFullError
from runner.records import Phase, RunRecord
from runner.sandbox import images
from runner.sandbox.containers import Sandbox, create_output_volume, discard, open_container, remove_volume
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.streams import follow_logs
from runner.sandbox.supervision import POLL_SECONDS, Clock, Reports, record, wait
from runner.sandbox.training import Training

log = structlog.get_logger()

INSIDE = Path(__file__).with_name("inside")
MAX_LOG_BYTES = 16 * MEBI
"""Longest part of a log that is read; a log this long is too long already."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """Common inputs of all probes."""

    sandbox: Sandbox
    image_id: str  # holds `inside/` as its `workload/`
    scratch: Path  # host folder for tasks, readable by all

    @property
    def engine(self) -> Engine:
        """The engine that is examined."""
        return self.sandbox.engine

    @property
    def config(self) -> Config:
        """The configuration whose limits are probed."""
        return self.sandbox.config


class Running(NamedTuple):
    """A started probe, and the reports of its PID 1."""

    container: str
    reports: Reports


class Ended(NamedTuple):
    """A probe that ended, and everything that it printed."""

    run: RunRecord
    log: bytes


@contextmanager
def open_ground(sandbox: Sandbox, base_image: str, scratch: Path) -> Iterator[Ground]:
    """Build the probes' image and make the folder for tasks; both are removed afterwards.

    Anything that a killed call left behind is removed first.

    Raises:
        AutoresearchError: one of them could not be made.
    """
    with ExitStack() as stack:
        stack.callback(_remove_image, sandbox)
        _remove_image(sandbox)
        built = images.build_candidate(
            sandbox.engine.client,
            base_id=base_image,
            files={f"workload/{path.name}": path.read_bytes() for path in INSIDE.glob("*.py")},
            labels=sandbox.owner.facts(),
        )
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
        except OSError as error:
            raise DiskFullError(f"cannot write the tasks of the probes: {error}", "free some disk") from error
        yield Ground(sandbox=sandbox, image_id=built.id, scratch=scratch)


@contextmanager
def start(
    ground: Ground, config: Config, task: Mapping[str, Any], cores: tuple[int, ...] | None = None
) -> Iterator[Running]:
    """Start a probe exactly as a training is started, with an output volume; both are removed afterwards.

    Args:
        task: what the program reads; `program` names it.
        cores: cores of the host; `choose_cores` when absent.

    Raises:
        EngineError: the engine failed.
    """
    sandbox = replace(ground.sandbox, config=config)
    client = sandbox.engine.client
    folder = ground.scratch / str(task["program"])
    folder.mkdir(exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task), "utf-8")
    open_to_all(folder)
    with ExitStack() as stack:
        volume = create_output_volume(sandbox.engine, config, sandbox.owner)
        stack.callback(discard, remove_volume, client, volume)
        training = Training(
            image_id=ground.image_id,
            volume=volume,
            data={"task.json": folder / "task.json"},
            seed=0,
            cores=cores,
        )
        container = stack.enter_context(open_container(sandbox, training.spec(config, "probe")))
        with engine_errors("starting a probe"):
            client.api.start(container)
        reports, over = Reports(), threading.Event()
        stack.callback(over.set)
        follow_logs(sandbox.engine, container, stderr=True, on_line=reports.line, over=over)
        yield Running(container, reports)


def run(ground: Ground, config: Config, task: Mapping[str, Any]) -> Ended:
    """Run a probe to its end.

    Raises:
        EngineError: the engine failed.
    """
    with start(ground, config, task) as (container, reports):
        clock = Clock(
            started=reports.started,
            startup_seconds=config.startup_seconds,
            limit_seconds=config.train_seconds,
        )
        state = wait(ground.engine, container, clock)
        final = Reports()
        final.feed(read_output(ground.engine, container, stderr=True) + b"\n")
        ended = record(Phase.TRAIN, 0, state, final)
        return Ended(ended, read_output(ground.engine, container, stderr=False))


def read_output(engine: Engine, container: str, *, stderr: bool) -> bytes:
    """Read one stream of an ended container, up to `MAX_LOG_BYTES`."""
    read = bytearray()
    with engine_errors("reading the log of a probe"):
        for piece in engine.client.api.logs(container, stdout=not stderr, stderr=stderr, stream=True):
            read += piece
            if len(read) > MAX_LOG_BYTES:
                break
    return bytes(read)


def await_exit(engine: Engine, container: str, limit_seconds: float) -> int | None:
    """Wait until the engine reports the end of a container; returns its exit code, or None at the time limit."""
    give_up = time.monotonic() + limit_seconds
    with engine_errors("waiting for the end of a probe"):
        while time.monotonic() < give_up:
            state = engine.client.api.inspect_container(container)["State"]
            if state["Status"] in ("exited", "dead"):
                return int(state["ExitCode"])
            time.sleep(POLL_SECONDS)
    return None


def open_to_all(folder: Path) -> None:
    """Make a folder readable by all, whatever the umask.

    Uid 10001 must read it, and so must a PID 1 that may not override file modes.
    """
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _remove_image(sandbox: Sandbox) -> None:
    owner = sandbox.owner
    try:
        images.remove_images(sandbox.engine.client, {"controller": owner.controller, "campaign": owner.campaign})
    except AutoresearchError as error:
        log.warning("cleanup_failed", thing="image of the probes", reason=error.message)
