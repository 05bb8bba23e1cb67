"""Judgement of the probes' reports: every detector fires on its own sign, and on no other."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from locked_eval.container.supervisor import EXIT_DEADLINE, EXIT_FINISHED
from runner.config import load
from runner.records import Phase, RunEnd, RunRecord
from runner.sandbox.container_spec import largest_file
from runner.sandbox.doctor.judgement import Watch, judge_bite, judge_rotation, judge_watch
from runner.sandbox.doctor.surroundings import judge_look

CONFIG = load(Path("/nonexistent"), {"profile": "cpu"}, environ={})
CORES = (1,)
TORCH = "2.13.0+cpu"
GPU = "GPU-8a5c1e4b-0000-1111-2222-333344445555"
GOOD = {
    "probe": "look",
    "status": {
        "Uid": "10001\t10001\t10001\t10001",
        "Gid": "10001\t10001\t10001\t10001",
        "Groups": "",
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapAmb"), "0000000000000000"),
        "NoNewPrivs": "1",
        "Seccomp": "2",
        "Seccomp_filters": "2",
    },
    "threads": ["2", "2", "2"],
    "oom_score_adj": "1000",
    "rlimits": {"CORE": [0, 0], "NOFILE": [4096, 4096], "FSIZE": [largest_file(CONFIG), largest_file(CONFIG)]},
    "control_group": {
        "memory_bytes": str(CONFIG.memory_bytes),
        "memory_and_swap_bytes": str(CONFIG.memory_bytes),
        "pids": str(CONFIG.pids),
    },
    "swap_total": "1024 kB",
    "affinity": [1],
    "interfaces": ["lo"],
    "mounts": [
        {"point": "/", "options": "ro,relatime", "type": "overlay"},
        {"point": "/tmp", "options": "rw,nosuid,nodev,relatime", "type": "tmpfs"},
        {"point": "/out", "options": "rw,nosuid,nodev,noexec,relatime", "type": "tmpfs"},
        {"point": "/dev/shm", "options": "rw,nosuid,nodev,noexec,relatime", "type": "tmpfs"},
        {"point": "/locked", "options": "ro,relatime", "type": "ext4"},
        {"point": "/data/task.json", "options": "ro,relatime", "type": "ext4"},
    ],
    "room": {
        "/tmp": {"bytes": CONFIG.scratch_bytes, "inodes": 65536},
        "/out": {"bytes": CONFIG.output_bytes, "inodes": 4096},
        "/dev/shm": {"bytes": CONFIG.shm_bytes, "inodes": 99},
    },
    "writable": ["/dev/mqueue", "/dev/shm", "/out", "/tmp"],
    "devices": ["full", "null", "random", "tty", "urandom", "zero"],
    "environment": ["HOME", "LANG", "PATH", "SEED"],
    "attempts": {
        "AF_ALG": "EAFNOSUPPORT",
        "io_uring_setup": "ENOSYS",
        "mount": "EPERM",
        "a 32-bit call": "SIGSYS",
        "reach the internet": "ENETUNREACH",
        "ask a name server": "ENETUNREACH",
        "write /proc/sysrq-trigger": "EROFS",
        "write /sys/fs/cgroup/memory.max": "ENOENT",
        "read /proc/1/mem": "EACCES",
        "find /run/docker.sock": "ENOENT",
    },
    "spared": "EACCES",
    "torch": TORCH,
    "gpus": [],
}
"""The report from a sound engine on the cpu profile."""

SIGNS = {
    "a memory limit that was dropped": ("limits", "control_group", "memory_bytes", str(1 << 62)),
    "swap besides": ("limits", "control_group", "swap_bytes", "max"),
    "twice as much with swap": ("limits", "control_group", "memory_and_swap_bytes", str(2 * CONFIG.memory_bytes)),
    "no limit on processes": ("limits", "control_group", "pids", "max"),
    "all cores": ("limits", "affinity", [0, 1]),
    "another victim": ("limits", "oom_score_adj", "0"),
    "core dumps": ("limits", "rlimits", "CORE", [-1, -1]),
    "open files": ("limits", "rlimits", "NOFILE", [4096, 1048576]),
    "endless files": ("limits", "rlimits", "FSIZE", [-1, -1]),
    "root": ("user", "status", "Uid", "0\t0\t0\t0"),
    "a saved root": ("user", "status", "Uid", "10001\t10001\t0\t10001"),
    "a group": ("user", "status", "Groups", "0"),
    "a group of its own": ("user", "status", "Gid", "0\t0\t0\t0"),
    "an effective capability": ("capabilities", "status", "CapEff", "0000000000000020"),
    "a capability that can be had": ("capabilities", "status", "CapPrm", "0000000000000020"),
    "an ambient capability": ("capabilities", "status", "CapAmb", "0000000000000020"),
    "privileges to be gained": ("privileges", "status", "NoNewPrivs", "0"),
    "no filter": ("seccomp", "status", "Seccomp", "0"),
    "one filter": ("seccomp", "status", "Seccomp_filters", "1"),
    "a thread without": ("seccomp", "threads", ["2", "0"]),
    "no threads seen": ("seccomp", "threads", []),
    "a call that works": ("system-calls", "attempts", "io_uring_setup", "done"),
    "a call that the kernel looked at": ("system-calls", "attempts", "mount", "EFAULT"),
    "a call that ended otherwise": ("system-calls", "attempts", "a 32-bit call", "done"),
    "a socket of the engine": ("system-calls", "attempts", "find /run/docker.sock", "done"),
    "memory of PID 1": ("system-calls", "attempts", "read /proc/1/mem", "done"),
    "an interface": ("network", "interfaces", ["eth0", "lo"]),
    "an answer": ("network", "attempts", "reach the internet", "done"),
    "a refusal by a host": ("network", "attempts", "reach the internet", "ECONNREFUSED"),
    "silence of a host": ("network", "attempts", "ask a name server", "?"),
    "a root that can be written to": ("mounts", "mounts", 0, "options", "rw"),
    "devices in scratch": ("mounts", "mounts", 1, "options", "rw,nosuid"),
    "programs among checkpoints": ("mounts", "mounts", 2, "options", "rw,nosuid,nodev"),
    "an evaluation that can be written to": ("mounts", "mounts", 4, "options", "rw"),
    "data that can be written to": ("mounts", "mounts", 5, "options", "rw"),
    "more scratch": ("mounts", "room", "/tmp", "bytes", 1 << 40),
    "more output": ("mounts", "room", "/out", "bytes", 1 << 40),
    "more files of output": ("mounts", "room", "/out", "inodes", 1 << 20),
    "no output": ("mounts", "room", "/out", None),
    "a folder that can be written to": ("read-only", "writable", ["/etc", "/out", "/tmp"]),
    "an output that cannot": ("read-only", "writable", ["/tmp"]),
    "sysrq": ("read-only", "attempts", "write /proc/sysrq-trigger", "done"),
    "a disk": ("devices", "devices", ["null", "sda"]),
    "a GPU on the cpu profile": ("devices", "devices", ["null", "nvidiactl"]),
    "no devices seen": ("devices", "devices", []),
    "a preload": ("environment", "environment", ["PATH", "LD_PRELOAD"]),
    "a secret": ("environment", "environment", ["PATH", "ANTHROPIC_API_KEY"]),
    "another torch": ("torch-inside", "torch", "2.12.0+cpu"),
    "an old torch": ("torch-inside", "torch", "2.9.0"),
    "a GPU that is not configured": ("one-gpu", "gpus", [GPU]),
    "no list of GPUs": ("one-gpu", "gpus", None),
}  # fmt: skip


def bad(findings):
    return {one.name: one for one in findings if one.level != "ok"}


def changed(report, path, value):
    report = copy.deepcopy(report)
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return report


def look(report, config=CONFIG):
    return judge_look(report, config, CORES, TORCH)


def test_a_sound_engine_has_no_finding():
    assert bad(look(GOOD)) == {}


@pytest.mark.parametrize("sign", SIGNS)
def test_each_sign_is_a_problem_of_its_own_finding(sign):
    name, *path, value = SIGNS[sign]
    found = bad(look(changed(GOOD, path, value)))
    assert name in found
    assert found.keys() <= {name, "devices", "one-gpu"}
    assert all(one.level == "problem" and one.reason and one.remedy for one in found.values())


def test_an_empty_report_makes_no_finding_ok():
    found = look({})
    assert {one.name for one in found if one.level == "ok"} == set()


def test_a_candidate_that_can_spare_itself_is_a_note():
    found = bad(look(changed(GOOD, ["spared"], "done")))
    assert {name: one.level for name, one in found.items()} == {"oom-victim": "note"}


def test_limits_that_are_not_shown_inside_are_a_note():
    found = bad(look(changed(GOOD, ["control_group"], {})))
    assert {name: one.level for name, one in found.items()} == {"limits": "note"}


def test_limits_on_swap_do_not_matter_where_there_is_none():
    report = changed(GOOD, ["control_group", "swap_bytes"], "max")
    assert bad(look(report)).keys() == {"limits"}
    assert bad(look({**report, "swap_total": "0 kB"})) == {}


def test_a_kernel_that_does_not_count_filters_is_not_blamed():
    report = copy.deepcopy(GOOD)
    del report["status"]["Seccomp_filters"]
    assert bad(look(report)) == {}


WITH_GPU = CONFIG.model_copy(update={"gpu": GPU})
ONE_CARD = ["null", "nvidia3", "nvidiactl", "nvidia-uvm"]


@pytest.mark.parametrize(
    ("gpus", "devices", "good"),
    [
        ([GPU], ONE_CARD, True),
        ([GPU.removeprefix("GPU-")], ONE_CARD, True),  # as torch writes it
        ([], ["null"], False),
        ([GPU, GPU.replace("8", "9")], ONE_CARD, False),
        ([GPU.replace("8", "9")], ONE_CARD, False),
        ([GPU], [*ONE_CARD, "nvidia4"], False),  # a card that is hidden from torch
    ],
)
def test_exactly_the_configured_gpu_is_there(gpus, devices, good):
    found = bad(look({**GOOD, "gpus": gpus, "devices": devices}, WITH_GPU))
    assert ("one-gpu" not in found) == good


TASK = {
    "memory_bytes": 1 << 30,
    "output_bytes": 1 << 26,
    "scratch_bytes": 1 << 26,
    "shm_bytes": 1 << 26,
    "pids": 128,
}
TAKEN = {
    "output_bytes": 1 << 26,
    "output_inodes": 4095,
    "scratch_bytes": 1 << 26,
    "shm_bytes": 1 << 26,
    "processes": 127,
    "descriptors": 4093,
    "stretched": "EFBIG",
}


def ended(end):
    return RunRecord(
        phase=Phase.TRAIN, seed=0, end=end, exit_code=-9, wall_seconds=1.0, cpu_seconds=1.0, log_tail=""
    )


def bite(report=TAKEN, end=RunEnd.OUT_OF_MEMORY, log_bytes=190_000):
    return bad(judge_bite(report, ended(end), log_bytes, TASK))


def test_caps_that_bite_are_no_finding():
    assert bite() == {}


@pytest.mark.parametrize(
    ("taken", "value", "name"),
    [
        ("processes", 192, "pids-cap"),
        ("output_bytes", (1 << 26) + 1, "output-cap"),
        ("output_inodes", 4160, "output-cap"),
        ("scratch_bytes", 1 << 27, "scratch-cap"),
        ("shm_bytes", 1 << 27, "shm-cap"),
        ("descriptors", 4160, "descriptors-cap"),
        ("stretched", "done", "file-cap"),
        ("output_bytes", 0, "output-cap"),  # nothing could be taken: nothing was probed
    ],
)
def test_a_cap_that_does_not_bite_is_a_problem(taken, value, name):
    assert bite({**TAKEN, taken: value}).keys() == {name}


def test_memory_without_end_and_output_without_end_are_problems():
    assert bite(end=RunEnd.FINISHED).keys() == {"memory-cap"}
    assert bite(end=RunEnd.DEADLINE).keys() == {"memory-cap"}
    assert bite(log_bytes=8 << 20).keys() == {"log-cap"}


def test_a_log_that_the_engine_does_not_rotate_is_a_problem():
    assert judge_rotation(1_600_000).level == "ok"
    assert judge_rotation(6 << 20).level == "problem"
    assert judge_rotation(0).level == "problem"


def watch(**changes):
    facts = {"late_seconds": 0.1, "exit_code": EXIT_DEADLINE, "paused": True} | changes
    return judge_watch(Watch(**facts))


def test_a_pid_1_that_ends_a_run_in_time_is_no_finding():
    assert watch().level == "ok"
    assert watch(late_seconds=-2.5).level == "ok", "its report that the clock runs came late"
    assert "daemon stopped" in watch().fact


@pytest.mark.parametrize("sign", [{"late_seconds": None, "exit_code": None}, {"late_seconds": 2.5}])
def test_a_run_that_does_not_end_at_its_deadline_is_a_problem(sign):
    assert watch(**sign).level == "problem"
    assert watch(**sign, paused=False, why_not="only root can").level == "problem"


def test_an_end_that_was_not_the_deadlines_is_a_problem():
    assert watch(exit_code=EXIT_FINISHED).level == "problem"


def test_a_daemon_that_was_not_stopped_is_a_note_that_says_why():
    found = watch(paused=False, why_not="only root can")
    assert found.level == "note"
    assert "only root can" in found.fact
    assert found.remedy
