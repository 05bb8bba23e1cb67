"""A socket in front of the real engine that fails on request.

Every request of a client is one connection (keep-alive is turned off), so that a rule can name it by its first
line. What no rule names is passed on unchanged, hijacked streams included.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Fault(StrEnum):
    """What happens to a request."""

    HANG = "hang"  # never answered, never passed on
    HANG_AFTER = "hang after"  # done by the engine, never answered
    DRIP = "drip"  # answered a byte now and then
    ERROR = "500"
    FULL = "no space"
    CONFLICT = "409"
    MISSING = "404"
    GARBAGE = "garbage"  # not even HTTP
    NONSENSE = "nonsense"  # JSON of another kind
    NO_JSON = "no JSON"
    TRUNCATED = "truncated"  # ends in the middle of its body
    CLOSED = "closed"  # without a byte


def response(status: str, body: bytes) -> bytes:
    """A whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


SPOKEN = {
    Fault.ERROR: response("500 Internal Server Error", b'{"message":"the disk of the engine burns"}'),
    Fault.FULL: response("500 Internal Server Error", b'{"message":"mkdir /x: no space left on device"}'),
    Fault.CONFLICT: response("409 Conflict", b'{"message":"operation already in progress with something"}'),
    Fault.MISSING: response("404 Not Found", b'{"message":"no such thing"}'),
    Fault.GARBAGE: b"\x16\x03\x01 what is this\r\n\r\n" * 3,
    Fault.NONSENSE: response("200 OK", b'[null, "what?"]'),
    Fault.NO_JSON: response("200 OK", b"<html>It works!</html>"),
    Fault.CLOSED: b"",
}


@dataclass
class Rule:
    """The next `times` requests whose first line matches fail; the others are none of its business."""

    request: re.Pattern[str]
    fault: Fault
    times: int
    hit: threading.Event = field(default_factory=threading.Event)


class FaultyEngine:
    """Listens at `path`, passes on to `engine`. Use as a context manager."""

    DRIP_SECONDS = 0.3

    def __init__(self, path: Path, engine: str) -> None:
        self.url = f"unix://{path}"
        self.requests: list[str] = []
        self.away = False
        self._engine = engine.removeprefix("unix://")
        self._rules: list[Rule] = []
        self._acts: list[tuple[re.Pattern[str], Callable[[], object]]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._open: set[socket.socket] = set()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)

    def __enter__(self) -> FaultyEngine:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        with self._lock:
            for one in self._open:
                _shut(one)

    def fail(self, request: str, *faults: Fault, times: int = 1) -> list[Rule]:
        """Requests like `"GET .*/containers/.*/json"` fail: each fault `times` times, one after the other."""
        rules = [Rule(re.compile(request), fault, times) for fault in faults]
        with self._lock:
            self._rules += rules
        return rules

    def before(self, request: str, act: Callable[[], object]) -> None:
        """Do this before the next request of this kind is passed on."""
        with self._lock:
            self._acts.append((re.compile(request), act))

    @property
    def pending(self) -> list[Fault]:
        """Faults that no request has met yet."""
        with self._lock:
            return [rule.fault for rule in self._rules]

    def _accept(self) -> None:
        while not self._over.is_set():
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _rule(self, line: str) -> Rule | None:
        with self._lock:
            self.requests.append(line)
            rule = next((one for one in self._rules if one.request.match(line)), None)
            if rule is not None:
                rule.times -= 1
                if not rule.times:
                    self._rules.remove(rule)
            acts = [one for one in self._acts if one[0].match(line)]
            self._acts = [one for one in self._acts if one not in acts]
        for _, act in acts:
            act()
        return rule

    def _serve(self, client: socket.socket) -> None:
        upstream = socket.socket(socket.AF_UNIX)
        with client, upstream:
            with self._lock:
                self._open |= {client, upstream}
            try:
                self._answer(client, upstream)
            except OSError:
                pass  # one side has gone; so has the other, now
            finally:
                # Closing alone would wait for the thread that still reads what the client says.
                _shut(client)
                _shut(upstream)
                with self._lock:
                    self._open -= {client, upstream}

    def _answer(self, client: socket.socket, upstream: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                return
            data += piece
        line = data.split(b"\r\n", 1)[0].decode()
        rule = self._rule(line)
        fault = Fault.CLOSED if self.away else rule.fault if rule is not None else None
        if fault in SPOKEN:
            client.sendall(SPOKEN[fault])
        elif fault is Fault.HANG:
            _tell(rule)
            self._over.wait()
        else:
            if b"\r\nUpgrade:" not in data:
                data = data.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
                data = re.sub(rb"\r\nConnection: keep-alive", b"", data, flags=re.IGNORECASE)
            upstream.connect(self._engine)
            upstream.sendall(data)
            sender = threading.Thread(target=_pump, args=(client, upstream), daemon=True)
            sender.start()
            if fault is None:
                _pump(upstream, client)
                return
            answer = upstream.recv(65536)
            if fault is Fault.HANG_AFTER:
                _tell(rule)
                self._over.wait()
            elif fault is Fault.DRIP:
                for byte in answer:
                    client.sendall(bytes((byte,)))
                    if self._over.wait(self.DRIP_SECONDS):
                        return
            else:
                assert fault is Fault.TRUNCATED
                while not (body := answer.partition(b"\r\n\r\n")[2]):
                    piece = upstream.recv(65536)
                    if not piece:
                        return
                    answer += piece
                client.sendall(answer[: -max(1, len(body) // 2)])
        _tell(rule)


def _tell(rule: Rule | None) -> None:
    if rule is not None:
        rule.hit.set()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _shut(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
