"""Things without end that reach a limit by themselves, and how much there was of them until then."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import itertools
import mmap
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable

from .attempts import Group

GROUP = Group()
MEBI = 1 << 20


def until_refused(act: Callable[[int], object], most: int) -> str:
    """How often an act succeeds, and what ends it."""
    for number in range(most):
        try:
            act(number)
        except OSError as error:
            return f"{number} {os.strerror(error.errno or 0)}"
        except RuntimeError as error:
            return f"{number} {error}"
    return f"{most} no limit"


def until_refused_beside_others(act: Callable[[int], object], most: int) -> str:
    """The same for what the kernel counts for a user id, over all containers.

    It frees the things of a dead one in its own time, and a live one may hold all of them for a while.
    """
    for _ in range(100):
        made = until_refused(act, most)
        if not made.startswith("0 "):
            break
        time.sleep(0.1)
    return made


def filled(folder: str) -> str:
    """Write one file until there is no room."""
    piece = bytes(MEBI)
    with open(f"{folder}/fill", "wb", buffering=0) as file:
        reached = until_refused(lambda _: file.write(piece), 4096)
    os.unlink(f"{folder}/fill")
    return reached


def small_files(folder: str, most: int) -> str:
    os.mkdir(f"{folder}/many")
    os.chdir(f"{folder}/many")
    made = until_refused(lambda number: os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY)), most)
    os.chdir("/")
    shutil.rmtree(f"{folder}/many")
    return made


GROUP.add("fill the scratch", lambda: filled("/tmp"), "No space left")
GROUP.add("fill the output", lambda: filled("/out"), "No space left")
GROUP.add("fill the shared memory", lambda: filled("/dev/shm"), "No space left")
GROUP.add("small files in the scratch", lambda: small_files("/tmp", 100_000), "No space left")
GROUP.add("small files in the output", lambda: small_files("/out", 10_000), "No space left")


@GROUP.attempt("threads", "can't start new thread")
def _threads() -> str:
    return until_refused(lambda _: threading.Thread(target=time.sleep, args=(60,), daemon=True).start(), 5000)


@GROUP.attempt("zombies", "Resource temporarily unavailable")
def _zombies() -> str:
    def leave(_: int) -> None:
        if os.fork() == 0:
            os._exit(0)

    return until_refused(leave, 5000)


@GROUP.attempt("descriptors", "Too many open files")
def _descriptors() -> str:
    return until_refused(lambda _: os.open("/dev/null", os.O_RDONLY), 100_000)


@GROUP.attempt("large pipes", "Operation not permitted", "Too many open files")
def _pipes() -> str:
    def grow(_: int) -> None:
        fcntl.fcntl(os.pipe()[1], 1031, MEBI)

    return until_refused_beside_others(grow, 5000)


@GROUP.attempt("message queues", "Too many open files", "Cannot allocate memory", "Permission denied")
def _queues() -> str:
    def make(number: int) -> None:
        os.close(os.open(f"/dev/mqueue/{number}", os.O_CREAT | os.O_RDWR))

    return until_refused_beside_others(make, 5000)


@GROUP.attempt("a file with a hole of a terabyte in the scratch", "File too large")
def _hole() -> str:
    return until_refused(lambda _: _hole_in("/tmp/hole"), 1)


@GROUP.attempt("a file with a hole of a terabyte in the output", "File too large")
def _hole_out() -> str:
    return until_refused(lambda _: _hole_in("/out/hole"), 1)


def _hole_in(path: str) -> None:
    with open(path, "wb") as file:
        try:
            os.truncate(file.fileno(), 1 << 40)
        finally:
            os.unlink(path)


@GROUP.attempt("folders in folders", "no limit", "No space left")
def _deep() -> str:
    os.mkdir("/tmp/deep")
    os.chdir("/tmp/deep")

    def down(_: int) -> None:
        os.mkdir("d" * 200)
        os.chdir("d" * 200)

    return until_refused(down, 5000)  # left there: it must not be walked


@GROUP.attempt("memory of a child", "SIGKILL")
def _memory() -> None:
    for _ in itertools.count():
        room = mmap.mmap(-1, 50 * MEBI)
        room.write(b"x" * (50 * MEBI))
        HELD.append(room)


@GROUP.attempt("System V shared memory of a child", "SIGKILL", "SIGBUS", "Cannot allocate", "Invalid argument")
def _system_v() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p

    def take(_: int) -> None:
        segment = libc.shmget(0, 50 * MEBI, 0o1600)
        place = libc.shmat(segment, None, 0) if segment != -1 else -1
        if segment == -1 or place in (None, -1):
            raise OSError(ctypes.get_errno(), "shmget")
        libc.shmctl(segment, 0, None)  # it goes with its process
        ctypes.memset(place, 1, 50 * MEBI)

    return until_refused(take, 100)


@GROUP.attempt("a crash leaves no core file", "[]")
def _core() -> str:
    os.mkdir("/tmp/crash")
    child = os.fork()
    if child == 0:
        os.chdir("/tmp/crash")
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGABRT, signal.SIG_DFL)
        os.abort()
    os.waitpid(child, 0)
    return str(os.listdir("/tmp/crash"))


HELD: list[mmap.mmap] = []
