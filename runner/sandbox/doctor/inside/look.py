"""A candidate that looks around and attempts forbidden acts, in ways that would do no harm if they succeeded.

Prints one JSON line. `runner/sandbox/doctor/surroundings.py` knows what it should have found.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import platform
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
NEW_USER = 0x10000000  # CLONE_NEWUSER

CALLS: Mapping[str, tuple[int, ...]] = {
    "io_uring_setup": (425, 1, address),
    "keyctl": (250, 0, -4, 1),
    "add_key": (248, address, address, address, 1, -4),
    "userfaultfd": (323, 1),
    "bpf": (321, 0, address, 64),
    "perf_event_open": (298, address, 0, -1, -1, 0),
    "ptrace": (101, 0),
    "ptrace PID 1": (101, 0x4206, 1),  # PTRACE_SEIZE: would not stop it
    "process_vm_readv": (310, os.getpid(), address, 1, address, 1),
    "process_vm_writev": (311, os.getpid(), address, 1, address, 1),
    "pidfd_getfd": (438, -1, 0),
    "kcmp": (312, os.getpid(), os.getpid(), 0, 0, 0),
    "unshare user": (272, NEW_USER),
    "unshare mounts": (272, 0x00020000),
    "clone3": (435, address, 88),
    "setns": (308, 0, 0),
    "mount": (165, address, address, address, 0),
    "umount": (166, address, 0),
    "pivot_root": (155, address, address),
    "open_tree": (428, -100, address, 1),
    "fsopen": (430, address, 0),
    "open_by_handle_at": (304, -100, address, 0),
    "init_module": (175, address, 0, address),
    "finit_module": (313, -1, address, 0),
    "kexec_load": (246, 0, 0, 0),
    "reboot": (169, 0, 0, 0),
    "swapon": (167, address, 0),
    "acct": (163, 0),
    "iopl": (172, 3),
    "syslog": (103, 3, address, 16),
    "fanotify_init": (300, 0x200, 0),
    "an x32 call": (0x40000000 | 39,),
}
"""System calls of x86_64, the only machine with images, with arguments that are harmless if allowed."""

PLACES = (
    "/", "/bin", "/candidate", "/candidate/workload", "/etc", "/home", "/lib", "/locked", "/locked/locked_eval",
    "/mnt", "/opt/venv", "/root", "/run", "/sys", "/sys/fs/cgroup", "/sys/kernel", "/usr/local/bin", "/var/tmp",  # noqa: S108
)  # fmt: skip
"""Folders that no process inside may write to, besides the mount points."""
FILES = (
    "/candidate/workload/train.py", "/etc/passwd", "/locked/locked_eval/judging/judge.py",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/proc/1/mem",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max",
    "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/cgroup.procs",
)  # fmt: skip
"""Files that no process inside may write to."""
SECRETS = ("/proc/1/environ", "/proc/1/fd", "/proc/1/mem", "/proc/kcore", "/dev/mem", "/dev/kmsg", "/etc/shadow")
"""Files that no process inside may read."""
SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/containerd/containerd.sock")
CONTROL_GROUP = {
    "memory_bytes": ("memory/memory.limit_in_bytes", "memory.max"),
    "memory_and_swap_bytes": ("memory/memory.memsw.limit_in_bytes",),
    "swap_bytes": ("memory.swap.max",),
    "pids": ("pids/pids.max", "pids.max"),
}
"""Limits in the control group, by their files in cgroup v1 and v2."""


def outcome(act: Callable[[], object]) -> str:
    """Act in a process of its own; returns `done`, the name of an errno, or the signal that ended it."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            os.write(sender, b"done")
        except OSError as error:
            os.write(sender, errno.errorcode.get(error.errno or 0, "?").encode())
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pipe.read(64).decode("ascii")
    _, status = os.waitpid(child, 0)
    return answer or (signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else "silent")


def call(number: int, *arguments: int) -> int:
    """Make one system call by its number; raises OSError when it fails."""
    ctypes.set_errno(0)
    answer: int = libc.syscall(*(ctypes.c_long(one) for one in (number, *arguments, *[0] * (6 - len(arguments)))))
    if answer == -1:
        raise OSError(ctypes.get_errno(), "")
    return answer


def clone_user() -> None:
    """Start a child in a user namespace of its own, which ends at once."""
    if call(56, NEW_USER | signal.SIGCHLD) == 0:
        os._exit(0)


def foreign_call() -> None:
    """Make a system call of 32-bit programs, getpid, from a 64-bit one."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20; int 0x80; ret
    ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()


def connect(host: str, port: int, kind: int = socket.SOCK_STREAM) -> None:
    """Connect to an address."""
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(1)
        one.connect((host, port))


def opened(path: str, flags: int) -> None:
    """Open and close a file."""
    os.close(os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY))


def attempts() -> dict[str, str]:
    """Attempt everything that must fail; returns the outcomes by name."""
    acts: dict[str, Callable[[], object]] = {
        "AF_ALG": lambda: socket.socket(38, socket.SOCK_SEQPACKET, 0),
        "AF_VSOCK": lambda: socket.socket(40, socket.SOCK_STREAM, 0),
        "AF_PACKET": lambda: socket.socket(17, socket.SOCK_RAW, 0),
        "AF_XDP": lambda: socket.socket(44, socket.SOCK_RAW, 0),
        "generic netlink": lambda: socket.socket(16, socket.SOCK_RAW, 16),
        "raw IP": lambda: socket.socket(2, socket.SOCK_RAW, 1),
        "chroot": lambda: os.chroot("/tmp"),  # noqa: S108
        "mknod": lambda: os.mknod("/tmp/device", stat.S_IFCHR | 0o600, os.makedev(1, 1)),  # noqa: S108
        "set the clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()),
        "setuid 0": lambda: os.setuid(0),
        "setgid 0": lambda: os.setgid(0),
        "setgroups": lambda: os.setgroups([0]),
        "a higher priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, -10),
        "kill PID 1": lambda: os.kill(1, signal.SIGKILL),
        "stop PID 1": lambda: os.kill(1, signal.SIGSTOP),
        "slow PID 1": lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
        "slacken PID 1": lambda: Path("/proc/1/timerslack_ns").write_text("999999999999", "ascii"),
        "pin PID 1": lambda: os.sched_setaffinity(1, {0}),
        "reach the internet": lambda: connect("1.1.1.1", 443),
        "ask a name server": lambda: connect("1.1.1.1", 53, socket.SOCK_DGRAM),
        "reach the metadata service": lambda: connect("169.254.169.254", 80),
        "reach the host": lambda: connect("172.17.0.1", 2375),
    }
    acts |= {f"write {path}": partial(opened, path, os.O_WRONLY) for path in FILES}
    acts |= {f"read {path}": partial(opened, path, os.O_RDONLY) for path in SECRETS}
    acts |= {f"find {path}": Path(path).stat for path in SOCKETS}
    if platform.machine() == "x86_64":
        acts |= {name: partial(call, *how) for name, how in CALLS.items()}
        acts |= {"clone user": clone_user, "a 32-bit call": foreign_call}
    return {name: outcome(act) for name, act in acts.items()}


def mounts() -> list[dict[str, str]]:
    """List the mounts, as the kernel reports them."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines():
        fields = line.split()
        separator = fields.index("-")
        found.append({"point": fields[4], "options": fields[5], "type": fields[separator + 1]})
    return found


def writable(places: Iterable[str]) -> list[str]:
    """List the folders in which a file can be created, and the files that open for writing; skips devices."""
    found = []
    for place in sorted(set(places)):
        try:
            mode = Path(place).stat().st_mode
            if stat.S_ISCHR(mode):
                continue  # the engine hides files of /proc under /dev/null
            if not stat.S_ISDIR(mode):
                opened(place, os.O_WRONLY)
            else:
                path = f"{place.rstrip('/')}/probe"
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                Path(path).unlink()
        except OSError:
            continue
        found.append(place)
    return found


def room(place: str) -> dict[str, int] | None:
    """Size of a file system; None when it does not exist."""
    try:
        facts = os.statvfs(place)
    except OSError:
        return None
    return {"bytes": facts.f_blocks * facts.f_frsize, "inodes": facts.f_files}


def control_group() -> dict[str, str]:
    """Read the visible limits of this container."""
    found = {}
    for name, paths in CONTROL_GROUP.items():
        for path in paths:
            try:
                found[name] = Path("/sys/fs/cgroup", path).read_text("ascii").strip()
            except OSError:
                continue
    return found


def status(path: Path) -> dict[str, str]:
    """Parse a file of /proc with a name and a colon on each line."""
    lines = (line.partition(":") for line in path.read_text("utf-8").splitlines())
    return {name: value.strip() for name, _, value in lines}


def devices() -> list[str]:
    """List device files, without terminals."""
    found = []
    for path in sorted(Path("/dev").rglob("*")):
        mode = path.lstat().st_mode
        if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and path.parts[2] != "pts":
            found.append(path.relative_to("/dev").as_posix())
    return found


def gpus() -> list[str]:
    """List the UUIDs of the GPUs that torch can use."""
    torch = sys.modules["torch"]  # the launcher imported it
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]


def main() -> None:
    """Print the report."""
    points = mounts()
    report = {
        "probe": "look",
        "status": status(Path("/proc/self/status")),
        "threads": [status(path).get("Seccomp") for path in Path("/proc/self/task").glob("*/status")],
        "oom_score_adj": Path("/proc/self/oom_score_adj").read_text("ascii").strip(),
        "rlimits": {
            name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in ("CORE", "NOFILE", "FSIZE")
        },
        "control_group": control_group(),
        "swap_total": status(Path("/proc/meminfo")).get("SwapTotal"),
        "affinity": sorted(os.sched_getaffinity(0)),
        "interfaces": sorted(name for _, name in socket.if_nameindex()),
        "mounts": points,
        "room": {place: room(place) for place in ("/tmp", "/out", "/dev/shm")},  # noqa: S108
        "writable": writable([*PLACES, *(one["point"] for one in points)]),
        "devices": devices(),
        "environment": sorted(os.environ),
        "attempts": attempts(),
        "spared": outcome(lambda: Path("/proc/self/oom_score_adj").write_text("0", "ascii")),
        "torch": str(sys.modules["torch"].__version__),
        "gpus": gpus(),
    }
    print(json.dumps(report), flush=True)


main()
