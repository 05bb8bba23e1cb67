"""Behavior probes: candidates of our own in real containers, created exactly as every candidate's container is.

Four programs (`inside/`): `look` reports what it sees and what it is denied, under the limits of the campaign;
`bite` takes all it can get, under the same arguments with smaller numbers, so that a probe neither fills this
machine nor takes long; `flood` replaces PID 1 and prints more than the engine may keep; `hang` does not end, and
only its PID 1 is there to end it.

Not covered: the open stdin that containers of scoring and audits have besides; kernel bugs; behavior that an
engine shows only now and then.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.config import MEBI
from runner.errors import AutoresearchError, EngineError
from runner.sandbox.container_spec import ContainerSpec, largest_file
from runner.sandbox.containers import Sandbox, limits_of, move_container, open_container
from runner.sandbox.doctor import daemon, judgement
from runner.sandbox.doctor.finding import Finding
from runner.sandbox.doctor.ground import (
    INSIDE,
    Ended,
    Ground,
    await_exit,
    open_ground,
    open_to_all,
    read_output,
    run,
    start,
)
from runner.sandbox.doctor.surroundings import judge_look
from runner.sandbox.engine import engine_errors
from runner.sandbox.inspection import has_swap
from runner.sandbox.kernel_limits import deviations, limit_files
from runner.sandbox.reservation import choose_cores, spare_cores
from runner.sandbox.supervision import GRACE_SECONDS
from runner.untrusted import clean

LOOK_SECONDS = 30.0
BITE_SECONDS = 60.0
HANG_SECONDS = 3.0
FUSE_SECONDS = 1.0
"""Delay after which a stopped daemon is woken in any case."""
FLOOD_SECONDS = 30.0
BITE_MEMORY_BYTES = 1024 * MEBI
BITE_FILE_BYTES = 64 * MEBI
BITE_PIDS = 128


def probe(
    sandbox: Sandbox,
    *,
    base_image: str,
    scratch: Path,
    torch_version: str | None,
    pause_daemon: bool,
    on_progress: Callable[[str], None],
) -> list[Finding]:
    """Run every probe, and leave nothing behind. Takes about ten seconds. The controller's lock must be held.

    Args:
        sandbox: its configuration is that of a campaign, whose limits are probed.
        base_image: id of the base image.
        scratch: folder for tasks; created and removed.
        torch_version: version that the base image should hold.
        pause_daemon: stop the engine's daemon while PID 1 has to end a run. It is not stopped where that could
            disturb others or is impossible, and then the finding says why.
        on_progress: called with one message at the start of each probe.
    """
    findings: list[Finding] = []
    try:
        on_progress("building the candidate of the probes")
        with open_ground(sandbox, base_image, scratch) as ground:
            on_progress("looking around in a container")
            findings += look(ground, torch_version)
            on_progress("using all resources")
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
                reason="the probes did not finish, so part of the sandbox is untested",
                remedy=error.remedy,
            )
        )
    return findings


def look(ground: Ground, torch_version: str | None) -> list[Finding]:
    """Probe what a candidate sees and is denied, under the limits of the campaign."""
    config = ground.config.model_copy(update={"train_seconds": LOOK_SECONDS})
    ended = run(ground, config, {"program": "look"})
    report = _report(ended.log, "look")
    if report is None:
        return [_silent("look", ended)]
    return judge_look(report, config, choose_cores(config), torch_version)


def bite(ground: Ground) -> list[Finding]:
    """Probe how much a candidate gets that takes all it can, under smaller limits."""
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
    ended = run(ground, config, {"program": "bite", **task})
    report = _report(ended.log, "bite")
    if report is None:
        return [_silent("bite", ended)]
    return judgement.judge_bite(report, ended.run, len(ended.log), task)


def flood(ground: Ground) -> Finding:
    """Probe how much the engine keeps of a program that prints too much."""
    folder = ground.scratch / "flood"
    (folder / "locked_eval").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(INSIDE / "flood.py", folder / "locked_eval" / "flood.py")
    open_to_all(folder)
    spec = ContainerSpec(phase="probe", image_id=ground.image_id, program="flood.py")
    with open_container(replace(ground.sandbox, locked=folder), spec) as container:
        with engine_errors("probing the log"):
            ground.engine.client.api.start(container)
        if await_exit(ground.engine, container, FLOOD_SECONDS) is None:
            raise EngineError(
                f"printing 6 MB took longer than {FLOOD_SECONDS:g} s", "df -h shows whether a disk is full"
            )
        return judgement.judge_rotation(len(read_output(ground.engine, container, stderr=False)))


def move(ground: Ground) -> Finding:
    """Probe which limits the kernel keeps for a container that is moved to other cores, as in a night."""
    limits, spare = limits_of(ground.config), spare_cores(ground.config)
    config = ground.config.model_copy(update={"train_seconds": LOOK_SECONDS})
    with start(ground, config, {"program": "hang"}, cores=spare or None) as (container, _):
        process = move_container(ground.engine, container, limits) if spare else _process(ground, container)
        files = limit_files(process, container)
        return judgement.judge_move(deviations(files, limits, swap=has_swap()), files, moved=bool(spare))


def watchdog(ground: Ground, pause_daemon: bool) -> Finding:
    """Probe whether PID 1 alone ends a run, if possible while the daemon is stopped."""
    config = ground.config.model_copy(update={"train_seconds": HANG_SECONDS})
    with start(ground, config, {"program": "hang"}) as (container, reports), ExitStack() as stack:
        try:
            handle = os.pidfd_open(_process(ground, container))
        except OSError as error:
            raise EngineError(
                f"PID 1 of a container is not visible from here: {error}", "run on the engine's host"
            ) from error
        stack.callback(os.close, handle)
        if not reports.started.wait(config.startup_seconds + GRACE_SECONDS):
            raise EngineError("the probe did not start", "raise the setting startup_seconds")
        deadline = time.monotonic() + HANG_SECONDS  # not before PID 1's own: its report takes time to arrive
        latest = deadline + judgement.LATE_SECONDS
        server, why_not = _stoppable(ground, pause_daemon)
        if server is not None:
            try:
                stack.enter_context(daemon.paused(server, latest + FUSE_SECONDS - time.monotonic()))
            except OSError as error:
                server, why_not = None, f"it cannot be stopped ({error})"
        ended = daemon.await_end(handle, latest)
        stack.close()  # the daemon continues
        limit_seconds = judgement.LATE_SECONDS + GRACE_SECONDS
        watch = judgement.Watch(
            late_seconds=None if ended is None else ended - deadline,
            exit_code=None if ended is None else await_exit(ground.engine, container, limit_seconds),
            paused=server is not None,
            why_not=why_not,
        )
    return judgement.judge_watch(watch)


def _process(ground: Ground, container: str) -> int:
    """The process id of a container's PID 1 on the host."""
    with engine_errors("inspecting the probe"):
        return int(ground.engine.client.api.inspect_container(container)["State"]["Pid"])


def _stoppable(ground: Ground, wanted: bool) -> tuple[int | None, str | None]:
    """The process of the engine's daemon, or the reason why it must not be stopped."""
    if not wanted:
        return None, "--no-pause"
    if os.geteuid() != 0:
        return None, "only root can"
    process = daemon.find_daemon(ground.engine)
    if process is None:
        return None, f"no process {daemon.DAEMON} is visible behind {ground.engine.url}"
    others = daemon.running_others(ground.engine, ground.sandbox.owner.controller).containers
    if others:
        return None, f"{others} container{'s' if others > 1 else ''} of others would be paused too"
    return process, None


def _report(log: bytes, program: str) -> dict[str, Any] | None:
    """The report of a probe; None when it did not get that far."""
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
        reason="part of the sandbox is untested",
        remedy="autoresearch clean --base, then autoresearch prepare; if it persists, report this line",
    )
