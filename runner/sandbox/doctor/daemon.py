"""Stop the engine's daemon for a moment, to test that containers end without it.

Only its own process is stopped: containerd, the shims and the containers go on. Callers of the engine wait
meanwhile, and lose nothing. The daemon is woken at the end of `paused`, and by a separate process (`fuse.py`) when
this one dies or hangs.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from runner.sandbox.engine import DEFAULT_SOCKET, LABEL, Engine, engine_errors

DAEMON = "dockerd"
PIDFILE = Path("/var/run/docker.pid")
STOP_SECONDS = 1.0
"""Longest wait until the kernel has stopped all of the daemon's threads."""
FUSE = Path(__file__).with_name("fuse.py")


def find_daemon(engine: Engine) -> int | None:
    """Find the process id of the engine's daemon; None when it is uncertain.

    It is the process that listens at the socket or, where systemd listens (socket activation), the one in the
    daemon's pid file.
    """
    path = engine.url.removeprefix("unix://")
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        listener = struct.unpack("3i", credentials)[0]
    except OSError:
        return None
    if _is_daemon(listener):
        return int(listener)
    if engine.url != DEFAULT_SOCKET:
        return None
    try:
        written = int(PIDFILE.read_text("ascii"))
    except (OSError, ValueError):
        return None
    return written if _is_daemon(written) else None


class Others(NamedTuple):
    """Running containers that are not ours."""

    containers: int
    of_controllers: int  # those among them that another controller started


def running_others(engine: Engine, controller: str) -> Others:
    """Count the containers of others that run on this engine now.

    Raises:
        EngineError: the engine stopped answering.
    """
    with engine_errors("looking for running containers"):
        return count_others((one.get("Labels") or {} for one in engine.client.api.containers()), controller)


def count_others(labels: Iterable[Mapping[str, str]], controller: str) -> Others:
    """Count the containers, given by their labels, that are not this controller's."""
    owners = [found.get(f"{LABEL}controller") for found in labels]
    others = [owner for owner in owners if owner != controller]
    return Others(len(others), len(others) - others.count(None))


@contextmanager
def paused(process: int, limit_seconds: float) -> Iterator[None]:
    """Stop a process, and let it go on in any case.

    Args:
        limit_seconds: time after which it is woken even if the block has not ended.

    Raises:
        OSError: it is gone, may not be stopped by us, or did not stop.
    """
    with subprocess.Popen(
        [sys.executable, "-I", str(FUSE), str(process), str(limit_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is for us alone
    ) as fuse:
        assert fuse.stdout is not None
        handle = os.pidfd_open(process)
        try:
            if fuse.stdout.readline() != b"ready\n":
                raise ProcessLookupError("the process that would wake it did not start")
            signal.pidfd_send_signal(handle, signal.SIGSTOP)
            _await_stop(process)
            yield
        finally:
            with suppress(ProcessLookupError):  # it was ended meanwhile
                signal.pidfd_send_signal(handle, signal.SIGCONT)
            os.close(handle)
            # Leaving the outer block closes the fuse's stdin, and waits for it.


def await_end(handle: int, deadline: float) -> float | None:
    """Wait for a process; returns the time of its end on the monotonic clock, or None at the deadline.

    Args:
        handle: a pidfd.
        deadline: on the monotonic clock.
    """
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return time.monotonic() if poll.poll(max(0.0, deadline - time.monotonic()) * 1000) else None


def _await_stop(process: int) -> None:
    give_up = time.monotonic() + STOP_SECONDS
    while any(_state(path) not in ("T", "t", None) for path in Path(f"/proc/{process}/task").glob("*/stat")):
        if time.monotonic() > give_up:
            raise TimeoutError(f"process {process} does not stop")
        time.sleep(0.01)


def _state(stat: Path) -> str | None:
    """The state letter of a thread; None when it is gone."""
    try:
        return stat.read_text("ascii", "replace").rpartition(") ")[2][:1]
    except OSError:
        return None


def _is_daemon(process: int) -> bool:
    try:
        return process > 1 and Path(f"/proc/{process}/comm").read_text("ascii").strip() == DAEMON
    except (OSError, UnicodeDecodeError):
        return False
