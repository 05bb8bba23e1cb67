"""The Messages API: a conversation as its requests, one streamed response as an answer, its errors as decisions.

The key never appears in anything this module returns or raises: server texts are redacted, and SDK exceptions,
whose chain may hold headers, become plain values before anything is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic

from runner.config import Config
from runner.proposers.llm import failures
from runner.proposers.llm.chat import Answer, Call, Exchange, Opening, Stop, Tool, Unanswered
from runner.proposers.llm.failures import Failure
from runner.proposers.llm.hosts import Host, open_host
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

# Experiments are minutes apart: with the default of five minutes we would mostly pay for writing the cache.
CACHE = {"type": "ephemeral", "ttl": "1h"}
# Turns are seconds apart, and the end of a conversation is of no use to the next one.
CACHE_OF_END = {"type": "ephemeral"}
# These models always think and bill it, but show it only on request. Asking an older model would switch it on.
ALWAYS_THINKING = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")

_STOPS = {
    "refusal": Stop.REFUSED,
    "max_tokens": Stop.TOO_LONG,
    "model_context_window_exceeded": Stop.WINDOW_FULL,
}
_ENDS = frozenset({"end_turn", "stop_sequence", "tool_use"})
# In the middle of a stream, every other error is the server's trouble: its names differ between hosts.
_REFUSALS = frozenset({"invalid_request_error", "request_too_large", "validationException"})


class Messages:
    """One model behind the Messages API.

    Args:
        config: names the model, its host, its output limit and, if the price table lacks it, its price.
        sleep: waits between attempts, in seconds; replaced in tests.

    Raises:
        ProposerError: no key, no price, or a missing package.
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
        open_host(config.proposer).client.close()  # reports a missing key now, not after the baseline

    @property
    def model(self) -> str:
        """Its name at the API."""
        return self.config.model

    @contextmanager
    def connect(self, stopping: Callable[[], bool] = never) -> Iterator[MessagesConnection]:
        """Open a client for one conversation; see `runner.proposers.llm.chat.Chat`."""
        host = open_host(self.config.proposer)
        try:
            yield MessagesConnection(self, host, RequestPolicy(self.sleep, stopping))
        finally:
            host.client.close()


class MessagesConnection:
    """An open connection to a model behind the Messages API."""

    def __init__(self, chat: Messages, host: Host, policy: RequestPolicy) -> None:
        self._chat, self._host, self._policy = chat, host, policy

    def ask(
        self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool], journal: Journal
    ) -> Answer | Unanswered:
        """See `runner.proposers.llm.chat.Connection`."""
        request = self._request(opening, exchanges, tools)
        marked = self._marked(request)
        return self._policy.ask(
            lambda: _Arrival(self._chat, self._host, marked, self._policy.stopping),
            journal=journal,
            turn=len(exchanges) + 1,
            request_sha256=fingerprint(request),
            secrets=self._host.secrets,
        )

    def _request(self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool]) -> dict[str, Any]:
        """Everything that determines the answer."""
        messages = [_turn("user", [_text(opening.material), _text(opening.task)])]
        for exchange in exchanges:
            results = [
                {
                    "type": "tool_result",
                    "tool_use_id": result.call,
                    "content": result.text,
                    "is_error": result.is_error,
                }
                for result in exchange.results
            ]
            messages.append(_turn("assistant", exchange.answer.raw))
            messages.append(_turn("user", [*results, _text(exchange.words)]))
        request = {
            "model": self._chat.model,
            "max_tokens": self._chat.config.max_output_tokens,
            "system": _turn("user", [_text(opening.system)])["content"],
            "messages": [message for message in messages if message["content"]],
            "tools": [self._tool(tool) for tool in tools],
        }
        if any(name in self._chat.model for name in ALWAYS_THINKING):
            request["thinking"] = {"type": "adaptive", "display": "summarized"}
        return request

    def _tool(self, tool: Tool) -> dict[str, Any]:
        if tool.builtin is not None and self._builtin:
            limit = {} if tool.max_characters is None else {"max_characters": tool.max_characters}
            return {"type": tool.builtin, "name": tool.name, **limit}
        strict = {"strict": True} if tool.strict and self._host.strict else {}
        return {"name": tool.name, "description": tool.description, "input_schema": dict(tool.schema), **strict}

    @property
    def _builtin(self) -> bool:
        editor = self._chat.config.editor
        return self._host.knows_editor if editor == "auto" else editor == "builtin"

    def _marked(self, request: dict[str, Any]) -> dict[str, Any]:
        """The request with its cache marks (the API allows four): rules, material, moving end."""
        first, *rest = request["messages"]
        material, *task = first["content"]
        marked = {
            **request,
            "system": [{**block, "cache_control": CACHE} for block in request["system"]],
            "messages": [{**first, "content": [{**material, "cache_control": CACHE}, *task]}, *rest],
        }
        if self._host.marks_end:
            marked["cache_control"] = CACHE_OF_END
        elif rest and rest[-1]["role"] == "user":
            *before, end = rest[-1]["content"]
            marked["messages"][-1] = {**rest[-1], "content": [*before, {**end, "cache_control": CACHE_OF_END}]}
        return marked


class _Arrival:
    """One request and its response; see `request_policy.Arrival`."""

    def __init__(self, chat: Messages, host: Host, request: dict[str, Any], stopping: Callable[[], bool]) -> None:
        self._chat, self._host, self._request, self._stopping = chat, host, request, stopping
        self._stream: Any = None
        self._characters = 0

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """The SDK's exceptions, and those of the host's credentials."""
        return (anthropic.AnthropicError, *self._host.faults)

    def read(self, booking: Booking) -> Answer | Unanswered | None:
        """Send the request and read its events."""
        stopped = False
        with self._host.client.messages.stream(**self._request) as self._stream:
            for event in self._stream:
                if not booking.opened and event.type == "message_start":
                    booking.open(self.usage())
                elif event.type == "content_block_delta":
                    self._characters += _length(event.delta)
                if self._stopping():
                    stopped = True
                    break
        # A stream that ends early raises nothing; one that was complete when a person stopped is paid for.
        if booking.opened and self._stream.current_message_snapshot.stop_reason is not None:
            return _answer(self._stream.current_message_snapshot)
        return STOPPED if stopped else None

    def usage(self) -> Usage:
        """The reported tokens; while an answer is incomplete, an estimate of its output."""
        message = self._stream.current_message_snapshot
        usage = getattr(message, "usage", None)  # some local servers send none, or only parts
        writes = count(usage, "cache_creation_input_tokens")
        hour = min(writes, count(getattr(usage, "cache_creation", None), "ephemeral_1h_input_tokens"))
        unreported = 0 if message.stop_reason else tokens_in(self._characters)
        tokens = Tokens(
            input=count(usage, "input_tokens"),
            output=max(count(usage, "output_tokens"), unreported),
            cache_read=count(usage, "cache_read_input_tokens"),
            cache_write=writes - hour,
            cache_write_hour=hour,
        )
        return Usage(
            model=prompt_line(str(message.model or self._chat.model), 100),
            request_id=self._stream.request_id or self._stream.response.headers.get("x-amzn-requestid"),
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=writes,
            cost_usd=self._chat.price(tokens),
        )

    def explain(self, error: Exception) -> Failure:
        """Decide on an exception of the SDK, of the credentials, or of the connection."""
        if isinstance(error, anthropic.APIStatusError):
            return self._explain_status(error)
        if isinstance(error, anthropic.APIConnectionError):
            return failures.no_connection(self._host.client.base_url.host, error)
        if isinstance(error, anthropic.AnthropicError):
            return failures.unusable_credentials(error, self._host.remedy)
        return failures.broken_stream(error)

    def _explain_status(self, error: anthropic.APIStatusError) -> Failure:
        """Decide on an error status, or on an error event inside a stream (status 200)."""
        status, kind, code = error.status_code, error.type or "", error.error_code or ""
        quoted = failures.quote(status, kind, failures.redacted(_message(error), self._host.secrets()))
        model = self._chat.model
        if status == 402 or kind == "billing_error" or "spend_limit" in code or "billing" in code:
            return failures.no_credit(quoted)
        if status == 401 or kind == "authentication_error":
            return failures.rejected_key(quoted, self._host.remedy)
        if status == 403 or kind == "permission_error":
            return failures.forbidden_model(model, quoted, owner="workspace")
        if status == 404 and (kind == "not_found_error" or self._chat.config.proposer != "anthropic"):
            return failures.unknown_model(model, quoted, example="claude-opus-5-5")
        if status == 404:
            remedy = "check ANTHROPIC_BASE_URL: it ends before /v1"
            return failures.no_such_api("Messages", error.request.url, quoted, remedy=remedy)
        if status in failures.TRANSIENT_STATUS or status >= 500 or (status == 200 and kind not in _REFUSALS):
            after = failures.retry_after(error.response.headers)
            return Failure(reason=quoted, retry=True, retry_after=after)
        return failures.refused_request(quoted)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _turn(role: str, blocks: Sequence[Any]) -> dict[str, Any]:
    """One side's turn: every block verbatim (thinking is signed), except blank text, which the API refuses."""
    return {"role": role, "content": [b for b in blocks if b.get("type") != "text" or b.get("text", "").strip()]}


def _answer(message: Any) -> Answer:
    raw = plain_json(
        [block.to_dict(mode="json", warnings=False) for block in getattr(message, "content", None) or []]
    )
    calls = tuple(
        Call(id=str(block.get("id", "")), name=str(block.get("name", "")), input=block.get("input"))
        for block in raw
        if block.get("type") == "tool_use"
    )
    reason, details = str(message.stop_reason), message.stop_details
    # Some servers do not mark a call in the stop reason, and new reasons may appear.
    stop = _STOPS.get(reason, Stop.CALLS if calls else Stop.SAID)
    detail = getattr(details, "category", None) or (None if reason in {*_STOPS, *_ENDS} else reason)
    return Answer(
        raw=raw,
        calls=calls,
        text=paragraphs(block.get("text") for block in raw if block.get("type") == "text"),
        thinking=paragraphs(block.get("thinking") for block in raw if block.get("type") == "thinking"),
        stop=stop,
        stop_detail=None if detail is None else prompt_line(str(detail), 80) or None,
    )


def _length(delta: Any) -> int:
    names = ("text", "thinking", "partial_json")
    return sum(len(value) for name in names if isinstance(value := getattr(delta, name, None), str))


def _message(error: anthropic.APIStatusError) -> str:
    """The message of a server; Bedrock sends it without the usual envelope."""
    bare = error.body.get("message") if isinstance(error.body, dict) else None
    return next((text for text in (error.api_message, bare) if isinstance(text, str)), "")
