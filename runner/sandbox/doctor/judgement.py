"""Findings of the probes: what was taken and what happened, compared with what should have. Pure functions.

A fact that a report does not contain never counts as good.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from locked_eval.container.supervisor import EXIT_DEADLINE
from locked_eval.container.throttle import Throttle
from runner.records import RunEnd, RunRecord
from runner.sandbox.doctor.finding import ENDLESS, REMEDY, Finding, differing, finding
from runner.sandbox.kernel_limits import PAUSES, SWAP_FILES, Deviation

OUTPUT_INODES = 4096
DESCRIPTORS = 4096
LOG_BYTES = 2 * 2**20
"""Most bytes of a container's output that the engine may keep."""
LATE_SECONDS = 2.0
"""Longest delay of PID 1."""
PIECE_BYTES = 65536
"""Most bytes of a candidate's output that PID 1 reads at once."""

Report = Mapping[str, Any]
"""A JSON object that a probe printed."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The end of a run that only its PID 1 would end."""

    late_seconds: float | None  # upper bound of the delay after its deadline; None: the run went on
    exit_code: int | None
    paused: bool  # whether the daemon was stopped meanwhile
    why_not: str | None = None  # reason why it was not


def judge_bite(report: Report, run: RunRecord, log_bytes: int, task: Mapping[str, int]) -> list[Finding]:
    """Judge the report of the candidate that took all it could get.

    Args:
        report: the report of `inside/bite.py`.
        run: how it ended.
        log_bytes: size of the output that the engine kept.
        task: the caps that its container should have.
    """
    return [
        _cap("pids-cap", {"processes": (report.get("processes"), task["pids"])}),
        finding(
            "memory-cap",
            []
            if run.end is RunEnd.OUT_OF_MEMORY
            else [f"a candidate that takes memory endlessly ended as: {run.end}"],
            f"killed when it took more than {task['memory_bytes'] >> 20} MiB",
            reason=ENDLESS,
        ),
        _cap(
            "output-cap",
            {
                "bytes": (report.get("output_bytes"), task["output_bytes"]),
                "files": (report.get("output_inodes"), OUTPUT_INODES),
            },
        ),
        _cap("scratch-cap", {"bytes": (report.get("scratch_bytes"), task["scratch_bytes"])}),
        _cap("shm-cap", {"bytes": (report.get("shm_bytes"), task["shm_bytes"])}),
        _cap("descriptors-cap", {"open files": (report.get("descriptors"), DESCRIPTORS)}),
        finding(
            "file-cap",
            differing({"a file that is stretched": (report.get("stretched"), "EFBIG")}),
            "no file, holes included, becomes larger than its file system",
            reason=ENDLESS,
        ),
        _cap("log-cap", {"bytes of output": (log_bytes, _log_cap(run))}),
    ]


def _log_cap(run: RunRecord) -> int:
    """Most bytes that PID 1 passes on: a burst, a trickle, one piece that began in time, and the end twice."""
    seconds = 1 + (run.wall_seconds or 0)
    return Throttle.BURST_BYTES + int(Throttle.BYTES_PER_SECOND * seconds) + PIECE_BYTES + 2 * Throttle.TAIL_BYTES


def judge_rotation(log_bytes: int) -> Finding:
    """Judge how much the engine kept of a program that printed three times as much as it may keep."""
    return _cap("log-rotation", {"bytes of output": (log_bytes, LOG_BYTES)})


def judge_move(differ: list[Deviation], files: Collection[str], *, moved: bool) -> Finding:
    """Judge whether the limits of a container survive its move to other cores.

    Args:
        differ: limits that the kernel does not enforce.
        files: names of the kernel's files that were read.
        moved: whether there were other cores; else no container is moved in a night either.
    """
    name = "limits-after-move"
    if not files:
        return Finding(
            name=name,
            level="note",
            fact="the control group of a container cannot be read from here",
            reason="a limit that is changed while a candidate runs goes unnoticed",
            remedy="run on the engine's host, as a user who may read /sys/fs/cgroup",
        )
    how = "a move to other cores" if moved else "a start (candidates have every core: none is moved)"
    return finding(
        name,
        [f"{one.name} is {one.found} instead of {one.wanted} after {how}" for one in differ],
        f"the kernel enforces {', '.join(name for name in files if name not in PAUSES)} after {how}",
        reason="the engine reports these limits, but the kernel does not enforce them, and runs will be lost",
        remedy="swapoff -a, or the engine's other cgroup driver: "
        '"exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json'
        if {one.name for one in differ} <= SWAP_FILES
        else REMEDY,
    )


def judge_watch(watch: Watch) -> Finding:
    """Judge whether PID 1 alone ends a run."""
    if watch.late_seconds is None:
        problems = [f"a run went on for more than {LATE_SECONDS:g} s after its deadline"]
    else:
        problems = [] if watch.late_seconds <= LATE_SECONDS else [f"it was {watch.late_seconds:.1f} s late"]
        problems += differing({"exit code": (watch.exit_code, EXIT_DEADLINE)})
    how = "with the daemon stopped" if watch.paused else "without help"
    found = finding(
        "watchdog",
        problems,
        f"PID 1 ended a run {watch.late_seconds or 0:+.2f} s after its deadline, {how}",
        reason="a run would go on when the controller and the daemon are gone",
    )
    if found.level == "ok" and watch.why_not is not None:
        return Finding(
            name="watchdog",
            level="note",
            fact=f"{found.fact}; the daemon was not stopped: {watch.why_not}",
            reason="the same must hold while the daemon is away",
            remedy="sudo .venv/bin/autoresearch doctor, while no container runs",
        )
    return found


def _cap(name: str, taken: Mapping[str, tuple[object, int]]) -> Finding:
    """Judge whether the amounts taken stay within their caps, by unit."""
    problems = [
        f"{found} {unit} where at most {cap} are allowed"
        for unit, (found, cap) in taken.items()
        if not _within(found, cap)
    ]
    fact = ", ".join(f"{found} {unit} of at most {cap}" for unit, (found, cap) in taken.items())
    return finding(name, problems, fact, reason=ENDLESS)


def _within(taken: object, cap: int) -> bool:
    """Whether something was taken, and not too much. Zero means that the probe did not work."""
    return isinstance(taken, int) and 0 < taken <= cap
