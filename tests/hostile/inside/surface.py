"""Files, processes and networks that a candidate would like to reach. `HOST` says where they are."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
from pathlib import Path

from .attempts import Group

GROUP = Group()
with contextlib.suppress(ImportError):
    from .host import HOST  # written by the test
libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int) -> None:
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def write(path: str, content: bytes = b"x", flags: int = os.O_CREAT) -> None:
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    os.write(fd, content)
    os.close(fd)


def read(path: str) -> None:
    with open(path, "rb") as file:
        assert file.read()


# What is locked.
CLOSED = ("EROFS", "EACCES", "EPERM")
ABSENT_IN_SCORING = {f"{act} a mount below /data": ("ENOENT",) for act in ("write to", "remove")}
LOCKED_FILE = "/locked/locked_eval/manifest.json"
for _path in ("/locked/x", "/locked/locked_eval/x.py", "/data/x", "/x", "/etc/x", "/candidate/x", "/opt/venv/x"):
    GROUP.add(f"create {_path}", lambda path=_path: write(path), "EROFS", control="root")
for _path in ("/candidate/workload/model.py", "/etc/passwd", "/bin/true"):
    GROUP.add(f"write to {_path}", lambda path=_path: write(path, b"", os.O_APPEND), *CLOSED, control="root")
for _name, _act in {
    "write to a locked file": lambda: write(LOCKED_FILE, b" ", os.O_APPEND),
    "truncate a locked file": lambda: os.truncate(LOCKED_FILE, 1),
    "make a locked file writable": lambda: os.chmod(LOCKED_FILE, 0o666),
    "own a locked file": lambda: os.chown(LOCKED_FILE, os.getuid(), os.getgid()),
    "backdate a locked file": lambda: os.utime(LOCKED_FILE, (0, 0)),
    "rename a locked file": lambda: os.rename(LOCKED_FILE, LOCKED_FILE + "2"),
    "remove a locked file": lambda: os.unlink("/locked/locked_eval/preparation/documents.py"),
    "replace the locked folder": lambda: os.rename("/locked/locked_eval", "/locked/other"),
    "write to a mount below /data": lambda: write("/data/shard-00.bin", b"x", os.O_APPEND),
    "remove a mount below /data": lambda: os.unlink("/data/shard-00.bin"),
}.items():
    GROUP.add(
        _name,
        _act,
        *CLOSED,
        "EBUSY",
        *ABSENT_IN_SCORING.get(_name, ()),
        control="root" if "mount" not in _name else None,
    )


@GROUP.attempt("a hard link to a locked file", "EXDEV", "EPERM", "EROFS")
def _link_locked() -> None:
    os.link(LOCKED_FILE, "/tmp/linked")


@GROUP.attempt("remount /locked by the program `mount`", "EPERM", control="root")
def _mount_program() -> None:
    """In many images it belongs to root and is setuid."""
    made = subprocess.run(["/bin/mount", "-o", "remount,rw,bind", "/locked"], capture_output=True, check=False)
    if made.returncode:
        raise PermissionError(errno.EPERM, "mount")


@GROUP.attempt("find a program that would run as root", "none")
def _setuid_programs() -> str:
    programs = (path for folder in ("/usr/bin", "/usr/sbin", "/usr/lib") for path in Path(folder).glob("**/*"))
    found = [
        str(path) for path in programs if path.is_file() and path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID)
    ]
    return ",".join(found) or "none"


@GROUP.attempt("run a program from /out", "EACCES", "EROFS", control="root")
def _run_from_out() -> None:
    shutil.copy("/bin/true", "/out/program")
    os.chmod("/out/program", 0o755)
    try:
        subprocess.run(["/out/program"], check=True)
    finally:
        os.unlink("/out/program")


# Devices.
for _name, _mode, _device in (
    ("a character device", stat.S_IFCHR, os.makedev(1, 1)),
    ("a block device", stat.S_IFBLK, os.makedev(254, 0)),
):
    for _folder in ("/tmp", "/out", "/dev/shm"):

        def _mknod(path=f"{_folder}/device", mode=_mode, device=_device) -> None:
            os.mknod(path, mode | 0o666, device)
            os.unlink(path)

        GROUP.add(f"mknod {_name} in {_folder}", _mknod, "EPERM", "EROFS", control="root")
for _device in ("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/vda", "/dev/sda"):
    GROUP.add(f"open {_device}", lambda path=_device: os.close(os.open(path, os.O_RDWR)), "ENOENT", *CLOSED)


# The kernel's files. Opened for writing only, never written: this also runs on a host.
def _open_for_writing(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY))


for _path in (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/irq/default_smp_affinity",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
):
    GROUP.add(f"write to {_path}", lambda path=_path: _open_for_writing(path), *CLOSED, "ENOENT", control="host")


def _control_groups(name: str) -> None:
    found = sorted(Path("/sys/fs/cgroup").glob(f"**/{name}"))
    if not found:
        raise FileNotFoundError(errno.ENOENT, name)
    for path in found:
        with contextlib.suppress(PermissionError):
            _open_for_writing(str(path))
            return
    raise PermissionError(errno.EACCES, name)


for _name in ("cgroup.procs", "release_agent", "memory.limit_in_bytes", "memory.max", "pids.max", "cpuset.cpus"):
    GROUP.add(
        f"write to a control group's {_name}",
        lambda name=_name: _control_groups(name),
        *("EROFS", "EACCES", "ENOENT"),
        control="host" if _name == "cgroup.procs" else None,
    )


@GROUP.attempt("read the kernel's memory", "NOTHING", "ENOENT")
def _kcore() -> str:
    with open("/proc/kcore", "rb") as file:
        return "NOTHING" if not file.read(64) else "READ"


# PID 1, which keeps the clock.
for _signal in ("SIGKILL", "SIGSTOP", "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGSEGV", "SIGALRM"):
    GROUP.add(
        f"send {_signal} to PID 1",
        lambda name=_signal: os.kill(1, getattr(signal, name)),
        "EPERM",
        control="root" if _signal in ("SIGKILL", "SIGSTOP") else None,  # these cannot reach it from inside
    )
for _name, _act in {
    "signal PID 1 by a descriptor": lambda: signal.pidfd_send_signal(os.pidfd_open(1), signal.SIGKILL),
    "write to the memory of PID 1": lambda: open("/proc/1/mem", "r+b").close(),
    "read the memory map of PID 1": lambda: read("/proc/1/maps"),
    "list the descriptors of PID 1": lambda: os.listdir("/proc/1/fd") and None,
    "write to the reports of PID 1": lambda: write("/proc/1/fd/2", b"{}\n", 0),
    "read the environment of PID 1": lambda: read("/proc/1/environ"),
    "read the root of PID 1": lambda: os.listdir("/proc/1/root") and None,
    "move PID 1 to other cores": lambda: os.sched_setaffinity(1, os.sched_getaffinity(1)),
    "make PID 1 slow": lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    "make PID 1 idle": lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    "limit the files of PID 1": lambda: resource.prlimit(1, resource.RLIMIT_NOFILE, (64, 64)),
    "let PID 1 sleep longer": lambda: write("/proc/1/timerslack_ns", b"50000", 0),
    "make PID 1 the first to die": lambda: write("/proc/1/oom_score_adj", b"1000", 0),
    "name PID 1": lambda: write("/proc/1/comm", b"python", 0),
}.items():
    GROUP.add(_name, _act, "EPERM", "EACCES", control=None if "descriptor" in _name else "root")


@GROUP.attempt("trace PID 1", "EPERM")
def _trace_pid_1() -> None:
    libc.ptrace.restype = ctypes.c_long
    checked(libc.ptrace(16, 1, None, None))


# Rights.
for _name, _act in {
    "become root": lambda: os.setuid(0),
    "become root in every way": lambda: os.setresuid(0, 0, 0),
    "join root's group": lambda: os.setgid(0),
    "join more groups": lambda: os.setgroups([0]),
    "map root into this process": lambda: write("/proc/self/uid_map", b"0 0 1", 0),
    "name the host": lambda: socket.sethostname("x"),
    "run in real time": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "run before the others": lambda: os.setpriority(os.PRIO_PROCESS, 0, -20),
    "never die for want of memory": lambda: write("/proc/self/oom_score_adj", b"-1000", 0),
    "set the secure bits": lambda: checked(libc.prctl(28, 1, 0, 0, 0)),
}.items():
    GROUP.add(_name, _act, "EPERM", "EACCES", control=None if "map root" in _name else "root")


@GROUP.attempt("take the capability SYS_ADMIN", "EPERM", control="root")
def _capset() -> None:
    head = ctypes.create_string_buffer(struct.pack("II", 0x20080522, 0))
    wanted = ctypes.create_string_buffer(struct.pack("6I", *[1 << 21] * 3, 0, 0, 0))
    checked(libc.capset(head, wanted))


@GROUP.attempt("undo no-new-privileges", "EINVAL")
def _new_privileges() -> None:
    checked(libc.prctl(38, *(ctypes.c_ulong(n) for n in (0, 0, 0, 0))))


@GROUP.attempt("other cores", "EINVAL")
def _other_cores() -> None:
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0) or {4096})


@GROUP.attempt("lock a gigabyte of memory", "ENOMEM", "EPERM", "EAGAIN")
def _lock_memory() -> None:
    import mmap

    room = mmap.mmap(-1, 1 << 30)
    checked(
        libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(room))), ctypes.c_size_t(1 << 30))
    )


for _name in ("NOFILE", "CORE", "FSIZE"):

    def _raise_limit(name=_name) -> None:
        which = getattr(resource, f"RLIMIT_{name}")
        _, hard = resource.getrlimit(which)
        try:
            resource.setrlimit(which, (hard + 1, hard + 1))
        except ValueError:
            raise PermissionError(errno.EPERM, "setrlimit") from None

    GROUP.add(f"raise the limit {_name}", _raise_limit, "EPERM", control="root" if _name == "NOFILE" else None)


# The host: its engine, its files, its processes, its secrets, its networks.
def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as made:
        made.settimeout(3)
        made.connect(address)  # type: ignore[arg-type]
        if kind == socket.SOCK_DGRAM:
            made.send(bytes(12))


def host(name: str) -> str:
    return str(HOST[name])


def tcp(address: str, port: int, family: int = socket.AF_INET) -> None:
    connect(family, socket.SOCK_STREAM, (address, port))


def unix(path: str) -> None:
    connect(socket.AF_UNIX, socket.SOCK_STREAM, path)


ABSENT = ("ENOENT",)
REFUSED = ("ECONNREFUSED",)
NO_ROUTE = ("ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH", "EAFNOSUPPORT")
for _name, _act, _expected in (
    ("the engine's socket", lambda: unix(host("engine")), ABSENT),
    ("an abstract socket of the host", lambda: unix("\0" + host("abstract")), REFUSED),
    ("a server on the host's loopback", lambda: tcp("127.0.0.1", int(host("port"))), REFUSED),
    ("a server on the host's own address", lambda: tcp(host("address"), int(host("port"))), (*NO_ROUTE, *REFUSED)),
    ("a canary file of the host", lambda: open(host("canary")).close(), ABSENT),
    ("the ledger", lambda: open(host("ledger")).close(), ABSENT),
    ("the project's folder", lambda: os.listdir(host("project")) and None, ABSENT),
    ("the controller's process", lambda: os.kill(int(host("pid")), 0), ("ESRCH",)),
    ("the controller's key", lambda: os.environ[host("secret")] and None, ("KeyError",)),
):
    GROUP.add(f"reach {_name}", _act, *_expected, control="host")
for _name, _act, _expected in (
    ("/var/run/docker.sock", lambda: unix("/var/run/docker.sock"), ABSENT),
    ("containerd's socket", lambda: unix("/run/containerd/containerd.sock"), ABSENT),
    ("the metadata address", lambda: tcp("169.254.169.254", 80), NO_ROUTE),
    ("a name server", lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("1.1.1.1", 53)), NO_ROUTE),
    ("the engine's name server", lambda: tcp("127.0.0.11", 53), REFUSED),
    ("the engine's bridge", lambda: tcp("172.17.0.1", 2375), NO_ROUTE),
    ("a server elsewhere", lambda: tcp("1.1.1.1", 443), NO_ROUTE),
    ("a server elsewhere, by IPv6", lambda: tcp("2606:4700:4700::1111", 443, socket.AF_INET6), NO_ROUTE),
    ("a name", lambda: socket.getaddrinfo("example.com", 80) and None, ("gaierror", "EAI")),
):
    GROUP.add(f"reach {_name}", _act, *_expected)


@GROUP.attempt("a second network interface", "lo")
def _interfaces() -> str:
    return ",".join(name for _, name in socket.if_nameindex())


@GROUP.attempt("take the network down", "EPERM", control="root")
def _interface_down() -> None:
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as made:
        fcntl.ioctl(made, 0x8914, struct.pack("16sh14x", b"lo", 0))  # SIOCSIFFLAGS


def main() -> None:
    """For the host, where some attempts must succeed: `python -m inside.surface NAME…`."""
    sys.stdout.write(GROUP.run(sys.argv[1:]))


if __name__ == "__main__":
    main()
