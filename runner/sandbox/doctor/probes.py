"""Behaviour probes: candidates of our own in real containers, made as every candidate's is.

Four programs (`inside/`): `look` tells what it sees and what it is denied, under the limits of the campaign;
`bite` takes all it can get, under the same arguments with smaller numbers, so that a probe neither fills this
machine nor takes long; `flood` stands in for PID 1 and prints more than the engine may keep; `hang` does not
end, and nobody but its PID 1 is there to end it.

Not covered: what the containers of scoring and audits have besides (an open stdin); kernel bugs; behaviour that
an engine shows only now and then.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import structlog

from runner.config import MEBI, Config
from runner.errors import AutoresearchError, DiskFullError, EngineError
from runner.records import Phase, RunRecord
from runner.sandbox import images
from runner.sandbox.containers import (
    OutputVolume,
    Owner,
    choose_cores,
    create_container,
    create_output_volume,
    discard,
    largest_file,
    limits_of,
    move_container,
    remove_container,
    remove_volume,
    spare_cores,
)
from runner.sandbox.doctor import daemon, judgement
from runner.sandbox.doctor.finding import Finding
from runner.sandbox.engine import Engine, engine_errors
from runner.sandbox.inspection import has_swap
from runner.sandbox.kernel_limits import deviations, limit_files
from runner.sandbox.streams import follow_logs
from runner.sandbox.supervision import GRACE_SECONDS, POLL_SECONDS, Reports, record, wait
from runner.untrusted import clean

log = structlog.get_logger()

INSIDE = Path(__file__).with_name("inside")
LOOK_SECONDS = 30.0
BITE_SECONDS = 60.0
HANG_SECONDS = 3.0
FUSE_SECONDS = 1.0
"""How much later than needed a stopped daemon is woken whatever happens."""
FLOOD_SECONDS = 30.0
MAX_LOG_BYTES = 16 * MEBI
"""More of a log is not read: it is too much anyway."""
BITE_MEMORY_BYTES = 1024 * MEBI
BITE_FILE_BYTES = 64 * MEBI
BITE_PIDS = 128


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What every probe needs."""

    engine: Engine
    config: Config
    image_id: str  # holds `inside/` as its `workload/`
    locked: Path  # host folder that holds `locked_eval/`
    scratch: Path  # host folder for tasks, readable by all
    owner: Owner


class Running(NamedTuple):
    """A started candidate, and what its PID 1 says."""

    container: str
    reports: Reports


class Ended(NamedTuple):
    """A probe that ended, and everything that it printed."""

    run: RunRecord
    log: bytes


def probe(
    engine: Engine,
    *,
    config: Config,
    base_image: str,
    locked: Path,
    scratch: Path,
    owner: Owner,
    torch_version: str | None,
    pause_daemon: bool,
    on_progress: Callable[[str], None],
) -> list[Finding]:
    """Run every probe; nothing is left behind. Costs about ten seconds. The controller's lock must be held.

    Args:
        config: of a campaign; its limits are probed.
        base_image: id of the base image.
        locked: host folder that holds `locked_eval/`.
        scratch: a folder for tasks; made, and removed.
        owner: labels of what is made.
        torch_version: what the base image should hold.
        pause_daemon: stop the engine's daemon while PID 1 has to end a run; left out where that could disturb
            others or is not possible, and then the finding says why.
        on_progress: told at the start of each probe what it does.
    """
    findings: list[Finding] = []
    try:
        on_progress("building the candidate of the probes")
        with open_ground(engine, config, base_image, locked, scratch, owner) as ground:
            on_progress("looking around in a container")
            findings += look(ground, torch_version)
            on_progress("taking all there is")
            findings += bite(ground)
            on_progress("flooding the log")
            findings.append(flood(ground))
            on_progress("moving a container to other cores")
            findings.append(move(ground))
            on_progress("waiting for PID 1 to end a run")
            findings.append(watchdog(ground, pause_daemon))
    except AutoresearchError as error:
        findings.append(
            Finding(
                name="probes",
                level="problem",
                fact=error.message,
                reason="what a container of this engine holds back was not seen to the end",
                remedy=error.remedy,
            )
        )
    return findings


def look(ground: Ground, torch_version: str | None) -> list[Finding]:
    """What a candidate sees and is denied, under the limits of the campaign."""
    config = ground.config.model_copy(update={"train_seconds": LOOK_SECONDS})
    ended = _train(ground, config, {"program": "look"})
    report = _report(ended.log, "look")
    if report is None:
        return [_silent("look", ended)]
    return judgement.judge_look(report, config, choose_cores(config), torch_version)


def bite(ground: Ground) -> list[Finding]:
    """What a candidate gets that takes all it can, under smaller limits."""
    config = ground.config
    small = {
        "memory_bytes": min(config.memory_bytes, BITE_MEMORY_BYTES),
        "output_bytes": min(config.output_bytes, BITE_FILE_BYTES),
        "scratch_bytes": min(config.scratch_bytes, BITE_FILE_BYTES),
        "shm_bytes": min(max(config.shm_bytes, MEBI), BITE_FILE_BYTES),
        "pids": min(config.pids, BITE_PIDS),
    }
    config = config.model_copy(update={**small, "train_seconds": BITE_SECONDS})
    task = {
        **small,
        "output_inodes": judgement.OUTPUT_INODES,
        "descriptors": judgement.DESCRIPTORS,
        "file_bytes": largest_file(config),
    }
    ended = _train(ground, config, {"program": "bite", **task})
    report = _report(ended.log, "bite")
    if report is None:
        return [_silent("bite", ended)]
    return judgement.judge_bite(report, ended.run, len(ended.log), task)


def flood(ground: Ground) -> Finding:
    """What the engine keeps of a program that prints too much."""
    folder = ground.scratch / "flood"
    (folder / "locked_eval").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(INSIDE / "flood.py", folder / "locked_eval" / "flood.py")
    _open_to_all(folder)
    api = ground.engine.client.api
    with ExitStack() as stack:
        container = create_container(
            ground.engine,
            config=ground.config,
            image_id=ground.image_id,
            phase="probe",
            command=[],
            environment={},
            read_only={"/locked": folder},
            output_volume=None,
            owner=ground.owner,
            interactive=False,
            program="flood.py",
        )
        stack.callback(discard, remove_container, ground.engine.client, container)
        with engine_errors("probing the log"):
            api.start(container)
            give_up = time.monotonic() + FLOOD_SECONDS
            while api.inspect_container(container)["State"]["Running"]:
                if time.monotonic() > give_up:
                    raise EngineError(f"printing 6 MB took longer than {FLOOD_SECONDS:g} s", "is the disk full?")
                time.sleep(POLL_SECONDS)
        return judgement.judge_rotation(len(_output(ground.engine, container, stderr=False)))


def move(ground: Ground) -> Finding:
    """What the kernel keeps of the limits of a container that is moved to other cores, as in a night."""
    limits, spare = limits_of(ground.config), spare_cores(ground.config)
    config = ground.config.model_copy(update={"train_seconds": LOOK_SECONDS})
    with _started(ground, config, {"program": "hang"}, cores=spare or None) as (container, _):
        if spare:
            process = move_container(ground.engine, container, limits)
        else:
            with engine_errors("inspecting the probe"):
                process = int(ground.engine.client.api.inspect_container(container)["State"]["Pid"])
        files = limit_files(process, container)
        return judgement.judge_move(deviations(files, limits, swap=has_swap()), files, moved=bool(spare))


def watchdog(ground: Ground, pause_daemon: bool) -> Finding:
    """Whether PID 1 ends a run that nobody else would end, if possible while the daemon is stopped."""
    config = ground.config.model_copy(update={"train_seconds": HANG_SECONDS})
    api = ground.engine.client.api
    with _started(ground, config, {"program": "hang"}) as (container, reports), ExitStack() as stack:
        with engine_errors("inspecting the probe"):
            process = int(api.inspect_container(container)["State"]["Pid"])
        try:
            handle = os.pidfd_open(process)
        except OSError as error:
            raise EngineError(
                f"PID 1 of a container is not seen from here: {error}", "run on the engine's host"
            ) from error
        stack.callback(os.close, handle)
        if not reports.started.wait(config.startup_seconds + GRACE_SECONDS):
            raise EngineError("the probe did not start", "is startup_seconds too short?")
        deadline = time.monotonic() + HANG_SECONDS  # not before PID 1's own: its word takes time to come here
        latest = deadline + judgement.LATE_SECONDS
        server, why_not = _stoppable(ground, pause_daemon)
        if server is not None:
            try:
                stack.enter_context(daemon.paused(server, latest + FUSE_SECONDS - time.monotonic()))
            except OSError as error:
                server, why_not = None, f"it cannot be stopped ({error})"
        ended = daemon.await_end(handle, latest)
        stack.close()  # the daemon goes on
        watch = judgement.Watch(
            late_seconds=None if ended is None else ended - deadline,
            exit_code=None if ended is None else _exit_code(ground.engine, container),
            paused=server is not None,
            why_not=why_not,
        )
    return judgement.judge_watch(watch)


def _stoppable(ground: Ground, wanted: bool) -> tuple[int | None, str | None]:
    """The process of the engine's daemon, or why it is not to be stopped."""
    if not wanted:
        return None, "--no-pause"
    if os.geteuid() != 0:
        return None, "only root can"
    process = daemon.find_daemon(ground.engine)
    if process is None:
        return None, f"no process {daemon.DAEMON} is seen behind {ground.engine.url}"
    others = daemon.running_others(ground.engine, ground.owner.controller).containers
    if others:
        return None, f"{others} container{'s' if others > 1 else ''} of others would have to do without it"
    return process, None


@contextmanager
def open_ground(
    engine: Engine, config: Config, base_image: str, locked: Path, scratch: Path, owner: Owner
) -> Iterator[Ground]:
    """The candidate's image and a folder for tasks; both are gone afterwards, also those of a killed call.

    Raises:
        AutoresearchError: one of them could not be made.
    """
    with ExitStack() as stack:
        stack.callback(_remove_image, engine, owner)
        _remove_image(engine, owner)
        built = images.build_candidate(
            engine.client,
            base_id=base_image,
            files={f"workload/{path.name}": path.read_bytes() for path in INSIDE.glob("*.py")},
            labels=owner.facts(),
        )
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            scratch.mkdir(parents=True)
        except OSError as error:
            raise DiskFullError(f"cannot write the tasks of the probes: {error}", "free some disk") from error
        yield Ground(engine=engine, config=config, image_id=built.id, locked=locked, scratch=scratch, owner=owner)


def _remove_image(engine: Engine, owner: Owner) -> None:
    try:
        images.remove_images(engine.client, {"controller": owner.controller, "campaign": owner.campaign})
    except AutoresearchError as error:
        log.warning("cleanup_failed", thing="image of the probes", reason=error.message)


def _train(ground: Ground, config: Config, task: Mapping[str, Any]) -> Ended:
    """Run one candidate to its end."""
    with _started(ground, config, task) as (container, reports):
        state, killed = wait(
            ground.engine,
            container,
            started=reports.started,
            startup_seconds=config.startup_seconds,
            limit_seconds=config.train_seconds,
        )
        final = Reports()
        final.feed(_output(ground.engine, container, stderr=True) + b"\n")
        run = record(Phase.TRAIN, 0, state, killed and reports.started.is_set(), final)
        return Ended(run, _output(ground.engine, container, stderr=False))


@contextmanager
def _started(
    ground: Ground, config: Config, task: Mapping[str, Any], cores: tuple[int, ...] | None = None
) -> Iterator[Running]:
    """A running candidate with an output volume, made as that of a training is; both are removed."""
    folder = ground.scratch / str(task["program"])
    folder.mkdir(exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task), "utf-8")
    _open_to_all(folder)
    with ExitStack() as stack:
        volume = create_output_volume(ground.engine, config, ground.owner)
        stack.callback(discard, remove_volume, ground.engine.client, volume)
        container = create_container(
            ground.engine,
            config=config,
            image_id=ground.image_id,
            phase="probe",
            command=["train", "--startup", str(config.startup_seconds), "--limit", str(config.train_seconds)],
            environment={
                "DATA_DIR": "/data",
                "OUT_DIR": "/out",
                "SEED": "0",
                "DEADLINE_SECONDS": str(config.train_seconds),
                "PROFILE": config.profile,
            },
            read_only={"/locked": ground.locked, "/data/task.json": folder / "task.json"},
            output_volume=OutputVolume(volume, "/out", writable=True),
            owner=ground.owner,
            interactive=False,
            cores=cores,
        )
        stack.callback(discard, remove_container, ground.engine.client, container)
        with engine_errors("starting a probe"):
            ground.engine.client.api.start(container)
        reports, over = Reports(), threading.Event()
        stack.callback(over.set)
        follow_logs(ground.engine, container, stderr=True, on_line=reports.line, over=over)
        yield Running(container, reports)


def _output(engine: Engine, container: str, *, stderr: bool) -> bytes:
    """One stream of an ended container, as far as it is of interest."""
    read = bytearray()
    with engine_errors("reading the log of a probe"):
        for piece in engine.client.api.logs(container, stdout=not stderr, stderr=stderr, stream=True):
            read += piece
            if len(read) > MAX_LOG_BYTES:
                break
    return bytes(read)


def _report(log: bytes, program: str) -> dict[str, Any] | None:
    """What a probe reported; None when it did not come so far."""
    for line in log.splitlines():
        try:
            report = json.loads(line)
        except ValueError:
            continue
        if isinstance(report, dict) and report.get("probe") == program:
            return report
    return None


def _silent(program: str, ended: Ended) -> Finding:
    tail = clean(ended.log[-2000:].decode("utf-8", "replace"), 3)
    return Finding(
        name="probes",
        level="problem",
        fact=f"the probe {program!r} did not report: {ended.run.end}, exit code {ended.run.exit_code}; {tail}",
        reason="what a container of this engine holds back was not seen",
        remedy="autoresearch clean --base, then autoresearch prepare; if it stays, report this line",
    )


def _exit_code(engine: Engine, container: str) -> int | None:
    """The exit code of a container whose PID 1 has ended; None when the engine does not notice."""
    give_up = time.monotonic() + judgement.LATE_SECONDS + GRACE_SECONDS
    with engine_errors("asking how the probe ended"):
        while time.monotonic() < give_up:
            state = engine.client.api.inspect_container(container)["State"]
            if state["Status"] in ("exited", "dead"):
                return int(state["ExitCode"])
            time.sleep(POLL_SECONDS)
    return None


def _open_to_all(folder: Path) -> None:
    """Whatever the umask here: uid 10001 must read this, and so must a PID 1 that may not override modes."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
