"""System calls that the candidate may not make: a seccomp filter for the launcher and all that it starts.

It stands on top of the engine's own filter and does two things. It takes away calls that a training program never
needs and that kernel exploits begin with: other processes' memory, namespaces, mounts, io_uring, userfaultfd, bpf,
rare kinds of sockets, calls of a foreign architecture. And it closes covert channels.

The containers of one session follow each other on one kernel. The scorer knows the answers and the audit must
not; anything that the scorer can write to a shared kernel object and the audit can read back exactly is a
channel between them. The filter closes the channels that need system calls of their own: write hints, states and
keys of file systems, keyrings, evicting single pages from memory and asking which ones are resident, moving them
between memory nodes, loading a module with `socket`, the kernel log, sockets that belong to no network
namespace. Many engines deny some of these, and most need a capability that the candidate does not have; this
filter depends on neither.

`RULES` is all of it; `program` compiles it to BPF. Standard library only.

Not covered:
    timing channels: whether a page must be read from disk, load, temperature
    page faults: a page that was cold is warm after it was touched, and `getrusage`, /proc/self/io and
        /proc/self/pagemap tell a reader which it was; no call makes a warm page cold, memory pressure can
    the host's counters in /proc, `sysinfo` and `statfs`
    the memory of a GPU and its driver
    locks, leases and watches: they end with their process, and candidates of a session never run together
    a kernel bug
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from errno import EAFNOSUPPORT, EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP, EPERM, EPROTONOSUPPORT
from typing import NamedTuple

WORD = 0xFFFFFFFF
PRETEND = 0
"""Instead of an errno: the call does nothing and reports success."""


@dataclass(frozen=True, kw_only=True)
class Argument:
    """A test of one argument, of which the kernel itself uses the low 32 bits only."""

    index: int
    values: tuple[int, ...]
    mask: int = WORD
    others: bool = False
    """Deny every value but these."""


class Rule(NamedTuple):
    """A call that is answered without being made, with any arguments or those of `test`."""

    call: str
    x86_64: int
    aarch64: int | None  # None: there is no such call
    answer: int
    test: Argument | None = None


HINTS = (1035, 1036, 1037, 1038)  # F_GET_RW_HINT, F_SET_RW_HINT, F_GET_FILE_RW_HINT, F_SET_FILE_RW_HINT
PAGE_ADVICE = (20, 21, 25)  # MADV_COLD, MADV_PAGEOUT, MADV_COLLAPSE
FAMILIES = (1, 2, 10, 16)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK
PROTOCOLS = (0, 6, 17)  # the usual one (of AF_NETLINK: routes), TCP, UDP
NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
FILE_SYSTEM_IOCTLS = tuple(kind << 8 for kind in (ord("f"), ord("v"), ord("X"), 0x94, 0xF5))

RULES = (
    # Marks on an inode, also through a read-only mount: the hint for its lifetime, the state of its extents
    # (EXT4_IOC_PRECACHE_EXTENTS, EXT4_IOC_GETSTATE), a key of its file system (FS_IOC_ADD_ENCRYPTION_KEY).
    Rule("fcntl", 72, 25, EINVAL, Argument(index=1, values=HINTS)),
    Rule("ioctl", 16, 29, ENOTTY, Argument(index=1, values=FILE_SYSTEM_IOCTLS, mask=0xFF00)),
    Rule("name_to_handle_at", 303, 264, EPERM),
    Rule("open_by_handle_at", 304, 265, EPERM),
    # Dropping single pages of a file from memory, or changing how they lie there.
    Rule("fadvise64", 221, 223, PRETEND),  # honest libraries give advice and expect success
    Rule("readahead", 187, 213, PRETEND),
    Rule("madvise", 28, 233, EINVAL, Argument(index=2, values=PAGE_ADVICE)),
    Rule("process_madvise", 440, 440, ENOSYS),
    # Pages also lie on a node of a machine with several, where they stay.
    Rule("move_pages", 279, 239, EPERM),
    Rule("migrate_pages", 256, 238, EPERM),
    Rule("mbind", 237, 235, EPERM, Argument(index=5, values=(0,), others=True)),  # MPOL_MF_MOVE
    # Asking which pages are in memory without fetching them. Reads that would not wait (RWF_NOWAIT) ask as well.
    Rule("mincore", 27, 232, ENOSYS),
    Rule("cachestat", 451, 451, ENOSYS),
    Rule("preadv2", 327, 286, EOPNOTSUPP, Argument(index=5, values=(0,), others=True)),
    Rule("io_setup", 206, 0, ENOSYS),
    Rule("io_submit", 209, 2, ENOSYS),
    Rule("io_uring_setup", 425, 425, ENOSYS),
    Rule("io_uring_enter", 426, 426, ENOSYS),
    Rule("io_uring_register", 427, 427, ENOSYS),
    # The keyring of a user is the same in every container.
    Rule("add_key", 248, 217, ENOSYS),
    Rule("request_key", 249, 218, ENOSYS),
    Rule("keyctl", 250, 219, ENOSYS),
    # AF_ALG and AF_VSOCK reach past the network namespace. A family or protocol that is unknown makes the kernel
    # load a module, until the machine reboots.
    Rule("socket", 41, 198, EAFNOSUPPORT, Argument(index=0, values=FAMILIES, others=True)),
    Rule("socket", 41, 198, EPROTONOSUPPORT, Argument(index=2, values=PROTOCOLS, others=True)),
    Rule("socketpair", 53, 199, EAFNOSUPPORT, Argument(index=0, values=FAMILIES, others=True)),
    # Windows into the kernel. Its log reports crashes in every container.
    Rule("syslog", 103, 116, EPERM),
    Rule("userfaultfd", 323, 282, EPERM),
    Rule("bpf", 321, 280, EPERM),
    Rule("perf_event_open", 298, 241, EPERM),
    Rule("lookup_dcookie", 212, 18, EPERM),
    Rule("fanotify_init", 300, 262, EPERM),
    # Other processes: their memory, registers and descriptors.
    Rule("ptrace", 101, 117, EPERM),
    Rule("process_vm_readv", 310, 270, EPERM),
    Rule("process_vm_writev", 311, 271, EPERM),
    Rule("pidfd_getfd", 438, 438, EPERM),
    Rule("kcmp", 312, 272, EPERM),
    # Namespaces: inside one of its own a user has every capability, and reaches code of the kernel that only
    # root was meant to reach. The flags of clone3 lie in memory, where no filter can read them; without it
    # the C library uses clone.
    Rule("clone", 56, 220, EPERM, Argument(index=0, values=(0,), mask=NAMESPACES, others=True)),
    Rule("clone3", 435, 435, ENOSYS),
    Rule("unshare", 272, 97, EPERM),
    Rule("setns", 308, 268, EPERM),
    # Mounts.
    Rule("mount", 165, 40, EPERM),
    Rule("umount2", 166, 39, EPERM),
    Rule("pivot_root", 155, 41, EPERM),
    Rule("chroot", 161, 51, EPERM),
    Rule("open_tree", 428, 428, EPERM),
    Rule("move_mount", 429, 429, EPERM),
    Rule("fsopen", 430, 430, EPERM),
    Rule("fsconfig", 431, 431, EPERM),
    Rule("fsmount", 432, 432, EPERM),
    Rule("fspick", 433, 433, EPERM),
    Rule("mount_setattr", 442, 442, EPERM),
    Rule("quotactl", 179, 60, EPERM),
    Rule("quotactl_fd", 443, 443, EPERM),
    # The machine itself: its kernel, clocks, swap, power, ports.
    Rule("init_module", 175, 105, EPERM),
    Rule("finit_module", 313, 273, EPERM),
    Rule("delete_module", 176, 106, EPERM),
    Rule("kexec_load", 246, 104, EPERM),
    Rule("kexec_file_load", 320, 294, EPERM),
    Rule("settimeofday", 164, 170, EPERM),
    Rule("clock_settime", 227, 112, EPERM),
    Rule("clock_adjtime", 305, 266, EPERM),
    Rule("adjtimex", 159, 171, EPERM),
    Rule("swapon", 167, 224, EPERM),
    Rule("swapoff", 168, 225, EPERM),
    Rule("reboot", 169, 142, EPERM),
    Rule("acct", 163, 89, EPERM),
    Rule("iopl", 172, None, EPERM),
    Rule("ioperm", 173, None, EPERM),
    Rule("modify_ldt", 154, None, ENOSYS),
)

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
SECCOMP = {"x86_64": 317, "aarch64": 277}
X32_BIT = 0x40000000
"""Set in the numbers of the x32 calls of x86_64: the same calls under other numbers."""

RET_KILL_PROCESS, RET_ERRNO, RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_TSYNC = 1


class Instruction(ctypes.Structure):
    """`struct sock_filter`: one instruction; `yes` and `no` are how many to skip after a comparison."""

    _fields_ = (("code", ctypes.c_uint16), ("yes", ctypes.c_uint8), ("no", ctypes.c_uint8), ("k", ctypes.c_uint32))


class Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = (("length", ctypes.c_uint16), ("first", ctypes.POINTER(Instruction)))


LOAD, AND, RETURN = 0x20, 0x54, 0x06
IF_EQUAL, IF_AT_LEAST = 0x15, 0x35
NUMBER_OFFSET, ARCH_OFFSET, ARGUMENTS_OFFSET = 0, 4, 16  # in `struct seccomp_data`, on little-endian machines


def program(machine: str) -> list[Instruction]:
    """Compile the filter for a machine, as `platform.machine` names it.

    Raises:
        RuntimeError: there are no system call numbers for this machine.
    """
    if machine not in AUDIT_ARCH:
        raise RuntimeError(f"no system call filter for {machine}, only for {' and '.join(AUDIT_ARCH)}")
    made = [
        Instruction(LOAD, 0, 0, ARCH_OFFSET),
        Instruction(IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        Instruction(RETURN, 0, 0, RET_KILL_PROCESS),  # 32-bit calls have other numbers
        Instruction(LOAD, 0, 0, NUMBER_OFFSET),
        Instruction(IF_AT_LEAST, 0, 1, X32_BIT),
        Instruction(RETURN, 0, 0, RET_ERRNO | ENOSYS),
    ]
    for rule in RULES:
        number = rule.x86_64 if machine == "x86_64" else rule.aarch64
        if number is None:
            continue
        answer = [*_test(rule.test), Instruction(RETURN, 0, 0, RET_ERRNO | rule.answer)]
        made += [Instruction(LOAD, 0, 0, NUMBER_OFFSET), Instruction(IF_EQUAL, 0, len(answer), number), *answer]
    return [*made, Instruction(RETURN, 0, 0, RET_ALLOW)]


def _test(argument: Argument | None) -> Sequence[Instruction]:
    """Instructions that go on to the next one if the call is to be denied, and else skip it."""
    if argument is None:
        return ()
    made = [
        Instruction(LOAD, 0, 0, ARGUMENTS_OFFSET + 8 * argument.index),
        Instruction(AND, 0, 0, argument.mask),
    ]
    for left, value in zip(range(len(argument.values) - 1, -1, -1), argument.values, strict=True):
        if argument.others:
            made.append(Instruction(IF_EQUAL, left + 1, 0, value))
        else:
            made.append(Instruction(IF_EQUAL, left, 0 if left else 1, value))
    return made


def install() -> None:
    """Put the filter on every thread of this process and on everything that they start; it cannot be removed.

    On every thread: `prctl` would leave out those that numpy started when it was imported.

    Raises:
        RuntimeError: there is no filter for this machine, or the process is a 32-bit one.
        OSError: the kernel or the engine does not allow filters.
    """
    machine = platform.machine()
    if sys.maxsize < 2**32:
        raise RuntimeError("no system call filter for 32-bit programs")
    made = program(machine)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, *(ctypes.c_ulong(n) for n in (1, 0, 0, 0))) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS: " + os.strerror(ctypes.get_errno()))
    block = Program(len(made), (Instruction * len(made))(*made))
    libc.syscall.restype = ctypes.c_long
    outcome = libc.syscall(
        ctypes.c_long(SECCOMP[machine]),
        ctypes.c_ulong(SECCOMP_SET_MODE_FILTER),
        ctypes.c_ulong(SECCOMP_FILTER_FLAG_TSYNC),
        ctypes.byref(block),
    )
    if outcome > 0:
        raise OSError(EINVAL, f"thread {outcome} has another system call filter")
    if outcome < 0:
        raise OSError(ctypes.get_errno(), "no system call filter: " + os.strerror(ctypes.get_errno()))
