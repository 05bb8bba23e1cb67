"""PID 1 of every candidate container: starts the clock, enforces the deadline, reports how the run ended.

    python -I -S supervisor.py {train,score,audit,check} --startup SECONDS --limit SECONDS
                                     [--hold SECONDS] [--linger SECONDS]

It runs as root with SETUID, SETGID and KILL only; the candidate is its child under uid 10001 without any
capability. A child of the same uid could ptrace PID 1 and so outlive every deadline; a child of another uid
cannot trace, signal or stop it. Standard library only; it imports nothing of the candidate's.

Streams of the container, both written by this program alone:
    stderr  its reports, one JSON object a line: `ready`, `started`, `ending`, `ended`
    stdout  train: what the candidate printed, rate-capped; else the candidate's answer, every byte

Training starts at once. Scoring and audits wait for one byte on stdin, the start signal, for `--hold` seconds at
most; then the checkpoint is copied for the candidate (`handover`). Their limit is an upper one: the host, which
knows what other programs took of the cores, ends them earlier by the signal `CALL_OFF`.

The last report says how many bytes of an answer there are, so that the host knows where it ends although the
container lingers: its memory file system with the checkpoint lives as long as PID 1 does. A container whose memory
ran out lingers, too: the host may ask again with fewer rows. By then every process of the candidate is dead.

The exit code says how it ended (`EXIT_*`), and so does the last report. Not covered: a kernel bug, or a container
that is frozen from outside; the host keeps a deadline of its own for these.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

if not __package__:  # a script: only the folder that holds `locked_eval/` joins the path, never this one
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from locked_eval.container.cgroup import cpu_seconds, out_of_memory
from locked_eval.container.handover import COPY, EXIT_OUT_OF_MEMORY, PUBLISHED, take_over
from locked_eval.container.throttle import Throttle

CANDIDATE_UID = 10001

EXIT_FINISHED = 0
EXIT_DEADLINE = 40
EXIT_FAILED = 41
EXIT_STARTUP = 42
EXIT_NO_START_SIGNAL = 43

PASSED_ENVIRONMENT = (
    "PATH", "HOME", "TMPDIR", "LANG", "DATA_DIR", "OUT_DIR", "ROWS_DIR", "SEED", "DEADLINE_SECONDS", "PROFILE",
    "VOCAB_SIZE", "SCORE_BATCH_ROWS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR", "CUDA_CACHE_PATH",
)  # fmt: skip
"""All that a candidate sees of the environment."""

CALL_OFF = signal.SIGUSR1
"""Signal by which the host sets the deadline of an answer to now: it knows how much time other programs took."""
REAP_SECONDS = 5.0
"""Longest wait for killed processes to be reaped; the kernel ends the rest when PID 1 exits."""
FLUSH_SECONDS = 30.0
"""Longest wait for the host to take the rest of an answer."""
PIECE_BYTES = 1 << 20
"""Of an answer in flight; also requested as the size of its pipe."""
F_SETPIPE_SZ = 1031


class Supervisor:
    """One candidate process from its start to the death of everything that it started."""

    def __init__(
        self,
        phase: str,
        startup_seconds: float,
        limit_seconds: float,
        hold_seconds: float = 0.0,
        linger_seconds: float = 0.0,
    ) -> None:
        self.phase = phase
        self.answers = phase != "train"
        self.startup_seconds = startup_seconds
        self.limit_seconds = limit_seconds
        self.hold_seconds = hold_seconds
        self.linger_seconds = linger_seconds
        self.selector = selectors.DefaultSelector()
        self.output: int | None = None
        self.throttle = Throttle(time.monotonic())
        self.in_flight = memoryview(b"")
        self.answer_bytes = 0
        self.child: subprocess.Popen[bytes] | None = None
        self.status: int | None = None
        self.ready_at: float | None = None
        self.signaled_at: float | None = None
        self.started_at: float | None = None
        self.cpu_before: float | None = None
        self.called_off = False

    def run(self) -> int:
        """Supervise one run; returns the exit code of the container."""
        # A stopped daemon no longer reads these pipes; a blocking write would stop the clock.
        os.set_blocking(2, False)
        os.set_blocking(1, False)
        wakeup_read, wakeup_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if self.answers:
            signal.signal(CALL_OFF, self._call_off)
        self.selector.register(wakeup_read, selectors.EVENT_READ, "wakeup")

        ready = self._start_child()
        self.selector.register(ready, selectors.EVENT_READ, "ready")
        end = self._until(time.monotonic() + self.startup_seconds, lambda: self.ready_at is not None)
        if end is not None:
            return self._end(EXIT_STARTUP)
        self._report("ready")

        if self.answers:
            self.selector.register(0, selectors.EVENT_READ, "start")
            if self._until(time.monotonic() + self.hold_seconds, lambda: self.signaled_at is not None) is not None:
                return self._end(EXIT_NO_START_SIGNAL)
            take_over(PUBLISHED, COPY)

        self.cpu_before = cpu_seconds()
        self.started_at = time.monotonic()
        self._go()
        self._report("started")
        end = self._until(self.started_at + self.limit_seconds, lambda: False)
        if end == "deadline":
            return self._end(EXIT_DEADLINE)
        return self._end(EXIT_FINISHED if self.status == 0 else EXIT_FAILED)

    def _start_child(self) -> int:
        """Start the launcher as the candidate's user; returns the pipe on which it reports that it is ready."""
        ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
        self.output, output = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.output, False)
        self.selector.register(self.output, selectors.EVENT_READ, "output")
        if self.answers:
            with contextlib.suppress(OSError):  # the kernel may allow less
                fcntl.fcntl(output, F_SETPIPE_SZ, PIECE_BYTES)
        environment = {name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ}
        if self.answers:
            environment["OUT_DIR"] = str(COPY.parent)
        launcher = Path(__file__).with_name("launcher.py")
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-u", str(launcher), self.phase, str(ready_write)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.DEVNULL if self.answers else output,
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
        os.close(output)
        return ready_read

    def _call_off(self, *_: object) -> None:
        self.called_off = True

    def _go(self) -> None:
        assert self.child is not None and self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(b"g")
            self.child.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()

    def _until(self, deadline: float, done: Callable[[], bool]) -> str | None:
        """Serve events until `done()`; returns None then, else `deadline` or `exited`."""
        while True:
            self._reap()
            if done():
                return None
            if self.status is not None:
                return "exited"
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self.called_off:
                return "deadline"
            for key, _ in self.selector.select(min(remaining, 1.0)):
                self._serve(key)

    def _serve(self, key: selectors.SelectorKey) -> None:
        fd = key.fd
        if key.data == "wakeup":
            os.read(fd, 4096)
        elif key.data == "output":
            self._relay()
        elif key.data == "drain":
            self._drain()
        elif key.data == "ready":
            if os.read(fd, 1):
                self.ready_at = time.monotonic()
            self.selector.unregister(fd)
            os.close(fd)
        elif key.data == "start":
            if os.read(0, 1):
                self.signaled_at = time.monotonic()
            self.selector.unregister(0)

    def _relay(self) -> None:
        assert self.output is not None
        try:
            data = os.read(self.output, PIECE_BYTES if self.answers else 65536)
        except BlockingIOError:
            return
        if not data:
            self.selector.unregister(self.output)
            os.close(self.output)
            self.output = None
        elif self.answers:
            self.in_flight = memoryview(data)
            self.selector.unregister(self.output)  # the candidate waits until the host has taken this piece
            self.selector.register(1, selectors.EVENT_WRITE, "drain")
            self._drain()
        else:
            _write(1, self.throttle.admit(data, time.monotonic()))

    def _drain(self) -> None:
        """Write what the host takes of the piece in flight; read on once all of it is gone."""
        try:
            written = os.write(1, self.in_flight)
        except BlockingIOError:
            return
        except OSError:
            written = len(self.in_flight)  # the reader is gone
        self.answer_bytes += written
        self.in_flight = self.in_flight[written:]
        if not self.in_flight:
            self.selector.unregister(1)
            if self.output is not None:
                self.selector.register(self.output, selectors.EVENT_READ, "output")

    def _reap(self) -> None:
        """Collect every dead process of the namespace: PID 1 inherits the orphans."""
        assert self.child is not None
        for _ in range(1000):  # bounded: a storm of dying children must not keep us from the clock
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self.child.pid:
                self.status = self.child.returncode = os.waitstatus_to_exitcode(status)

    def _end(self, code: int) -> int:
        """Kill every process, write the rest of the output and the last report; returns `code`."""
        ended_at = time.monotonic()
        # Reported before it is done: if the host's kill comes first, this one was still in time.
        self._report("ending", code=code)
        give_up = ended_at + REAP_SECONDS
        while time.monotonic() < give_up:
            try:
                os.kill(-1, signal.SIGKILL)  # again each time: a process may fork while it is killed
            except ProcessLookupError:
                break
            self._reap()
            time.sleep(0.005)
        self._reap()
        if not self.answers:
            while self.output is not None and any(key.data == "output" for key, _ in self.selector.select(0)):
                self._relay()
            _write(1, self.throttle.finish())
        elif code == EXIT_FINISHED:  # after any other end the answer is not wanted
            self._flush(time.monotonic() + FLUSH_SECONDS)
        started, before, after = self.started_at, self.cpu_before, cpu_seconds()
        self._report(
            "ended",
            code=code,
            status=self.status,
            wall_seconds=None if started is None else round(ended_at - started, 4),
            cpu_seconds=None if before is None or after is None else round(after - before, 4),
            out_of_memory=out_of_memory(),
            answer_bytes=self.answer_bytes,
        )
        if code == EXIT_FINISHED or self._memory_ran_out():
            time.sleep(self.linger_seconds)  # the host ends it earlier
        return code

    def _memory_ran_out(self) -> bool:
        killed = self.status == -signal.SIGKILL and out_of_memory()
        return self.answers and (killed or self.status == EXIT_OUT_OF_MEMORY)

    def _flush(self, give_up: float) -> None:
        """Pass on the rest of an answer: every writer is dead, so the pipe ends."""
        while (self.output is not None or self.in_flight) and time.monotonic() < give_up:
            for key, _ in self.selector.select(0.1):
                if key.data in ("output", "drain"):
                    self._serve(key)

    def _report(self, event: str, **facts: object) -> None:
        _write(2, json.dumps({"event": event, **facts}).encode() + b"\n")


def _write(fd: int, data: bytes) -> None:
    """Write what the pipe takes now; drop the rest instead of waiting."""
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
    """Parse the arguments, which come from the host alone, and supervise one run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=("train", "score", "audit", "check"))
    parser.add_argument("--startup", type=float, required=True)
    parser.add_argument("--limit", type=float, required=True)
    parser.add_argument("--hold", type=float, default=0.0)
    parser.add_argument("--linger", type=float, default=0.0)
    arguments = parser.parse_args()
    return Supervisor(arguments.phase, arguments.startup, arguments.limit, arguments.hold, arguments.linger).run()


if __name__ == "__main__":
    # os._exit: nothing that runs at interpreter exit may delay the end of the namespace.
    os._exit(main())
