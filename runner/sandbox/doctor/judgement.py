"""What the reports from inside mean. Pure: every function takes what was seen and what belongs there.

A probe that did not see something says so; what is absent never counts as good.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from locked_eval.container.supervisor import EXIT_DEADLINE, PASSED_ENVIRONMENT
from locked_eval.container.throttle import Throttle
from runner.config import Config
from runner.records import RunEnd, RunRecord
from runner.sandbox.containers import CANDIDATE_UID, MAX_INODES, largest_file
from runner.sandbox.doctor.finding import Finding, Level
from runner.sandbox.doctor.versions import parse
from runner.sandbox.inspection import FORBIDDEN_VARIABLES
from runner.sandbox.kernel_limits import SWAP_FILES, Deviation

OUTPUT_INODES = 4096
DESCRIPTORS = 4096
LOG_BYTES = 2 * 2**20
"""What the engine may keep of a container's output."""
LATE_SECONDS = 2.0
"""The most that PID 1 may be late."""
PAGE_BYTES = 4096
PIECE_BYTES = 65536
"""What PID 1 reads of a candidate's output at once."""

_DENIED = {"EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "EROFS", "ENETUNREACH", "SIGSYS"}
_ABSENT = {"ENOENT", "ENOTDIR", "ENXIO", "ENODEV"}
_WRITABLE = {"/tmp", "/out", "/dev/shm", "/dev/mqueue"}  # noqa: S108  inside a container
_DEVICES = {"full", "null", "random", "tty", "urandom", "zero", "ptmx", "console"}
_NETWORK = ("reach", "ask")
_UNREADABLE = "a candidate could get at other programs, at this machine or at the evaluation"
_ENDLESS = "one candidate could starve the night and this machine"
_REMEDY = "do not run candidates on this engine; a current one: https://docs.docker.com/engine/install/"

Report = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How a run ended that nobody but its PID 1 would end."""

    late_seconds: float | None  # after its deadline as seen from here, or less; None: it went on
    exit_code: int | None
    paused: bool  # whether the daemon was stopped meanwhile
    why_not: str | None = None  # why it was not


def judge_look(report: Report, config: Config, cores: tuple[int, ...], torch_version: str | None) -> list[Finding]:
    """Findings of the candidate that looked around.

    Args:
        report: of `inside/look.py`.
        config: the limits that the container was to have.
        cores: the cores that it was to run on.
        torch_version: of the lock that the base image was built from.
    """
    return [
        _limits(report, config, cores),
        _victim(report),
        _user(report),
        _capabilities(report),
        _privileges(report),
        _seccomp(report),
        _attempts(report),
        _network(report),
        _mounts(report, config),
        _read_only(report),
        _devices(report, config),
        _environment(report),
        _torch(report, torch_version),
        _gpu(report, config),
    ]


def judge_bite(report: Report, run: RunRecord, log_bytes: int, task: Mapping[str, int]) -> list[Finding]:
    """Findings of the candidate that took all it could get.

    Args:
        report: of `inside/bite.py`.
        run: how it ended.
        log_bytes: what the engine kept of its output.
        task: the caps that its container was to have.
    """
    return [
        _cap("pids-cap", {"processes": (report.get("processes"), task["pids"])}),
        finding(
            "memory-cap",
            [] if run.end is RunEnd.OUT_OF_MEMORY else [f"a candidate that takes memory without end: {run.end}"],
            f"killed when it took more than {task['memory_bytes'] >> 20} MiB",
            reason=_ENDLESS,
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
            _differing({"a file that is stretched": (report.get("stretched"), "EFBIG")}),
            "no file, holes included, becomes larger than its file system",
            reason=_ENDLESS,
        ),
        _cap("log-cap", {"bytes of output": (log_bytes, _log_cap(run))}),
    ]


def _log_cap(run: RunRecord) -> int:
    """What PID 1 passes on at most: a burst, a trickle, one piece that began in time, and the end twice."""
    seconds = 1 + (run.wall_seconds or 0)
    return Throttle.BURST_BYTES + int(Throttle.BYTES_PER_SECOND * seconds) + PIECE_BYTES + 2 * Throttle.TAIL_BYTES


def judge_rotation(log_bytes: int) -> Finding:
    """What the engine kept of a program that printed three times as much as it may keep."""
    return _cap("log-rotation", {"bytes of output": (log_bytes, LOG_BYTES)})


def judge_move(differ: list[Deviation], files: Collection[str], *, moved: bool) -> Finding:
    """Whether the limits of a container outlive its move to other cores.

    Args:
        differ: limits that the kernel does not keep.
        files: names of the kernel's files that were read.
        moved: whether there were other cores; else nothing is moved in a night either.
    """
    name = "limits-after-move"
    if not files:
        return Finding(
            name=name,
            level="note",
            fact="the control group of a container cannot be read from here",
            reason="a limit that is changed while a candidate runs is not noticed",
            remedy="run on the engine's host, as a user who may read /sys/fs/cgroup",
        )
    how = "a move to other cores" if moved else "a start (candidates have every core: none is moved)"
    return finding(
        name,
        [f"{one.name} is {one.found} instead of {one.wanted} after {how}" for one in differ],
        f"the kernel keeps {', '.join(files)} after {how}",
        reason="the engine says that it keeps them; the kernel does not, and the runs will be lost",
        remedy="swapoff -a, or the engine's other cgroup driver: "
        '"exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json'
        if {one.name for one in differ} <= SWAP_FILES
        else _REMEDY,
    )


def judge_watch(watch: Watch) -> Finding:
    """Whether PID 1 alone ends a run."""
    if watch.late_seconds is None:
        problems = [f"a run went on for more than {LATE_SECONDS:g} s after its deadline"]
    else:
        problems = [] if watch.late_seconds <= LATE_SECONDS else [f"it was {watch.late_seconds:.1f} s late"]
        problems += _differing({"exit code": (watch.exit_code, EXIT_DEADLINE)})
    how = "with the daemon stopped" if watch.paused else "with nobody watching"
    found = finding(
        "watchdog",
        problems,
        f"PID 1 ended a run {watch.late_seconds or 0:+.2f} s after its deadline, {how}",
        reason="a run would go on when controller and daemon are gone",
    )
    if found.level == "ok" and watch.why_not is not None:
        return Finding(
            name="watchdog",
            level="note",
            fact=f"{found.fact}; the daemon was not stopped: {watch.why_not}",
            reason="the same is to be seen while the daemon is away",
            remedy="sudo autoresearch doctor, while no container runs",
        )
    return found


def finding(
    name: str, problems: list[str], fact: str, *, reason: str, remedy: str = _REMEDY, level: Level = "problem"
) -> Finding:
    """A finding of a probe: what is wrong, or else the fact."""
    if not problems:
        return Finding(name=name, level="ok", fact=fact)
    return Finding(name=name, level=level, fact="; ".join(problems), reason=reason, remedy=remedy)


def _limits(report: Report, config: Config, cores: tuple[int, ...]) -> Finding:
    shown = report.get("control_group") or {}
    rlimits = report.get("rlimits") or {}
    memory = config.memory_bytes // PAGE_BYTES * PAGE_BYTES
    wanted = {"memory_bytes": memory, "pids": config.pids}
    if report.get("swap_total") != "0 kB":  # else engines may leave these out, and nothing is lost
        wanted |= {"memory_and_swap_bytes": memory, "swap_bytes": 0}
    problems = _differing(
        {
            **{name: (shown[name], str(value)) for name, value in wanted.items() if name in shown},
            "cores": (tuple(report.get("affinity") or ()), cores),
            "oom_score_adj": (report.get("oom_score_adj"), "1000"),
            "core dumps": (rlimits.get("CORE"), [0, 0]),
            "open files": (rlimits.get("NOFILE"), [DESCRIPTORS, DESCRIPTORS]),
            "size of a file": (rlimits.get("FSIZE"), [largest_file(config), largest_file(config)]),
        }
    )
    if not problems and not {"memory_bytes", "pids"} <= shown.keys():
        return Finding(
            name="limits",
            level="note",
            fact="the control group is not shown inside; the engine says that it is as asked for",
            reason="memory-cap and pids-cap tell whether the limits bite",
        )
    return finding(
        "limits",
        problems,
        f"memory with swap {config.memory_bytes >> 20} MiB, {config.pids} processes, cores "
        f"{','.join(map(str, cores))}, ulimits",
        reason="the engine says that it keeps them; the kernel does not",
    )


def _victim(report: Report) -> Finding:
    """A note and no problem: no candidate gets more memory by it. An engine with CAP_SYS_RESOURCE prevents it."""
    spared = str(report.get("spared"))
    problems = [] if _is_denied("spared", spared) else [f"a candidate can lower its oom_score_adj ({spared})"]
    return finding(
        "oom-victim",
        problems,
        "a candidate stays the first to end when the machine has no memory",
        reason="when the machine itself runs out of memory, something else may be ended first",
        remedy="run the engine with CAP_SYS_RESOURCE, as services are; leave memory for the rest of the machine",
        level="note",
    )


def _user(report: Report) -> Finding:
    status = report.get("status") or {}
    wanted = [str(CANDIDATE_UID)] * 4
    problems = _differing(
        {
            "user ids": (str(status.get("Uid")).split(), wanted),
            "group ids": (str(status.get("Gid")).split(), wanted),
            "groups": (str(status.get("Groups")).split(), []),
        }
    )
    return finding("user", problems, f"uid and gid {CANDIDATE_UID}, no other group", reason=_UNREADABLE)


def _capabilities(report: Report) -> Finding:
    status = report.get("status") or {}
    names = ("CapEff", "CapPrm", "CapInh", "CapAmb")
    problems = _differing({name: (status.get(name), "0" * 16) for name in names})
    return finding("capabilities", problems, "none (CapEff, CapPrm, CapInh, CapAmb are 0)", reason=_UNREADABLE)


def _privileges(report: Report) -> Finding:
    problems = _differing({"NoNewPrivs": ((report.get("status") or {}).get("NoNewPrivs"), "1")})
    return finding("privileges", problems, "none can be gained (NoNewPrivs)", reason=_UNREADABLE)


def _seccomp(report: Report) -> Finding:
    status = report.get("status") or {}
    threads = set(report.get("threads") or ("none seen",))
    problems = _differing({"Seccomp": (status.get("Seccomp"), "2"), "Seccomp of all threads": (threads, {"2"})})
    filters = status.get("Seccomp_filters")  # since Linux 5.9
    if filters is not None and (not filters.isdigit() or int(filters) < 2):
        problems.append(f"{filters} filter instead of two, the engine's and the locked evaluation's")
    return finding(
        "seccomp",
        problems,
        f"mode 2 in every thread, {filters or 'an unknown number of'} filters",
        reason=_UNREADABLE,
    )


def _attempts(report: Report) -> Finding:
    tried = {
        name: how
        for name, how in (report.get("attempts") or {}).items()
        if not name.startswith((*_NETWORK, "write"))
    }
    allowed = [f"{name} ({how})" for name, how in sorted(tried.items()) if not _is_denied(name, how)]
    problems = [f"not denied: {', '.join(allowed)}"] if allowed else [] if tried else ["nothing was tried"]
    return finding("system-calls", problems, f"all {len(tried)} attempts were denied", reason=_UNREADABLE)


def _network(report: Report) -> Finding:
    tried = {name: how for name, how in (report.get("attempts") or {}).items() if name.startswith(_NETWORK)}
    problems = _differing({"interfaces": (report.get("interfaces"), ["lo"])})
    problems += [f"{name}: {how}" for name, how in sorted(tried.items()) if not _is_denied(name, how)]
    problems += [] if tried else ["nothing was tried"]
    return finding(
        "network",
        problems,
        "only lo, and nothing is reached",
        reason="a candidate could fetch weights or send data",
    )


def _mounts(report: Report, config: Config) -> Finding:
    options = {one["point"]: set(one["options"].split(",")) for one in report.get("mounts") or ()}
    room = report.get("room") or {}
    problems = [
        f"{point} without {name}"
        for point, names in {
            "/tmp": ("nosuid", "nodev"),  # noqa: S108
            "/out": ("nosuid", "nodev", "noexec"),
            "/dev/shm": ("nosuid", "nodev"),  # noqa: S108
            "/": ("ro",),
            "/locked": ("ro",),
        }.items()
        for name in names
        if name not in options.get(point, set())
    ]
    problems += [
        f"{point} is not read-only"
        for point in options
        if point.startswith("/data") and "ro" not in options[point]
    ]
    for point, size_bytes, inodes in (
        ("/tmp", config.scratch_bytes, MAX_INODES),  # noqa: S108
        ("/out", config.output_bytes, OUTPUT_INODES),
        ("/dev/shm", max(config.shm_bytes, 1), None),  # noqa: S108
    ):
        found = room.get(point) or {}
        whole = -(-size_bytes // PAGE_BYTES) * PAGE_BYTES
        problems += _differing({f"bytes of {point}": (found.get("bytes"), whole)})
        problems += _differing({f"inodes of {point}": (found.get("inodes"), inodes)}) if inodes else []
    return finding(
        "mounts", problems, "read-only, or nosuid and nodev with their sizes and inodes", reason=_ENDLESS
    )


def _read_only(report: Report) -> Finding:
    written = set(report.get("writable") or ())
    tried = {name: how for name, how in (report.get("attempts") or {}).items() if name.startswith("write")}
    problems = [f"{place} can be written to" for place in sorted(written - _WRITABLE)]
    problems += [f"{name}: {how}" for name, how in sorted(tried.items()) if not _is_denied(name, how)]
    problems += [f"{place} cannot be written to" for place in ("/out", "/tmp") if place not in written]  # noqa: S108
    problems += [] if tried else ["nothing was tried"]
    return finding(
        "read-only", problems, f"only {', '.join(sorted(written))} can be written to", reason=_UNREADABLE
    )


def _devices(report: Report, config: Config) -> Finding:
    found = set(report.get("devices") or ())
    strange = {
        name for name in found - _DEVICES if config.gpu is None or not name.startswith(("nvidia", "dri/", "dxg"))
    }
    problems = [f"/dev/{name} is there" for name in sorted(strange)] + ([] if found else ["none was seen"])
    return finding("devices", problems, ", ".join(sorted(found)), reason=_UNREADABLE)


def _environment(report: Report) -> Finding:
    found = set(report.get("environment") or ())
    allowed = {*PASSED_ENVIRONMENT, "LC_CTYPE"}  # which Python itself may set
    strange = {name for name in found if name not in allowed or FORBIDDEN_VARIABLES.match(name)}
    problems = [f"{name} is set" for name in sorted(strange)] + ([] if found else ["none was seen"])
    return finding(
        "environment",
        problems,
        f"{len(found)} variables, all on the list",
        reason="LD_*, NVIDIA_* and PYTHON* change which code runs before the evaluation's own",
    )


def _torch(report: Report, locked: str | None) -> Finding:
    told = str(report.get("torch"))
    version = parse(told)
    problems = [] if version is not None and version >= (2, 10) else [f"torch {told} is older than 2.10"]
    problems += _differing({"torch": (told, locked)}) if locked is not None else []
    return finding("torch-inside", problems, f"torch {told}", reason="the base image is not what its lock says")


def _gpu(report: Report, config: Config) -> Finding:
    wanted = [] if config.gpu is None else [_uuid(config.gpu)]
    seen = [_uuid(str(one)) for one in report["gpus"]] if isinstance(report.get("gpus"), list) else None
    cards = [name for name in report.get("devices") or () if re.fullmatch(r"nvidia\d+", name)]
    problems = _differing({"GPUs that torch sees": (seen, wanted), "GPU devices": (len(cards), len(wanted))})
    return finding(
        "one-gpu",
        problems,
        "exactly the one that is configured" if wanted else "none, as configured",
        reason="a candidate must have the GPU of its campaign, and no other one's memory",
    )


def _cap(name: str, taken: Mapping[str, tuple[object, int]]) -> Finding:
    """Whether what was taken stays within its cap, by unit."""
    problems = [
        f"{found} {unit} where {cap} are the most"
        for unit, (found, cap) in taken.items()
        if not _within(found, cap)
    ]
    fact = ", ".join(f"{found} {unit} of at most {cap}" for unit, (found, cap) in taken.items())
    return finding(name, problems, fact, reason=_ENDLESS)


def _within(taken: object, cap: int) -> bool:
    """Whether something was taken, and not too much. Nothing at all means that the probe did not work."""
    return isinstance(taken, int) and 0 < taken <= cap


def _is_denied(name: str, how: str) -> bool:
    return how in _DENIED or (how in _ABSENT and name.startswith(("find", "read", "write")))


def _differing(pairs: Mapping[str, tuple[object, object]]) -> list[str]:
    return [
        f"{name}: {found!r} instead of {wanted!r}" for name, (found, wanted) in pairs.items() if found != wanted
    ]


def _uuid(text: str) -> str:
    return text.removeprefix("GPU-").lower()
