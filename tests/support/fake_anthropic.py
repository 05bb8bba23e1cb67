"""A loopback server that speaks the streaming Messages API by script. The real SDK talks to it over HTTP.

    with FakeAnthropic([call("submit", {})]) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)

Each request takes the next reply of the script; one beyond the script gets HTTP 418, which is never retried. It
also serves the paths of Vertex AI and Bedrock, the latter in AWS event-stream frames.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEDROCK = "/invoke-with-response-stream"
THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmVkLWJ5LXRoZS1tb2RlbA=="}


@dataclass(frozen=True, kw_only=True)
class Reply:
    """One scripted HTTP response."""

    status: int = 200
    events: Iterable[tuple[str, Any]] = ()  # (event, data); data may be raw text
    body: Any = None  # JSON of an error status
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False  # the connection drops after the events


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The token counts that a scripted response reports."""

    input_tokens: int = 1000
    output_tokens: int = 200
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    ephemeral_1h_input_tokens: int = 0


def message(
    *blocks: dict[str, Any], stop_reason: str | None = "end_turn", usage: Usage | None = None, **stop: Any
) -> Reply:
    """A complete answer with these content blocks, streamed in small pieces as the API does."""
    usage = usage or Usage()
    start = {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": "claude-opus-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": 1,
            "cache_read_input_tokens": usage.cache_read_input_tokens,
            "cache_creation_input_tokens": usage.cache_creation_input_tokens,
            "cache_creation": {
                "ephemeral_1h_input_tokens": usage.ephemeral_1h_input_tokens,
                "ephemeral_5m_input_tokens": usage.cache_creation_input_tokens - usage.ephemeral_1h_input_tokens,
            },
        },
    }
    events: list[tuple[str, Any]] = [
        ("message_start", {"type": "message_start", "message": start}),
        ("ping", {"type": "ping"}),
    ]
    for index, block in enumerate(blocks):
        events += _streamed(index, block)
    delta = {"stop_reason": stop_reason, "stop_sequence": None, **stop}
    events.append(
        (
            "message_delta",
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": usage.output_tokens}},
        )
    )
    events.append(("message_stop", {"type": "message_stop"}))
    return Reply(events=events, headers={"request-id": "req_fake"})


def _streamed(index: int, block: dict[str, Any]) -> Iterable[tuple[str, Any]]:
    if block["type"] == "text":
        empty, deltas = (
            {**block, "text": ""},
            [{"type": "text_delta", "text": part} for part in _pieces(block["text"])],
        )
    elif block["type"] == "thinking":
        empty = {**block, "thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": part} for part in _pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
    elif block["type"] == "tool_use":
        empty = {**block, "input": {}}
        deltas = [
            {"type": "input_json_delta", "partial_json": part} for part in _pieces(json.dumps(block["input"]))
        ]
    else:
        empty, deltas = block, []
    yield "content_block_start", {"type": "content_block_start", "index": index, "content_block": empty}
    for delta in deltas:
        yield "content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta}
    yield "content_block_stop", {"type": "content_block_stop", "index": index}


def _pieces(text: str, size: int = 37) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- behaviors ---------------------------------------------------------------------------------------------


def call(name: str, wanted: Any, *, call_id: str = "toolu_1", **options: Any) -> Reply:
    """The model thinks, then calls a tool."""
    block = {"type": "tool_use", "id": call_id, "name": name, "input": wanted}
    return message(THINKING, block, **{"stop_reason": "tool_use", **options})


def say(text: str, **options: Any) -> Reply:
    """The model answers in prose."""
    return message(THINKING, {"type": "text", "text": text}, **options)


def error(status: int, kind: str, text: str = "scripted", *, details: Any = None, **headers: str) -> Reply:
    """An HTTP error in the format of the API; header names with underscores for hyphens."""
    body: dict[str, Any] = {"type": "error", "error": {"type": kind, "message": text}}
    if details is not None:
        body["error"]["details"] = details
    return Reply(
        status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def cut(reply: Reply, events: int) -> Reply:
    """The connection drops after some events."""
    return replace(reply, events=list(reply.events)[:events], cut=True)


def ends_early(reply: Reply, events: int) -> Reply:
    """The response ends cleanly, but too early."""
    return replace(reply, events=list(reply.events)[:events])


def breaks(reply: Reply, events: int, kind: str = "overloaded_error") -> Reply:
    """An error event arrives in the middle of the stream."""
    fault = ("error", {"type": "error", "error": {"type": kind, "message": "scripted"}})
    return replace(reply, events=[*list(reply.events)[:events], fault])


def garbage(reply: Reply, events: int) -> Reply:
    """An event whose data is not JSON."""
    return replace(reply, events=[*list(reply.events)[:events], ("content_block_delta", "{not json")])


def holds(reply: Reply, events: int, until: Callable[[], None]) -> Reply:
    """The stream stalls after some events until `until` returns; then the connection drops."""

    def streamed() -> Iterator[tuple[str, Any]]:
        yield from list(reply.events)[:events]
        until()

    return replace(reply, events=streamed(), cut=True)


def frame(name: str, kind: str, payload: bytes) -> bytes:
    """A message of an AWS event stream; its kind is "event" or "exception"."""
    named = {f":{kind}-type": name, ":content-type": "application/json", ":message-type": kind}
    headers = b"".join(
        struct.pack("!B", len(key)) + key.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for key, value in named.items()
    )
    prelude = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack("!I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack("!I", zlib.crc32(body))


Script = Reply | Callable[[dict[str, Any]], Reply]


class FakeAnthropic:
    """The server. `requests`, `headers` and `paths` hold those of every request, in order."""

    def __init__(self, script: Iterable[Script]) -> None:
        self.script = list(script)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = False  # joined at the end: no socket outlives a test
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def serves(self, path: str) -> bool:
        return path == "/v1/messages" or path.endswith((":streamRawPredict", BEDROCK))

    def next_reply(self, body: dict[str, Any]) -> Reply:
        number = len(self.requests)
        self.requests.append(body)
        if number >= len(self.script):
            return error(418, "invalid_request_error", "the script is over")
        scripted = self.script[number]
        return scripted if isinstance(scripted, Reply) else scripted(body)

    def __enter__(self) -> FakeAnthropic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _handler(fake: FakeAnthropic) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            fake.paths.append(self.path)
            if not fake.serves(self.path):
                return self._whole(404, b"<html>nothing here</html>", "text/html", {})
            reply = fake.next_reply(body)
            if reply.status != 200:
                return self._whole(
                    reply.status, json.dumps(reply.body).encode(), "application/json", reply.headers
                )
            return self._stream(reply)

        def _whole(self, status: int, data: bytes, kind: str, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {"content-type": kind, "content-length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _stream(self, reply: Reply) -> None:
            self.send_response(200)
            for name, value in {
                "content-type": "text/event-stream",
                "transfer-encoding": "chunked",
                **reply.headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            for event, data in reply.events:
                text = data if isinstance(data, str) else json.dumps(data)
                if event == "exception":  # a frame of Bedrock's alone
                    self._chunk(frame(data["name"], "exception", text.encode()))
                elif self.path.endswith(BEDROCK):
                    wrapped = {"bytes": base64.b64encode(text.encode()).decode()}
                    self._chunk(frame("chunk", "event", json.dumps(wrapped).encode()))
                else:
                    self._chunk(f"event: {event}\ndata: {text}\n\n".encode())
            if reply.cut:
                self.close_connection = True  # without the last chunk: the client sees a broken body
            else:
                self._chunk(b"")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    return Handler
