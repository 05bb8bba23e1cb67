"""The OpenAI Responses API: a conversation as its requests, a streamed response as an answer, errors as decisions.

The server stores nothing: reasoning arrives encrypted and goes back verbatim. The SDK is an optional package.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from runner.config import Config
from runner.proposers.llm import failures
from runner.proposers.llm.chat import Answer, Call, Exchange, Opening, Stop, Tool, Unanswered
from runner.proposers.llm.failures import Failure
from runner.proposers.llm.openai_client import KEY_REMEDY, open_client, secrets
from runner.proposers.llm.prices import Tokens, price_of
from runner.proposers.llm.request_policy import (
    STOPPED,
    Booking,
    RequestPolicy,
    count,
    fingerprint,
    never,
    paragraphs,
    plain_json,
    tokens_in,
)
from runner.records import Journal, Usage
from runner.untrusted import prompt_line

if TYPE_CHECKING:
    import openai

# These models do not reason, and refuse a request for reasoning.
WITHOUT_REASONING = ("gpt-3", "gpt-4", "chatgpt")

_ENDS = ("response.completed", "response.incomplete", "response.failed")
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_REJECTED_KEYS = frozenset({"invalid_api_key", "authentication_error"})
# The request's own fault. In the middle of a stream, every other code is the server's trouble.
_REFUSALS = frozenset({"context_length_exceeded", "data_residency_mismatch"})


class Responses:
    """One model behind the Responses API.

    Args:
        config: names the model, its output limit and, if the price table lacks it, its price.
        sleep: waits between attempts, in seconds; replaced in tests.

    Raises:
        ProposerError: no key, no price, or no SDK.
    """

    def __init__(
        self,
        config: Config,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config
        self.price = price_of(config)
        self.sleep = sleep
        open_client().close()  # reports a missing key now, not after the baseline

    @property
    def model(self) -> str:
        """Its name at the API."""
        return self.config.model

    @contextmanager
    def connect(self, stopping: Callable[[], bool] = never) -> Iterator[ResponsesConnection]:
        """Open a client for one conversation; see `runner.proposers.llm.chat.Chat`."""
        client = open_client()
        try:
            yield ResponsesConnection(self, client, RequestPolicy(self.sleep, stopping))
        finally:
            client.close()


class ResponsesConnection:
    """An open connection to a model behind the Responses API."""

    def __init__(self, chat: Responses, client: openai.OpenAI, policy: RequestPolicy) -> None:
        self._chat, self._client, self._policy = chat, client, policy

    def ask(
        self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool], journal: Journal
    ) -> Answer | Unanswered:
        """See `runner.proposers.llm.chat.Connection`."""
        request = self._request(opening, exchanges, tools)
        return self._policy.ask(
            lambda: _Arrival(self._chat, self._client, request, self._policy.stopping),
            journal=journal,
            turn=len(exchanges) + 1,
            request_sha256=fingerprint(request),
            secrets=lambda: secrets(self._client),
        )

    def _request(self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool]) -> dict[str, Any]:
        """Everything that determines the answer. The API caches the longest known prefix without marks."""
        items: list[Any] = [*_user(opening.material), *_user(opening.task)]
        for exchange in exchanges:
            items += exchange.answer.raw
            items += [
                {
                    "type": "function_call_output",
                    "call_id": result.call,
                    "output": f"Error: {result.text}" if result.is_error else result.text,
                }
                for result in exchange.results
            ]
            items += _user(exchange.words)
        request = {
            "model": self._chat.model,
            "max_output_tokens": self._chat.config.max_output_tokens,
            "instructions": opening.system,
            "input": items,
            "tools": [_function(tool) for tool in tools],
            "store": False,
        }
        if not self._chat.model.startswith(WITHOUT_REASONING):
            request["include"] = ["reasoning.encrypted_content"]
        return request


class _Arrival:
    """One request and its response; see `request_policy.Arrival`."""

    def __init__(
        self, chat: Responses, client: openai.OpenAI, request: dict[str, Any], stopping: Callable[[], bool]
    ) -> None:
        self._chat, self._client, self._request, self._stopping = chat, client, request, stopping
        self._end: Any = None  # the response as it was when it ended
        self._items: list[Any] = []
        self._characters = 0
        self._request_id: str | None = None

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The SDK's exceptions."""
        import openai

        return (openai.OpenAIError,)

    def read(self, booking: Booking) -> Answer | Failure | Unanswered | None:
        """Send the request and read its events."""
        with self._client.responses.create(**self._request, stream=True) as stream:
            self._request_id = stream.response.headers.get("x-request-id")
            for event in stream:
                if not booking.opened and event.type.startswith("response."):
                    booking.open(self.usage())
                if event.type == "error":
                    return self._explain(200, event.code, event.message)
                if event.type in _ENDS:
                    self._end = event.response
                    break  # the rest does not matter, and some servers never close the stream
                if event.type == "response.output_item.done":
                    self._items.append(event.item)
                delta = getattr(event, "delta", None)
                self._characters += len(delta) if isinstance(delta, str) else 0
                if self._stopping():
                    return STOPPED
        if self._end is None:
            return None
        if self._end.status == "failed":
            error = self._end.error
            return self._explain(200, getattr(error, "code", None), getattr(error, "message", None))
        return _answer(self._end, self._items)

    def usage(self) -> Usage:
        """The reported tokens. The API reports none before the end: until then, and without one, an estimate."""
        usage = getattr(self._end, "usage", None)
        details = getattr(usage, "input_tokens_details", None)
        read, written = count(details, "cached_tokens"), count(details, "cache_write_tokens")
        whole = count(usage, "input_tokens") if usage is not None else tokens_in(len(json.dumps(self._request)))
        tokens = Tokens(
            input=max(whole - read - written, 0),
            output=count(usage, "output_tokens") if usage is not None else tokens_in(self._characters),
            cache_read=read,
            cache_write=written,
        )
        return Usage(
            model=prompt_line(str(getattr(self._end, "model", None) or self._chat.model), 100),
            request_id=self._request_id,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
            cost_usd=self._chat.price(tokens),
        )

    def explain(self, error: Exception) -> Failure:
        """Decide on an exception of the SDK or of the connection."""
        import openai

        if isinstance(error, openai.APIStatusError):
            return self._explain_status(error)
        if isinstance(error, openai.APIConnectionError):
            return failures.no_connection(self._client.base_url.host, error)
        if isinstance(error, openai.APIError):  # an error in the middle of a stream, in its older form
            return self._explain(200, error.code or error.type, error.message)
        if isinstance(error, openai.OpenAIError):
            return failures.unusable_credentials(error, KEY_REMEDY)
        return failures.broken_stream(error)

    def _explain_status(self, error: openai.APIStatusError) -> Failure:
        body = error.body if isinstance(error.body, dict) else {}
        failure = self._explain(error.status_code, error.code or error.type, body.get("message"))
        if error.status_code == 404 and failure.remedy is None:
            remedy = "check OPENAI_BASE_URL: it ends with /v1"
            return failures.no_such_api("Responses", error.request.url, "HTTP 404", remedy=remedy)
        if failure.retry:
            return replace(failure, retry_after=failures.retry_after(error.response.headers))
        return failure

    def _explain(self, status: int, code: object, message: object) -> Failure:
        """Decide on an error status, or on an error inside a stream (status 200)."""
        hidden = secrets(self._client)
        kind, text = (failures.redacted(part, hidden) if isinstance(part, str) else "" for part in (code, message))
        quoted = failures.quote(status, kind, text)
        if status == 402 or kind in _NO_MONEY:
            return failures.no_credit(quoted)
        if status == 401 or kind in _REJECTED_KEYS:
            return failures.rejected_key(quoted, KEY_REMEDY)
        if status == 403:
            return failures.forbidden_model(self._chat.model, quoted, owner="project")
        if kind == "model_not_found":
            return failures.unknown_model(self._chat.model, quoted, example="gpt-5.5")
        refused = kind.startswith("invalid_") or "policy" in kind or kind in _REFUSALS
        if status in failures.TRANSIENT_STATUS or status >= 500 or (status == 200 and not refused):
            return Failure(reason=quoted, retry=True)
        return failures.refused_request(quoted)


def _user(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_text", "text": text}]}] if text.strip() else []


def _function(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.schema),
        "strict": tool.strict and can_be_strict(tool.schema),  # always sent: the API's default is strict
    }


def can_be_strict(schema: object) -> bool:
    """Whether the API can enforce a schema: every object is closed and requires all of its properties."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" and (
            schema.get("additionalProperties") is not False
            or set(schema.get("required", ())) != set(schema.get("properties", {}))
        ):
            return False
        return all(can_be_strict(value) for value in schema.values())
    return all(can_be_strict(value) for value in schema) if isinstance(schema, list) else True


def _answer(end: Any, items: Sequence[Any]) -> Answer:
    """The answer in a finished response; a server may omit its items from the last event."""
    output = getattr(end, "output", None) or items
    raw = plain_json([item.to_dict(mode="json", warnings=False) for item in output])
    calls = tuple(
        Call(
            id=str(item.get("call_id", "")),
            name=str(item.get("name", "")),
            input=_input(item.get("arguments", "")),
        )
        for item in raw
        if item.get("type") == "function_call"
    )
    parts = [part for item in raw if item.get("type") == "message" for part in item.get("content") or []]
    thoughts = [
        part
        for item in raw
        if item.get("type") == "reasoning"
        for part in (item.get("summary") or item.get("content") or [])
    ]
    refusals = [str(part.get("refusal", "")) for part in parts if part.get("type") == "refusal"]
    stop, detail = (Stop.CALLS if calls else Stop.SAID), None
    if end.status == "incomplete":
        detail = str(getattr(end.incomplete_details, "reason", None) or "incomplete")
        stop = Stop.REFUSED if detail == "content_filter" else Stop.TOO_LONG
        detail = None if detail == "max_output_tokens" else detail
    elif refusals and not calls:
        stop, detail = Stop.REFUSED, " ".join(refusals)
    return Answer(
        raw=raw,
        calls=calls,
        text=paragraphs(part.get("text") for part in parts),
        thinking=paragraphs(part.get("text") for part in thoughts),
        stop=stop,
        stop_detail=None if detail is None else prompt_line(detail, 80) or None,
    )


def _input(arguments: str) -> Any:
    """The input of a call. Text that is not JSON stays text: the tool will refuse it."""
    try:
        wanted = json.loads(arguments)
        json.dumps(wanted, allow_nan=False)
    except ValueError:
        return arguments
    return plain_json(wanted)
