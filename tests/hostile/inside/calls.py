"""Every system call that the filter denies, with arguments that root could use: a denial is not just bad manners.

Where an argument would harm the machine, a harmless one stands in its place that fails only after the kernel
has looked at the caller's rights (`reboot` with a wrong magic number), so that the denial is another error.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import struct
import tempfile

from locked_eval.container import syscall_filter as calls

from .attempts import Group

MACHINE = platform.machine()
GROUP = Group()
CHECKED_FILE = "/locked/locked_eval/judging/judge.py"

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

page = mmap.mmap(-1, 8192)
PAGE = ctypes.addressof(ctypes.c_char.from_buffer(page))
WORDS = {name: ctypes.create_string_buffer(name.encode()) for name in ("", "user", "tmpfs", "/tmp", "/nowhere")}
ANYTHING = ctypes.create_string_buffer(4096)
AT_FDCWD = -100


def call(number: int, *arguments: int) -> int:
    """A system call by its number; raises its error."""
    ctypes.set_errno(0)
    made = [ctypes.c_long(one) for one in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    result = libc.syscall(ctypes.c_long(number), *made)
    if result == -1 and ctypes.get_errno():
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return int(result)


def word(text: str) -> int:
    return ctypes.addressof(WORDS[text])


def data(content: bytes = b"", at: int = 0) -> int:
    """An address with these bytes, and zeros behind."""
    ctypes.memset(ctypes.addressof(ANYTHING) + at, 0, 1024)
    ctypes.memmove(ctypes.addressof(ANYTHING) + at, content, len(content))
    return ctypes.addressof(ANYTHING) + at


def vector() -> int:
    return data(struct.pack("QQ", PAGE, 8))


def a_file() -> int:
    return os.open(CHECKED_FILE, os.O_RDONLY)


def own_namespace() -> int:
    return os.open("/proc/self/ns/uts", os.O_RDONLY)


def own_process() -> int:
    return os.pidfd_open(os.getpid())


def a_scratch_file() -> int:
    fd, name = tempfile.mkstemp()
    os.unlink(name)
    os.write(fd, b"x")
    return fd


def _denied(name: str, call_name: str, *arguments: object, where: int = 0) -> None:
    """An attempt at a call of the filter; arguments that are functions are called when it is made."""
    rules = [rule for rule in calls.RULES if rule.call == call_name]
    rule = rules[min(where, len(rules) - 1)]
    number = rule.x86_64 if MACHINE == "x86_64" else rule.aarch64
    if number is None:
        return

    def act() -> None:
        made = [one() if callable(one) else one for one in arguments]
        call(number, *made)

    CALLED.add(call_name)
    expected = "SUCCEEDED" if rule.answer == calls.PRETEND else errno.errorcode[rule.answer]
    GROUP.add(name, act, expected, control="root")


CALLED: set[str] = set()

_denied("fcntl: a write hint", "fcntl", a_file, 1036, lambda: data(b"\2"))
_denied("ioctl: flags of an inode", "ioctl", a_file, 0x80086601, data)
_denied("name_to_handle_at", "name_to_handle_at", AT_FDCWD, lambda: word("/tmp"), lambda: data(b"\x80"), PAGE, 0)
_denied("open_by_handle_at", "open_by_handle_at", a_file, lambda: data(b"\x08\0\0\0\1"), 0)
_denied("fadvise64: pretended", "fadvise64", -1, 0, 0, 4)
_denied("readahead: pretended", "readahead", -1, 0, 4096)
_denied("madvise: MADV_PAGEOUT", "madvise", PAGE, 4096, 21)
_denied("process_madvise", "process_madvise", -1, vector, 1, 20)
_denied("move_pages", "move_pages", 0, 0, 0)
_denied("migrate_pages", "migrate_pages", 0, 0, 0, 0)
_denied("mbind: MPOL_MF_MOVE", "mbind", PAGE, 4096, 0, 0, 0, 2)
_denied("mincore", "mincore", PAGE, 4096, data)
_denied("cachestat", "cachestat", a_file, data, lambda: data(at=2048), 0)
_denied("preadv2: RWF_NOWAIT", "preadv2", a_file, vector, 1, 0, 0, 8)
_denied("io_setup", "io_setup", 1, data)
_denied("io_submit", "io_submit", 0, 0, 0)
_denied("io_uring_setup", "io_uring_setup", 1, data)
_denied("io_uring_enter", "io_uring_enter", -1)
_denied("io_uring_register", "io_uring_register", -1)
_denied("add_key", "add_key", lambda: word("user"), lambda: word("tmpfs"), data, 1, -2)
_denied("request_key", "request_key", lambda: word("user"), lambda: word("/nowhere"), 0, -2)
_denied("keyctl", "keyctl", 0, -2, 1)
_denied("syslog", "syslog", 3, data, 16)
_denied("userfaultfd", "userfaultfd", 0)
_denied("bpf", "bpf", 0, data, 8)
_denied("perf_event_open", "perf_event_open", lambda: data(struct.pack("II", 1, 112)), 0, -1, -1, 0)
_denied("lookup_dcookie", "lookup_dcookie", 0, data, 64)
_denied("fanotify_init", "fanotify_init", 0, 0)
_denied("ptrace: PTRACE_TRACEME", "ptrace", 0)
_denied("process_vm_readv", "process_vm_readv", os.getpid, vector, 1, lambda: data(struct.pack("QQ", PAGE, 8)), 1)
_denied("process_vm_writev", "process_vm_writev", os.getpid, vector, 1, vector, 1)
_denied("pidfd_getfd", "pidfd_getfd", own_process, 0, 0)
_denied("kcmp", "kcmp", os.getpid, os.getpid, 2, 0, 0)
_denied("clone3", "clone3", 0, 0)
for _space, _flag in {"user": 0x10000000, "mount": 0x20000, "network": 0x40000000, "process": 0x20000000}.items():
    _denied(f"unshare: a {_space} namespace", "unshare", _flag)
_denied("setns", "setns", own_namespace, 0)
_denied("mount: a new tmpfs", "mount", *(lambda: word("tmpfs"), lambda: word("/tmp"), lambda: word("tmpfs")), 0, 0)
_denied("mount: /tmp again, as something else", "mount", 0, lambda: word("/tmp"), 0, 0x1000 | 0x20, 0)
_denied("umount2", "umount2", lambda: word("/nowhere"), 0)
_denied("pivot_root", "pivot_root", lambda: word("/nowhere"), lambda: word("/nowhere"))
_denied("chroot", "chroot", lambda: word("/tmp"))
_denied("open_tree", "open_tree", AT_FDCWD, lambda: word("/tmp"), 0)
_denied("move_mount", "move_mount", -1, lambda: word(""), -1, lambda: word(""), 0)
_denied("fsopen", "fsopen", lambda: word("tmpfs"), 0)
_denied("fsconfig", "fsconfig", -1, 6)
_denied("fsmount", "fsmount", -1)
_denied("fspick", "fspick", AT_FDCWD, lambda: word("/tmp"), 0)
_denied("mount_setattr", "mount_setattr", -1, lambda: word(""), 0, data, 8)
_denied("quotactl", "quotactl", 0x80000100, 0)
_denied("quotactl_fd", "quotactl_fd", -1)
_denied("init_module", "init_module", data, 8, lambda: word(""))
_denied("finit_module", "finit_module", -1, lambda: word(""))
_denied("delete_module", "delete_module", lambda: word("/nowhere"), 0x800)
_denied("kexec_load", "kexec_load", 0, 0, 0, 0xFFFF)
_denied("kexec_file_load", "kexec_file_load", -1, -1, 0, 0, 0xFFFF)
_denied("settimeofday", "settimeofday", lambda: data(struct.pack("qq", 0, 10**7)), 0)
_denied("clock_settime", "clock_settime", 0, lambda: data(struct.pack("qq", 0, 2 * 10**9)))
_denied("clock_adjtime", "clock_adjtime", 0, data)
_denied("adjtimex", "adjtimex", data)
_denied("swapon", "swapon", lambda: word("/nowhere"), 0)
_denied("swapoff", "swapoff", lambda: word("/nowhere"))
_denied("reboot", "reboot", 0, 0, 0, 0)
_denied("acct", "acct", lambda: word("/nowhere"))
_denied("iopl", "iopl", 0)
_denied("ioperm", "ioperm", 0x80, 1, 0)
_denied("modify_ldt", "modify_ldt", 0, data, 16)
SOCKETS = {
    "AF_ALG": (38, 5, 0),
    "AF_VSOCK": (40, 1, 0),
    "AF_PACKET": (17, 3, 0),
    "AF_KEY": (15, 3, 2),
    "AF_BLUETOOTH": (31, 3, 1),
    "AF_CAN": (29, 3, 1),
    "AF_TIPC": (30, 5, 0),
    "AF_RDS": (21, 5, 0),
    "AF_RXRPC": (33, 2, 2),
    "AF_SMC": (43, 1, 0),
    "AF_XDP": (44, 3, 0),
    "AF_QIPCRTR": (42, 2, 0),
    "AF_PPPOX": (24, 1, 0),
    "AF_X25": (9, 5, 0),
}
for _name, _arguments in SOCKETS.items():
    _denied(f"socket: {_name}", "socket", *_arguments)
_denied("socket: raw ICMP", "socket", 2, 3, 1, where=1)
_denied("socket: SCTP", "socket", 2, 1, 132, where=1)
_denied("socket: generic netlink", "socket", 16, 3, 16, where=1)
_denied("socketpair: AF_PACKET", "socketpair", 17, 3, 0, data)


@GROUP.attempt("clone: a user namespace", "EPERM", control="root")
def _clone_a_user_namespace() -> None:
    number = next(
        rule.x86_64 if MACHINE == "x86_64" else rule.aarch64 for rule in calls.RULES if rule.call == "clone"
    )
    assert number is not None
    child = call(number, 0x10000000 | signal.SIGCHLD)
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


CALLED.add("clone")


@GROUP.attempt("a filter that allows everything, then ptrace", "EPERM", control="root")
def _allow_everything() -> None:
    block = (calls.Instruction * 1)(calls.Instruction(calls.RETURN, 0, 0, calls.RET_ALLOW))
    program = calls.Program(1, block)
    libc.prctl(calls.PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0)))
    call(calls.SECCOMP[MACHINE], calls.SECCOMP_SET_MODE_FILTER, 0, ctypes.addressof(program))
    call(101 if MACHINE == "x86_64" else 117, 0)


if MACHINE == "x86_64":

    @GROUP.attempt("a 32-bit call (int 0x80)", "SIGSYS", control="root")
    def _foreign_architecture() -> None:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(b"\xb8\x14\0\0\0\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()

    @GROUP.attempt("an x32 call", "ENOSYS")
    def _x32() -> None:
        call(calls.X32_BIT | 39)
