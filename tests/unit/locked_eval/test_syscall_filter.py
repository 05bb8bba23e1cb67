"""The system call filter: what it denies fails with its errno, also in threads and children; the rest works."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from locked_eval.container import syscall_filter as calls

ROOT = Path(__file__).resolve().parents[3]
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h",),
    "aarch64": ("/usr/include/asm-generic/unistd.h",),
}
KILLED, ALLOWED = -1, None

BEFORE = """
import ctypes, fcntl, json, mmap, os, platform, select, socket, subprocess, sys, tempfile, threading
from locked_eval.container import syscall_filter as calls
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
MACHINE = platform.machine()
def number(name):
    return next(getattr(rule, MACHINE) for rule in calls.RULES if rule.call == name)
def call(name, *arguments):  # -> its errno, 0 when it succeeded
    ctypes.set_errno(0)
    made = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    made += [ctypes.c_long(0)] * (6 - len(made))
    outcome = libc.syscall(ctypes.c_long(number(name)), *made)
    return ctypes.get_errno() if outcome == -1 else 0
file = tempfile.TemporaryFile()
file.write(bytes(8192)); file.flush()
fd = file.fileno()
page = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
name = ctypes.c_char_p(b"user")
vector = (ctypes.c_uint64 * 2)(address, 4096)
wide = 1 << 32
"""

INSTALL = """
calls.install()
"""

DENIED = {
    "a write hint is set": ("call('fcntl', fd, 1036, address)", errno.EINVAL),
    "a write hint is set, upper bits": ("call('fcntl', fd, wide | 1036, address)", errno.EINVAL),
    "a write hint is read": ("call('fcntl', fd, 1035, address)", errno.EINVAL),
    "a hint of a file is set": ("call('fcntl', fd, 1038, address)", errno.EINVAL),
    "a hint of a file is read": ("call('fcntl', fd, 1037, address)", errno.EINVAL),
    "extents are cached": ("call('ioctl', fd, 0x6612)", errno.ENOTTY),
    "cached extents are read": ("call('ioctl', fd, 0x40046629, address)", errno.ENOTTY),
    "flags of an inode": ("call('ioctl', fd, 0x80086601, address)", errno.ENOTTY),
    "attributes of an inode": ("call('ioctl', fd, 0x801C581F, address)", errno.ENOTTY),
    "a clone of extents": ("call('ioctl', fd, 0x40049409, fd)", errno.ENOTTY),
    "a handle": ("call('name_to_handle_at', fd, address, address, address, 0x1000)", errno.EPERM),
    "a handle is opened": ("call('open_by_handle_at', fd, address, 0)", errno.EPERM),
    "pages become cold": ("call('madvise', address, 4096, 20)", errno.EINVAL),
    "pages are put out": ("call('madvise', address, 4096, 21)", errno.EINVAL),
    "pages are collapsed": ("call('madvise', address, 4096, 25)", errno.EINVAL),
    "advice to a process": ("call('process_madvise', -1, vector, 1, 20)", errno.ENOSYS),
    "pages change the node": ("call('move_pages', 0, 0, 0)", errno.EPERM),
    "all pages change the node": ("call('migrate_pages', 0, 0)", errno.EPERM),
    "bound pages change the node": ("call('mbind', address, 4096, 0, 0, 0, 2)", errno.EPERM),
    "residency": ("call('mincore', address, 4096, vector)", errno.ENOSYS),
    "statistics of the cache": ("call('cachestat', fd, vector, vector, 0)", errno.ENOSYS),
    "a read without waiting": ("call('preadv2', fd, vector, 1, 0, 0, 8)", errno.EOPNOTSUPP),
    "a read without caching": ("call('preadv2', fd, vector, 1, 0, 0, 0x80)", errno.EOPNOTSUPP),
    "asynchronous reads": ("call('io_setup', 1, address)", errno.ENOSYS),
    "an asynchronous read": ("call('io_submit', 0, 0, 0)", errno.ENOSYS),
    "a ring": ("call('io_uring_setup', 1, address)", errno.ENOSYS),
    "a ring is entered": ("call('io_uring_enter', -1)", errno.ENOSYS),
    "a ring is registered": ("call('io_uring_register', -1)", errno.ENOSYS),
    "a key is added": ("call('add_key', name, name, address, 1, -4)", errno.ENOSYS),
    "a key is asked for": ("call('request_key', name, name, 0, -4)", errno.ENOSYS),
    "a keyring": ("call('keyctl', 0, -4, 1)", errno.ENOSYS),
    "AF_ALG": ("call('socket', 38, 5, 0)", errno.EAFNOSUPPORT),
    "AF_VSOCK": ("call('socket', 40, 1, 0)", errno.EAFNOSUPPORT),
    "a family to be loaded": ("call('socket', 31, 3, 0)", errno.EAFNOSUPPORT),
    "a pair of a family to be loaded": ("call('socketpair', 30, 1, 0, vector)", errno.EAFNOSUPPORT),
    "a protocol to be loaded": ("call('socket', 2, 1, 132)", errno.EPROTONOSUPPORT),
    "generic netlink": ("call('socket', 16, 3, 16)", errno.EPROTONOSUPPORT),
    "the kernel's log": ("call('syslog', 3, address, 4096)", errno.EPERM),
    "userfaultfd": ("call('userfaultfd', 1)", errno.EPERM),
    "bpf": ("call('bpf', 0, address, 8)", errno.EPERM),
    "performance events": ("call('perf_event_open', vector, 0, -1, -1, 0)", errno.EPERM),
    "a cookie": ("call('lookup_dcookie', 0, address, 4096)", errno.EPERM),
    "watching all files": ("call('fanotify_init', 0x200, 0)", errno.EPERM),  # FAN_REPORT_FID: no capability asked
    "being traced": ("call('ptrace', 0)", errno.EPERM),
    "reading a process": ("call('process_vm_readv', os.getpid(), vector, 1, vector, 1)", errno.EPERM),
    "writing to a process": ("call('process_vm_writev', os.getpid(), vector, 1, vector, 1)", errno.EPERM),
    "a descriptor of another": ("call('pidfd_getfd', os.pidfd_open(os.getpid()), fd)", errno.EPERM),
    "what two share": ("call('kcmp', os.getpid(), os.getpid(), 0, fd, fd)", errno.EPERM),
    "a child in namespaces": ("call('clone', 0x10000000 | 17)", errno.EPERM),
    "a child with flags in memory": ("call('clone3', address, 88)", errno.ENOSYS),
    "a user namespace": ("call('unshare', 0x10000000)", errno.EPERM),
    "another's namespace": ("call('setns', os.open('/proc/self/ns/uts', 0), 0)", errno.EPERM),
    "mount": ("call('mount', name, name, name, 0)", errno.EPERM),
    "umount": ("call('umount2', name, 0)", errno.EPERM),
    "a new root": ("call('pivot_root', name, name)", errno.EPERM),
    "chroot": ("call('chroot', name)", errno.EPERM),
    "a tree": ("call('open_tree', -100, name, 1)", errno.EPERM),
    "moving a mount": ("call('move_mount', -1, name, -1, name)", errno.EPERM),
    "a file system": ("call('fsopen', name)", errno.EPERM),
    "its configuration": ("call('fsconfig', -1)", errno.EPERM),
    "its mount": ("call('fsmount', -1)", errno.EPERM),
    "picking it": ("call('fspick', -100, name)", errno.EPERM),
    "attributes of a mount": ("call('mount_setattr', -100, name, 0, address, 32)", errno.EPERM),
    "quotas": ("call('quotactl', 0, name, 0, address)", errno.EPERM),
    "quotas of a descriptor": ("call('quotactl_fd', fd, 0, 0, address)", errno.EPERM),
    "a module": ("call('init_module', address, 1, name)", errno.EPERM),
    "a module from a file": ("call('finit_module', -1, name, 0)", errno.EPERM),
    "a module less": ("call('delete_module', name, 0x800)", errno.EPERM),
    "another kernel": ("call('kexec_load', 0, 0, 0, 1 << 20)", errno.EPERM),
    "another kernel from a file": ("call('kexec_file_load', -1, -1, 0, 0, 1 << 20)", errno.EPERM),
    "the time of day": ("call('settimeofday', 0, 0)", errno.EPERM),
    "a clock": ("call('clock_settime', 1, 0)", errno.EPERM),
    "the rate of a clock": ("call('clock_adjtime', 1, 0)", errno.EPERM),
    "the rate of the clock": ("call('adjtimex', 0)", errno.EPERM),
    "swap": ("call('swapon', name, 0)", errno.EPERM),
    "swap less": ("call('swapoff', name)", errno.EPERM),
    "reboot": ("call('reboot', 0, 0, 0)", errno.EPERM),
    "accounting": ("call('acct', name)", errno.EPERM),
}  # fmt: skip
if platform.machine() == "x86_64":
    DENIED |= {
        "all ports": ("call('iopl', 0)", errno.EPERM),
        "ports": ("call('ioperm', 0, 0, 0)", errno.EPERM),
        "segments": ("call('modify_ldt', 0, address, 4096)", errno.ENOSYS),
    }

HARMLESS = {
    "flags of a descriptor": "fcntl.fcntl(fd, fcntl.F_GETFD)",
    "a lock": "fcntl.lockf(fd, fcntl.LOCK_EX)",
    "a duplicate": "os.close(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0))",
    "bytes in a pipe": "fcntl.ioctl(os.pipe()[0], 0x541B, bytes(4))",
    "pages are not needed": "page.madvise(mmap.MADV_DONTNEED)",
    "huge pages are not wanted": "mmap.mmap(-1, 4096).madvise(mmap.MADV_DONTFORK)",
    "a vectored read": "os.preadv(fd, [bytearray(8)], 0)",
    "a vectored read, second version": "assert call('preadv2', fd, vector, 1, 0, 0, 0) == 0",
    "advice": "os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)",
    "reading ahead": "assert call('readahead', fd, 0, 4096) == 0",
    "an own socket": "socket.socket(socket.AF_UNIX).close()",
    "a socket": "socket.socket(socket.AF_INET).close()",
    "a socket for datagrams": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP).close()",
    "a pair of sockets": "[end.close() for end in socket.socketpair()]",
    "names of interfaces": "socket.if_nameindex()",
    "an address": "socket.getaddrinfo('127.0.0.1', 80)",
    "a poll": "select.epoll().close()",
    "a thread": "(thread := threading.Thread(target=int), thread.start(), thread.join())",
    "a program": "subprocess.run(['true'], check=True)",
    "a child": "(child := os.fork()) or os._exit(0); os.waitpid(child, 0)",
    "a program that is spawned": "os.waitpid(os.posix_spawnp('true', ['true'], os.environ), 0)",
    "a pool of processes": "import multiprocessing; multiprocessing.get_context('fork').Pool(1).terminate()",
    "a signal to oneself": "os.kill(os.getpid(), 0)",
    "a second filter": "calls.install()",
}


def run_child(code):
    """Run Python code in a process of its own; returns what it printed, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", autouse=True)
def allowed():
    """Whether a process may filter itself here; an engine's own filter, or an emulator, may say no."""
    attempt = """
try: calls.install(); print("null")
except (OSError, RuntimeError) as error: print(json.dumps(str(error)))
"""
    refused = run_child(BEFORE + attempt)
    if refused:
        pytest.skip(f"no seccomp filter here: {refused}")


@pytest.fixture(scope="module")
def filtered():
    """The errno of every denied call, and what every harmless one raised, under the filter."""
    lines = [BEFORE, INSTALL, "told = {}"]
    lines += [f"told[{name!r}] = {code}" for name, (code, _) in DENIED.items()]
    for name, code in HARMLESS.items():
        lines.append(f"try: {code}; told[{name!r}] = None")
        lines.append(f"except (OSError, AssertionError, RuntimeError) as error: told[{name!r}] = repr(error)")
    return run_child("\n".join([*lines, "print(json.dumps(told))"]))


@pytest.mark.parametrize("name", DENIED)
def test_a_denied_call_fails_with_its_errno(filtered, name):
    assert errno.errorcode.get(filtered[name]) == errno.errorcode[DENIED[name][1]]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_twin_works(filtered, name):
    assert filtered[name] is None


def test_every_rule_is_tried():
    tried = " ".join([*(code for code, _ in DENIED.values()), *HARMLESS.values()])
    known = {rule.call for rule in calls.RULES if getattr(rule, platform.machine()) is not None}
    assert not known - set(re.findall(r"call\('(\w+)'", tried)) - {"fadvise64"}


def test_threads_that_ran_before_and_children_are_filtered_too():
    code = """
attempt, done, told = threading.Event(), threading.Event(), {}
def early():
    attempt.wait()
    told["thread"] = call("keyctl", 0, -4, 1)
    done.set()
threading.Thread(target=early).start()
calls.install()
attempt.set(); done.wait()
told["program"] = int(subprocess.run([sys.executable, "-c", BEFORE + 'print(call("keyctl", 0, -4, 1))'],
    stdout=subprocess.PIPE, check=True).stdout)
print(json.dumps(told))
"""
    assert run_child(f"{BEFORE}\nBEFORE = {BEFORE!r}\n{code}") == dict.fromkeys(
        ("thread", "program"), errno.ENOSYS
    )


def cached(path):
    """Whether the first page of a file is in memory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    finally:
        os.close(fd)


def test_advice_succeeds_and_evicts_nothing(tmp_path_on_disk):
    path = tmp_path_on_disk / "file"
    evict = f"""
os.posix_fadvise(os.open({str(path)!r}, os.O_RDONLY), 0, 0, os.POSIX_FADV_DONTNEED)
print("null")
"""
    with open(path, "wb") as file:
        file.write(bytes(65536))
        file.flush()
        os.fsync(file.fileno())
    try:
        assert cached(path)
    except OSError as error:
        pytest.skip(f"this file system does not tell what is cached: {error}")
    run_child(BEFORE + INSTALL + evict)
    assert cached(path)
    run_child(BEFORE + evict)
    if cached(path):
        pytest.skip("nor does advice evict here without a filter: a file system in memory")


def decide(machine, number, arguments=(), arch=None):
    """What the filter for a machine says: an errno, `ALLOWED` or `KILLED`."""
    words = {0: number, 4: calls.AUDIT_ARCH[machine] if arch is None else arch}
    for index in range(6):
        words[16 + 8 * index] = (arguments[index] if index < len(arguments) else 0) & calls.WORD
    made, place, held = calls.program(machine), 0, 0
    while True:
        one = made[place]
        place += 1
        if one.code == calls.LOAD:
            held = words[one.k]
        elif one.code == calls.AND:
            held &= one.k
        elif one.code == calls.IF_EQUAL:
            place += one.yes if held == one.k else one.no
        elif one.code == calls.IF_AT_LEAST:
            place += one.yes if held >= one.k else one.no
        else:
            assert one.code == calls.RETURN
            if one.k == calls.RET_KILL_PROCESS:
                return KILLED
            return ALLOWED if one.k == calls.RET_ALLOW else one.k - calls.RET_ERRNO


@pytest.mark.parametrize("machine", calls.AUDIT_ARCH)
def test_of_every_call_that_exists_the_table_denies_exactly_its_own(machine):
    honest = {}  # arguments that every test lets pass
    for rule in calls.RULES:
        honest.setdefault(getattr(rule, machine), rule.test is not None)
    for number in range(600):
        verdict = decide(machine, number, (1, 0, 0, 0, 0, 0))
        assert (verdict is ALLOWED) == honest.get(number, True), number
    for rule in calls.RULES:
        if getattr(rule, machine) is None:
            continue
        values = () if rule.test is None else rule.test.values
        for value in values:
            arguments = [1, 0, 0, 0, 0, 0]
            arguments[rule.test.index] = value
            answer = ALLOWED if rule.test.others else rule.answer
            assert decide(machine, getattr(rule, machine), arguments) == answer


def test_calls_of_another_architecture_end_the_process():
    assert decide("x86_64", 20, arch=0x40000003) == KILLED  # i386
    assert decide("aarch64", 20, arch=0x40000028) == KILLED  # arm
    assert decide("x86_64", 39) is ALLOWED


def test_calls_of_x32_do_not_exist():
    assert decide("x86_64", 0x40000000 | 72, (0, 1036)) == errno.ENOSYS
    assert decide("x86_64", 0x40000000 | 39) == errno.ENOSYS


def test_another_machine_is_refused_by_name():
    with pytest.raises(RuntimeError, match="riscv64"):
        calls.program("riscv64")


@pytest.mark.parametrize("machine", calls.AUDIT_ARCH)
def test_the_numbers_are_those_of_the_kernels_headers(machine):
    found = {}
    for path in map(Path, HEADERS[machine]):
        if not path.is_file():
            pytest.skip(f"no {path} here")
        found |= dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text()))
    for rule in calls.RULES:
        if getattr(rule, machine) is None:
            assert rule.call not in found
        elif rule.call in found:  # older headers lack the newer calls
            assert getattr(rule, machine) == int(found[rule.call]), rule.call
    assert calls.SECCOMP[machine] == int(found["seccomp"])
