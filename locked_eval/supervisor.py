"""PID 1 of every candidate container: starts the clock, enforces the deadline, tells how it ended.

    python -I -S supervisor.py {train,score} --startup SECONDS --limit SECONDS [--hold SECONDS]

It runs as root with SETUID, SETGID and KILL only; the candidate is its child under uid 10001 without
any capability. A child of the same uid could ptrace PID 1 and so outlive every deadline; a child of
another uid cannot trace, signal or stop it. Standard library only; nothing of the candidate's is
imported here.

Streams of the container:
    stderr  reports of this program alone, one JSON object a line: `ready`, `started`, `ended`
    stdout  train: what the candidate printed, rate-capped; score: the claims, untouched

The exit code says how it ended (`EXIT_*`). Not covered: a kernel bug, or a container that is frozen
from outside; the host keeps a deadline of its own for these.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CANDIDATE_UID = 10001

EXIT_FINISHED = 0
EXIT_DEADLINE = 40
EXIT_FAILED = 41
EXIT_STARTUP = 42
EXIT_NEVER_TOLD = 43

PASSED_ENVIRONMENT = (
    "PATH", "HOME", "TMPDIR", "LANG", "DATA_DIR", "OUT_DIR", "VAL_DIR", "SEED", "DEADLINE_SECONDS", "PROFILE",
    "SCORE_BATCH_ROWS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR",
    "CUDA_CACHE_PATH", "LD_LIBRARY_PATH",
)  # fmt: skip
"""All that a candidate sees of the environment."""

REAP_SECONDS = 5.0
"""Longest wait for killed processes to be reaped; the kernel ends the rest when PID 1 exits."""


class Throttle:
    """Rate cap for the candidate's output: a burst, then a trickle, and always the very end.

    A candidate that prints without end costs the engine a core and fills its log; the last lines are
    what explains a crash, so the tail of what was held back is written at the end.
    """

    BURST_BYTES = 128 * 1024
    BYTES_PER_SECOND = 16 * 1024
    TAIL_BYTES = 32 * 1024

    def __init__(self, now: float) -> None:
        self._allowance = float(self.BURST_BYTES)
        self._last = now
        self._tail = b""
        self._dropped = 0

    def admit(self, data: bytes, now: float) -> bytes:
        """The part of `data` that may be written now."""
        self._allowance = min(
            float(self.BURST_BYTES), self._allowance + (now - self._last) * self.BYTES_PER_SECOND
        )
        self._last = now
        if not self._dropped and len(data) <= self._allowance:
            self._allowance -= len(data)
            return data
        if self._dropped and self._allowance >= self.BURST_BYTES / 2:
            data, self._tail, self._dropped = self.finish() + data, b"", 0
            self._allowance -= len(data)
            return data
        self._dropped += len(data)
        self._tail = (self._tail + data)[-self.TAIL_BYTES :]
        return b""

    def finish(self) -> bytes:
        """What must be written at the end."""
        if not self._dropped:
            return b""
        return b"\n[%d bytes of output left out]\n" % max(0, self._dropped - len(self._tail)) + self._tail


class Supervisor:
    """One candidate process from its start to the death of everything that it started."""

    def __init__(self, phase: str, startup_seconds: float, limit_seconds: float, hold_seconds: float) -> None:
        self.phase = phase
        self.startup_seconds = startup_seconds
        self.limit_seconds = limit_seconds
        self.hold_seconds = hold_seconds
        self.selector = selectors.DefaultSelector()
        self.output: int | None = None
        self.throttle = Throttle(time.monotonic())
        self.child: subprocess.Popen[bytes] | None = None
        self.status: int | None = None
        self.ready_at: float | None = None
        self.told_at: float | None = None
        self.started_at: float | None = None
        self.cpu_before: float | None = None

    def run(self) -> int:
        """Supervise one candidate; returns the exit code of the container."""
        # A stopped daemon no longer reads these pipes; a blocking write would stop the clock.
        os.set_blocking(2, False)
        if self.phase == "train":
            os.set_blocking(1, False)
        wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.selector.register(wakeup_read, selectors.EVENT_READ, "wakeup")

        ready = self._start_child()
        self.selector.register(ready, selectors.EVENT_READ, "ready")
        end = self._until(time.monotonic() + self.startup_seconds, lambda: self.ready_at is not None)
        if end is not None:
            return self._end(EXIT_STARTUP)
        self._report("ready")

        if self.phase == "score":
            self.selector.register(0, selectors.EVENT_READ, "told")
            if self._until(time.monotonic() + self.hold_seconds, lambda: self.told_at is not None) is not None:
                return self._end(EXIT_NEVER_TOLD)

        self.cpu_before = _cpu_seconds()
        self.started_at = time.monotonic()
        self._go()
        self._report("started")
        end = self._until(self.started_at + self.limit_seconds, lambda: False)
        if end == "deadline":
            return self._end(EXIT_DEADLINE)
        return self._end(EXIT_FINISHED if self.status == 0 else EXIT_FAILED)

    def _start_child(self) -> int:
        """Start the launcher as the candidate's user; returns the pipe on which it says that it is ready."""
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        output: int | None = None
        if self.phase == "train":
            self.output, output = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self.output, False)
            self.selector.register(self.output, selectors.EVENT_READ, "output")
        environment = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
        launcher = Path(__file__).with_name("launcher.py")
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-u", str(launcher), self.phase, str(ready_write)],
            stdin=subprocess.PIPE,
            stdout=output,  # None in the score phase: the container's own stdout
            stderr=output if output is not None else subprocess.DEVNULL,
            pass_fds=(ready_write,),
            user=CANDIDATE_UID,
            group=CANDIDATE_UID,
            extra_groups=(),
            umask=0o022,
            cwd="/tmp",  # noqa: S108  a tmpfs of this container alone
            env=environment,
            start_new_session=True,
        )
        os.close(ready_write)
        if output is not None:
            os.close(output)
        return ready_read

    def _go(self) -> None:
        assert self.child is not None and self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(b"g")
            self.child.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()

    def _until(self, deadline: float, done: Callable[[], bool]) -> str | None:
        """Serve events until `done()`; otherwise says why not: `deadline` or `exited`."""
        while True:
            self._reap()
            if done():
                return None
            if self.status is not None:
                return "exited"
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return "deadline"
            for key, _ in self.selector.select(min(remaining, 1.0)):
                self._serve(key)

    def _serve(self, key: selectors.SelectorKey) -> None:
        fd = key.fd
        if key.data == "wakeup":
            os.read(fd, 4096)
        elif key.data == "output":
            self._relay()
        elif key.data == "ready":
            if os.read(fd, 1):
                self.ready_at = time.monotonic()
            self.selector.unregister(fd)
            os.close(fd)
        elif key.data == "told":
            if os.read(0, 1):
                self.told_at = time.monotonic()
            self.selector.unregister(0)

    def _relay(self) -> None:
        assert self.output is not None
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(self.output)
            os.close(self.output)
            self.output = None
            return
        _write(1, self.throttle.admit(data, time.monotonic()))

    def _reap(self) -> None:
        """Collect every dead process of the namespace: PID 1 inherits the orphans."""
        assert self.child is not None
        for _ in range(1000):  # not for ever: a storm of dying children must not keep us from the clock
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child.pid:
                self.status = self.child.returncode = os.waitstatus_to_exitcode(status)

    def _end(self, code: int) -> int:
        """Kill everything, write the rest of the output and the last report."""
        ended_at = time.monotonic()
        give_up = ended_at + REAP_SECONDS
        while time.monotonic() < give_up:
            try:
                os.kill(-1, signal.SIGKILL)  # again each time: a process may fork while it is killed
            except ProcessLookupError:
                break
            self._reap()
            time.sleep(0.005)
        self._reap()
        while self.output is not None and any(key.data == "output" for key, _ in self.selector.select(0)):
            self._relay()
        if self.phase == "train":
            _write(1, self.throttle.finish())
        started, before, after = self.started_at, self.cpu_before, _cpu_seconds()
        self._report(
            "ended",
            status=self.status,
            wall_seconds=None if started is None else round(ended_at - started, 4),
            cpu_seconds=None if before is None or after is None else round(after - before, 4),
        )
        return code

    def _report(self, event: str, **facts: object) -> None:
        _write(2, json.dumps({"event": event, **facts}).encode() + b"\n")


def _cpu_seconds() -> float | None:
    """CPU time of this container, as its control group counts it; None where it is not shown.

    Not `getrusage`: a child that ignores SIGCHLD is reaped by the kernel, and its time is credited to
    nobody. A candidate could then burn its core and pass for one that others disturbed.
    """
    with contextlib.suppress(OSError, ValueError):
        return int(Path("/sys/fs/cgroup/cpuacct/cpuacct.usage").read_text("ascii")) / 1e9
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path("/sys/fs/cgroup/cpu.stat").read_text("ascii").splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"]) / 1e6
    return None


def _write(fd: int, data: bytes) -> None:
    """Write what the pipe takes now; drop the rest rather than wait."""
    view = memoryview(data)
    give_up = time.monotonic() + 0.05
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            if time.monotonic() > give_up:
                return
            time.sleep(0.002)
        except OSError:
            return


def main() -> int:
    """Parse the arguments, which the host alone gives, and supervise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=("train", "score"))
    parser.add_argument("--startup", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--hold", type=float, default=0.0)
    arguments = parser.parse_args()
    return Supervisor(arguments.phase, arguments.startup, arguments.limit, arguments.hold).run()


if __name__ == "__main__":
    # os._exit: nothing that runs at interpreter exit may delay the end of the namespace.
    os._exit(main())
