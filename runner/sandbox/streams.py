"""Read from containers without ever blocking the thread that kills them.

An attached stream that is not read blocks kill, inspect and remove of its container. So every stream has a thread
and a client of its own, is read to its end, and keeps a limited number of bytes.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import docker
import requests

from runner.sandbox.engine import NONSENSE, Engine

STDOUT, STDERR = 1, 2
AGAIN_SECONDS = 0.5
"""Pause before a stream that failed is requested again."""
_HEADER = struct.Struct(">BxxxL")  # stream number, length: Docker's multiplexed framing


class Attachment:
    """Stdin, stdout and stderr of a container that was created with an open stdin.

    Attach before the container starts, so that nothing is missed.
    """

    def __init__(
        self, engine: Engine, container_id: str, max_stdout_bytes: int, on_report: Callable[[bytes], None]
    ) -> None:
        self._client = engine.stream_client()
        params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
        try:
            self._stream = self._client.api.attach_socket(container_id, params=params)
        except BaseException:
            self._client.close()
            raise
        self._socket: socket.socket = getattr(self._stream, "_sock", self._stream)
        self._socket.settimeout(None)
        self._limit = max_stdout_bytes
        self._on_report = on_report
        self._stdout = bytearray()
        self._received = 0  # of stdout, kept or not
        self._arrival = threading.Condition()
        self.overflowed = False
        self.closed_at: float | None = None  # end of the stream, for any reason, on the monotonic clock
        self._thread = threading.Thread(target=self._read, name="claims", daemon=True)
        self._thread.start()

    @property
    def is_open(self) -> bool:
        """Whether the container still holds its end."""
        return self.closed_at is None

    def send(self, data: bytes) -> None:
        """Write to the container's stdin."""
        self._socket.sendall(data)

    def receive(self, num_bytes: int, timeout_seconds: float) -> bytes | None:
        """Return stdout once `num_bytes` of it have arrived, whether or not the container lives on.

        Returns: None when they did not arrive in time, or exceed the limit.
        """
        with self._arrival:
            self._arrival.wait_for(
                lambda: self._received >= num_bytes or self.closed_at is not None, timeout_seconds
            )
            return bytes(self._stdout) if self._received == num_bytes and not self.overflowed else None

    def close(self) -> None:
        """End the stream, in any state."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        # docker-py keeps the answer here. Closed after its stream, it would be flushed again when it is collected.
        if (answer := getattr(self._stream, "_response", None)) is not None:
            answer.close()
        with contextlib.suppress(OSError):
            self._stream.close()
        with contextlib.suppress(OSError):
            self._socket.close()
        self._client.close()

    def _read(self) -> None:
        try:
            while header := self._socket.recv(1):
                stream, length = _HEADER.unpack(header + self._exactly(_HEADER.size - 1))
                while length:
                    piece = self._exactly(min(length, 1 << 20))
                    length -= len(piece)
                    if stream == STDERR:
                        self._on_report(piece)
                    else:
                        self._keep(piece)
        except (OSError, EOFError):
            return  # broken: a stream that is whole ends between two frames
        finally:
            with self._arrival:
                self.closed_at = time.monotonic()
                self._arrival.notify_all()

    def _keep(self, piece: bytes) -> None:
        with self._arrival:
            self._received += len(piece)
            if len(self._stdout) + len(piece) <= self._limit:
                self._stdout += piece
            else:
                self.overflowed = True  # keep reading: an unread stream would block the kill
            self._arrival.notify_all()

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._socket.recv(size - len(data))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)


def follow_logs(
    engine: Engine,
    container_id: str,
    stderr: bool,
    on_line: Callable[[str], None],
    over: threading.Event,
) -> None:
    """Pass every line of one stream to `on_line` from a thread of its own, until the container ends.

    For display and for reports of PID 1; text that must not be lost is read again after the end. A stream that
    fails is requested again from its beginning, and lines that were passed on already are skipped.

    Args:
        over: ends the thread.
    """
    num_passed = 0

    def lines(client: docker.DockerClient) -> Iterator[bytes]:
        pending = b""
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException, OSError, *NONSENSE):
            for piece in client.api.logs(container_id, stdout=not stderr, stderr=stderr, stream=True, follow=True):
                *whole, pending = (pending + piece).split(b"\n")
                pending = pending[-4096:]
                yield from whole

    def follow() -> None:
        nonlocal num_passed
        while not over.is_set():
            client = engine.stream_client()
            try:
                for number, line in enumerate(lines(client)):
                    if number >= num_passed:
                        num_passed += 1
                        on_line(line[:4096].decode("utf-8", "replace"))
            finally:
                client.close()
            over.wait(AGAIN_SECONDS)  # an engine that dies closes the stream as the end of a container does

    threading.Thread(target=follow, name="logs", daemon=True).start()
