"""Findings of the candidate that looks around: what it saw, compared with what belongs there. Pure functions.

A fact that a report does not contain never counts as good.
"""

from __future__ import annotations

import re

from locked_eval.container.supervisor import PASSED_ENVIRONMENT
from runner.config import Config
from runner.sandbox.container_spec import MAX_INODES, largest_file
from runner.sandbox.containers import CANDIDATE_UID
from runner.sandbox.doctor.finding import ENDLESS, UNREADABLE, Finding, differing, finding
from runner.sandbox.doctor.judgement import DESCRIPTORS, OUTPUT_INODES, Report
from runner.sandbox.doctor.versions import parse
from runner.sandbox.inspection import FORBIDDEN_VARIABLES

PAGE_BYTES = 4096

_DENIED = {"EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "EROFS", "ENETUNREACH", "SIGSYS"}
_ABSENT = {"ENOENT", "ENOTDIR", "ENXIO", "ENODEV"}
_WRITABLE = {"/tmp", "/out", "/dev/shm", "/dev/mqueue"}  # noqa: S108  inside a container
_DEVICES = {"full", "null", "random", "tty", "urandom", "zero", "ptmx", "console"}
_NETWORK = ("reach", "ask")


def judge_look(report: Report, config: Config, cores: tuple[int, ...], torch_version: str | None) -> list[Finding]:
    """Judge the report of the candidate that looked around.

    Args:
        report: the report of `inside/look.py`.
        config: the limits that the container should have.
        cores: the cores that it should run on.
        torch_version: version in the lock that the base image was built from.
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


def _limits(report: Report, config: Config, cores: tuple[int, ...]) -> Finding:
    shown = report.get("control_group") or {}
    rlimits = report.get("rlimits") or {}
    memory = config.memory_bytes // PAGE_BYTES * PAGE_BYTES
    wanted = {"memory_bytes": memory, "pids": config.pids}
    if report.get("swap_total") != "0 kB":  # else engines may leave these out, which is harmless
        wanted |= {"memory_and_swap_bytes": memory, "swap_bytes": 0}
    problems = differing(
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
            fact="the control group is not visible inside; the engine reports the requested limits",
            reason="memory-cap and pids-cap show whether the limits hold",
        )
    return finding(
        "limits",
        problems,
        f"memory with swap {config.memory_bytes >> 20} MiB, {config.pids} processes, cores "
        f"{','.join(map(str, cores))}, ulimits",
        reason="the engine reports these limits, but the kernel does not enforce them",
    )


def _victim(report: Report) -> Finding:
    """A note, not a problem: no candidate gets more memory by it. An engine with CAP_SYS_RESOURCE prevents it."""
    spared = str(report.get("spared"))
    problems = [] if _is_denied("spared", spared) else [f"a candidate can lower its oom_score_adj ({spared})"]
    return finding(
        "oom-victim",
        problems,
        "a candidate stays the first to be killed when the machine runs out of memory",
        reason="when the machine itself runs out of memory, another process may be killed first",
        remedy="run the engine with CAP_SYS_RESOURCE, as services are; leave memory for the rest of the machine",
        level="note",
    )


def _user(report: Report) -> Finding:
    status = report.get("status") or {}
    wanted = [str(CANDIDATE_UID)] * 4
    problems = differing(
        {
            "user ids": (str(status.get("Uid")).split(), wanted),
            "group ids": (str(status.get("Gid")).split(), wanted),
            "groups": (str(status.get("Groups")).split(), []),
        }
    )
    return finding("user", problems, f"uid and gid {CANDIDATE_UID}, no other group", reason=UNREADABLE)


def _capabilities(report: Report) -> Finding:
    status = report.get("status") or {}
    names = ("CapEff", "CapPrm", "CapInh", "CapAmb")
    problems = differing({name: (status.get(name), "0" * 16) for name in names})
    return finding("capabilities", problems, "none (CapEff, CapPrm, CapInh, CapAmb are 0)", reason=UNREADABLE)


def _privileges(report: Report) -> Finding:
    problems = differing({"NoNewPrivs": ((report.get("status") or {}).get("NoNewPrivs"), "1")})
    return finding("privileges", problems, "none can be gained (NoNewPrivs)", reason=UNREADABLE)


def _seccomp(report: Report) -> Finding:
    status = report.get("status") or {}
    threads = set(report.get("threads") or ("none seen",))
    problems = differing({"Seccomp": (status.get("Seccomp"), "2"), "Seccomp of all threads": (threads, {"2"})})
    filters = status.get("Seccomp_filters")  # since Linux 5.9
    if filters is not None and (not filters.isdigit() or int(filters) < 2):
        problems.append(f"{filters} filter instead of two, the engine's and the locked evaluation's")
    return finding(
        "seccomp",
        problems,
        f"mode 2 in every thread, {filters or 'an unknown number of'} filters",
        reason=UNREADABLE,
    )


def _attempts(report: Report) -> Finding:
    tried = {
        name: how
        for name, how in (report.get("attempts") or {}).items()
        if not name.startswith((*_NETWORK, "write"))
    }
    allowed = [f"{name} ({how})" for name, how in sorted(tried.items()) if not _is_denied(name, how)]
    problems = [f"not denied: {', '.join(allowed)}"] if allowed else [] if tried else ["no attempt was made"]
    return finding("system-calls", problems, f"all {len(tried)} attempts were denied", reason=UNREADABLE)


def _network(report: Report) -> Finding:
    tried = {name: how for name, how in (report.get("attempts") or {}).items() if name.startswith(_NETWORK)}
    problems = differing({"interfaces": (report.get("interfaces"), ["lo"])})
    problems += [f"{name}: {how}" for name, how in sorted(tried.items()) if not _is_denied(name, how)]
    problems += [] if tried else ["no attempt was made"]
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
        problems += differing({f"bytes of {point}": (found.get("bytes"), whole)})
        problems += differing({f"inodes of {point}": (found.get("inodes"), inodes)}) if inodes else []
    return finding(
        "mounts", problems, "read-only, or nosuid and nodev with their sizes and inodes", reason=ENDLESS
    )


def _read_only(report: Report) -> Finding:
    written = set(report.get("writable") or ())
    tried = {name: how for name, how in (report.get("attempts") or {}).items() if name.startswith("write")}
    problems = [f"{place} can be written to" for place in sorted(written - _WRITABLE)]
    problems += [f"{name}: {how}" for name, how in sorted(tried.items()) if not _is_denied(name, how)]
    problems += [f"{place} cannot be written to" for place in ("/out", "/tmp") if place not in written]  # noqa: S108
    problems += [] if tried else ["no attempt was made"]
    return finding(
        "read-only", problems, f"only {', '.join(sorted(written))} can be written to", reason=UNREADABLE
    )


def _devices(report: Report, config: Config) -> Finding:
    found = set(report.get("devices") or ())
    strange = {
        name for name in found - _DEVICES if config.gpu is None or not name.startswith(("nvidia", "dri/", "dxg"))
    }
    problems = [f"/dev/{name} is there" for name in sorted(strange)] + ([] if found else ["none was found"])
    return finding("devices", problems, ", ".join(sorted(found)), reason=UNREADABLE)


def _environment(report: Report) -> Finding:
    found = set(report.get("environment") or ())
    allowed = {*PASSED_ENVIRONMENT, "LC_CTYPE"}  # which Python itself may set
    strange = {name for name in found if name not in allowed or FORBIDDEN_VARIABLES.match(name)}
    problems = [f"{name} is set" for name in sorted(strange)] + ([] if found else ["none was found"])
    return finding(
        "environment",
        problems,
        f"{len(found)} variables, all on the list",
        reason="LD_*, NVIDIA_* and PYTHON* change which code runs before the evaluation's own",
    )


def _torch(report: Report, locked: str | None) -> Finding:
    found = str(report.get("torch"))
    version = parse(found)
    problems = [] if version is not None and version >= (2, 10) else [f"torch {found} is older than 2.10"]
    problems += differing({"torch": (found, locked)}) if locked is not None else []
    return finding("torch-inside", problems, f"torch {found}", reason="the base image differs from its lock")


def _gpu(report: Report, config: Config) -> Finding:
    wanted = [] if config.gpu is None else [_uuid(config.gpu)]
    seen = [_uuid(str(one)) for one in report["gpus"]] if isinstance(report.get("gpus"), list) else None
    cards = [name for name in report.get("devices") or () if re.fullmatch(r"nvidia\d+", name)]
    problems = differing({"GPUs that torch sees": (seen, wanted), "GPU devices": (len(cards), len(wanted))})
    return finding(
        "one-gpu",
        problems,
        "exactly the configured one" if wanted else "none, as configured",
        reason="a candidate must have the GPU of its campaign, and no access to the memory of others",
    )


def _is_denied(name: str, how: str) -> bool:
    return how in _DENIED or (how in _ABSENT and name.startswith(("find", "read", "write")))


def _uuid(text: str) -> str:
    return text.removeprefix("GPU-").lower()
