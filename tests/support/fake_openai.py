"""A loopback server that speaks the streaming Responses API by script. The real SDK talks to it over HTTP.

    with FakeOpenAI([call("submit", {})]) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)

Replies are those of `fake_anthropic`; `cut`, `ends_early` and `garbage` work on them as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.support.fake_anthropic import FakeAnthropic, Reply, _pieces

MODEL = "gpt-5"
REASONING = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "Let me see."}],
    "encrypted_content": "c2VhbGVk",
}


def usage(
    *, input_tokens: int = 1000, output_tokens: int = 200, cached_tokens: int = 0, cache_write_tokens: int = 0
) -> dict[str, Any]:
    """The token counts that a scripted response reports. Input tokens include cached ones."""
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens, "cache_write_tokens": cache_write_tokens},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input_tokens + output_tokens,
    }


def response(
    *items: dict[str, Any], status: str = "completed", cost: dict[str, Any] | None = None, **fields: Any
) -> Reply:
    """A response with these items, streamed in small pieces as the API does, that ends with a status."""
    whole: dict[str, Any] = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "gpt-5-2025-08-07",
        "status": "in_progress",
        "output": [],
        "error": None,
        "incomplete_details": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None,
    }
    events = [("response.created", {"response": whole}), ("response.in_progress", {"response": whole})]
    for index, item in enumerate(items):
        events += _streamed(index, item)
    end = {**whole, "status": status, "output": list(items), "usage": cost or usage(), **fields}
    events.append((f"response.{status}", {"response": end}))
    numbered = [
        (name, {"type": name, "sequence_number": number, **data}) for number, (name, data) in enumerate(events)
    ]
    return Reply(events=numbered, headers={"x-request-id": "req_fake"})


def _streamed(index: int, item: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    at = {"output_index": index, "item_id": item.get("id", "")}
    if item["type"] == "function_call":
        yield "response.output_item.added", {**at, "item": {**item, "arguments": "", "status": "in_progress"}}
        for piece in _pieces(item["arguments"]):
            yield "response.function_call_arguments.delta", {**at, "delta": piece}
        yield "response.function_call_arguments.done", {**at, "arguments": item["arguments"]}
    elif item["type"] == "message":
        yield "response.output_item.added", {**at, "item": {**item, "content": [], "status": "in_progress"}}
        for number, part in enumerate(item["content"]):
            here = {**at, "content_index": number}
            kind, field = ("output_text", "text") if part["type"] == "output_text" else ("refusal", "refusal")
            yield "response.content_part.added", {**here, "part": {**part, field: ""}}
            for piece in _pieces(part[field]):
                yield f"response.{kind}.delta", {**here, "delta": piece, "logprobs": []}
            yield f"response.{kind}.done", {**here, field: part[field], "logprobs": []}
            yield "response.content_part.done", {**here, "part": part}
    else:
        yield "response.output_item.added", {**at, "item": {**item, "encrypted_content": "incomplete"}}
        for piece in _pieces(item["summary"][0]["text"]):
            yield "response.reasoning_summary_text.delta", {**at, "summary_index": 0, "delta": piece}
    yield "response.output_item.done", {**at, "item": item}


# --- behaviors ---------------------------------------------------------------------------------------------


def function_call(name: str, arguments: str, call_id: str = "call_1") -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": f"fc_{call_id}",
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def call(name: str, wanted: Any, **options: Any) -> Reply:
    """The model reasons, then calls a function."""
    return response(REASONING, function_call(name, json.dumps(wanted)), **options)


def message(text: str, kind: str = "output_text") -> dict[str, Any]:
    part = {"type": kind, "text": text, "annotations": []} if kind == "output_text" else {"type": kind, kind: text}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def say(text: str, **options: Any) -> Reply:
    """The model answers in prose."""
    return response(REASONING, message(text), **options)


def error(status: int, code: str | None, text: str = "scripted", **headers: str) -> Reply:
    """An HTTP error in the format of the API; header names with underscores for hyphens."""
    body = {"error": {"message": text, "type": "invalid_request_error", "param": None, "code": code}}
    return Reply(
        status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def breaks(reply: Reply, events: int, code: str, text: str = "scripted") -> Reply:
    """An error event arrives in the middle of the stream."""
    data = {"type": "error", "code": code, "message": text, "param": None, "sequence_number": events}
    return Reply(events=[*list(reply.events)[:events], ("error", data)], headers=reply.headers)


def breaks_in_the_old_format(reply: Reply, events: int, code: str) -> Reply:
    """The same error nested one level deeper, as gateways send it."""
    fault = {"type": "error", "error": {"type": "server_error", "code": code, "message": "scripted"}}
    return Reply(events=[*list(reply.events)[:events], ("error", fault)], headers=reply.headers)


def fails(code: str, text: str = "scripted", **options: Any) -> Reply:
    """The response begins, and fails."""
    return response(REASONING, status="failed", error={"code": code, "message": text}, **options)


class FakeOpenAI(FakeAnthropic):
    """The server. `requests` and `headers` hold those of every request, in order."""

    @property
    def url(self) -> str:
        return f"{super().url}/v1"

    def serves(self, path: str) -> bool:
        return path == "/v1/responses"
