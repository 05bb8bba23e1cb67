"""The Messages API: a conversation as its requests, one streamed response as an answer, its errors as decisions.

Nothing here ever shows the key: server texts are redacted, and SDK exceptions, whose chain may hold headers,
are turned into plain values before anything is raised.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2

from runner.config import Config
from runner.proposers.llm.chat import Answer, Call, Exchange, Opening, Stop, Tool, Unanswered
from runner.proposers.llm.hosts import Host, open_host
from runner.proposers.llm.prices import Tokens, price_of
from runner.proposers.llm.request_policy import (
    GARBLED,
    STOPPED,
    TRANSIENT_STATUS,
    Booking,
    Failure,
    Patience,
    count,
    fingerprint,
    never,
    plain_json,
    redacted,
    retry_after,
    tokens_in,
)
from runner.records import Journal, Usage
from runner.untrusted import prompt_line

# Experiments are minutes apart: the default of five minutes would mostly pay for writing the cache.
CACHE = {"type": "ephemeral", "ttl": "1h"}
# Turns are seconds apart, and the end of a conversation is of no use to the next one.
CACHE_OF_END = {"type": "ephemeral"}
# They think in any case and bill it; without being asked they do not show it. Older models would begin to think.
ALWAYS_THINKING = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")

_STOPS = {
    "refusal": Stop.REFUSED,
    "max_tokens": Stop.TOO_LONG,
    "model_context_window_exceeded": Stop.WINDOW_FULL,
}
_ENDS = frozenset({"end_turn", "stop_sequence", "tool_use"})
# In the middle of a stream everything else is trouble of the server's: its names differ between those who serve.
_REFUSALS = frozenset({"invalid_request_error", "request_too_large", "validationException"})


class Messages:
    """One model behind the Messages API.

    Args:
        config: names the model, who serves it, its output cap and, where the table does not know it, its price.
        sleep: waits between attempts, in seconds; replaced in tests.

    Raises:
        ProposerError: no key, no price, or a package that is missing.
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
        open_host(config.proposer).client.close()  # a missing key is told now, not after the baseline

    @property
    def model(self) -> str:
        """Its name at the API."""
        return self.config.model

    @contextmanager
    def connect(self, stopping: Callable[[], bool] = never) -> Iterator[MessagesLine]:
        """Open a client for one conversation; see `runner.proposers.llm.chat.Chat`."""
        host = open_host(self.config.proposer)
        try:
            yield MessagesLine(self, host, Patience(self.sleep, stopping))
        finally:
            host.client.close()


class MessagesLine:
    """An open connection to a model behind the Messages API."""

    def __init__(self, chat: Messages, host: Host, patience: Patience) -> None:
        self._chat, self._host, self._patience = chat, host, patience

    def ask(
        self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool], journal: Journal
    ) -> Answer | Unanswered:
        """See `runner.proposers.llm.chat.Line`."""
        request = self._request(opening, exchanges, tools)
        marked = self._marked(request)
        return self._patience.ask(
            lambda booking: self._attempt(marked, booking),
            journal=journal,
            turn=len(exchanges) + 1,
            request_sha256=fingerprint(request),
            secrets=self._host.secrets,
        )

    def _request(self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool]) -> dict[str, Any]:
        """All that decides the answer."""
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
        """The request with its marks of the cache, of which there may be four: rules, material, moving end."""
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

    def _attempt(self, request: dict[str, Any], booking: Booking) -> Answer | Failure | Unanswered:
        client = self._host.client
        stream: Any = None
        characters = 0
        garbled: tuple[type[Exception], ...] = (*GARBLED, *self._host.faults)
        outcome: Answer | Failure | Unanswered | None = None
        try:
            with client.messages.stream(**request) as stream:
                for event in stream:
                    if not booking.opened and event.type == "message_start":
                        booking.open(self._usage(stream, 0))
                    elif event.type == "content_block_delta":
                        characters += _length(event.delta)
                    if self._patience.stopping():
                        outcome = STOPPED
                        break
            # A stream that ends early raises nothing; one that was complete when a person stopped is paid for.
            if booking.opened and stream.current_message_snapshot.stop_reason is not None:
                outcome = _answer(stream.current_message_snapshot)
        except anthropic.APIStatusError as error:
            outcome = self._explain(error)
        except anthropic.APIConnectionError as error:
            outcome = Failure(
                reason=f"no connection to {client.base_url.host} ({type(error).__name__})", retry=True
            )
        except anthropic.AnthropicError as error:  # credentials that cannot be read or renewed
            outcome = Failure(
                reason=f"the credentials cannot be used ({type(error).__name__})",
                retry=False,
                remedy=self._host.remedy,
            )
        except httpx2.HTTPError as error:  # leaks from a stream that is cut
            outcome = Failure(reason=f"the answer was cut off ({type(error).__name__})", retry=True)
        except garbled as error:
            outcome = Failure(reason=f"the answer was garbled ({type(error).__name__})", retry=True)
        finally:  # also when a person interrupts: what has arrived is paid for
            if booking.opened:
                booking.close(self._usage(stream, characters), outcome if isinstance(outcome, Answer) else None)
        nothing = "the answer ended early" if booking.opened else "the answer was empty"
        return outcome or Failure(reason=nothing, retry=True)

    def _usage(self, stream: Any, characters: int) -> Usage:
        message = stream.current_message_snapshot
        usage = getattr(message, "usage", None)  # not every local server sends it, or all of it
        writes = count(usage, "cache_creation_input_tokens")
        hour = min(writes, count(getattr(usage, "cache_creation", None), "ephemeral_1h_input_tokens"))
        unreported = 0 if message.stop_reason else tokens_in(characters)
        tokens = Tokens(
            input=count(usage, "input_tokens"),
            output=max(count(usage, "output_tokens"), unreported),
            cache_read=count(usage, "cache_read_input_tokens"),
            cache_write=writes - hour,
            cache_write_hour=hour,
        )
        return Usage(
            model=prompt_line(str(message.model or self._chat.model), 100),
            request_id=stream.request_id or stream.response.headers.get("x-amzn-requestid"),
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=writes,
            cost_usd=self._chat.price(tokens),
        )

    def _explain(self, error: anthropic.APIStatusError) -> Failure:
        """Decide on an error status, or on an error event inside a stream (status 200)."""
        status, kind, code = error.status_code, error.type or "", error.error_code or ""
        said = f"HTTP {status} {kind}".strip() if status != 200 else kind or "an error in the middle of the answer"
        text = redacted(_message(error), self._host.secrets())
        quoted = f"{said}: {text}" if text else said
        model = self._chat.model
        if status == 402 or kind == "billing_error" or "spend_limit" in code or "billing" in code:
            return Failure(
                reason=f"the account has no credit left or has reached its spending limit ({quoted})",
                retry=False,
                remedy="add credit or raise the limit in the console, then start again: the campaign resumes",
            )
        if status == 401 or kind == "authentication_error":
            return Failure(
                reason=f"the API does not accept the key ({quoted})", retry=False, remedy=self._host.remedy
            )
        if status == 403 or kind == "permission_error":
            return Failure(
                reason=f"the key may not use model {model!r} ({quoted})",
                retry=False,
                remedy="use a key of a workspace that may, or choose another model with --model",
            )
        if status == 404 and (kind == "not_found_error" or self._chat.config.proposer != "anthropic"):
            return Failure(
                reason=f"there is no model {model!r} ({quoted})",
                retry=False,
                remedy="choose a model that the API knows with --model, for instance claude-opus-5-5",
            )
        if status == 404:
            return Failure(
                reason=f"there is no Messages API at {error.request.url.host}{error.request.url.path} ({quoted})",
                retry=False,
                remedy="check ANTHROPIC_BASE_URL: it ends before /v1",
            )
        if status in TRANSIENT_STATUS or status >= 500 or (status == 200 and kind not in _REFUSALS):
            return Failure(reason=quoted, retry=True, retry_after=retry_after(error.response.headers))
        return Failure(reason=f"the API refuses the request ({quoted})", retry=False, of_request=True)


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _turn(role: str, blocks: Sequence[Any]) -> dict[str, Any]:
    """One side's words: every block verbatim (thinking is signed), but no blank text: the API refuses its own."""
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
    # Not every server tells a call by the stop reason, and there may be reasons that nobody knows yet.
    stop = _STOPS.get(reason, Stop.CALLS if calls else Stop.SAID)
    detail = getattr(details, "category", None) or (None if reason in {*_STOPS, *_ENDS} else reason)
    return Answer(
        raw=raw,
        calls=calls,
        text=_joined(raw, "text"),
        thinking=_joined(raw, "thinking"),
        stop=stop,
        stop_detail=None if detail is None else prompt_line(str(detail), 80) or None,
    )


def _joined(raw: Sequence[Any], kind: str) -> str:
    parts = (block.get(kind) for block in raw if block.get("type") == kind)
    return "\n\n".join(part for part in parts if isinstance(part, str) and part.strip())


def _length(delta: Any) -> int:
    names = ("text", "thinking", "partial_json")
    return sum(len(value) for name in names if isinstance(value := getattr(delta, name, None), str))


def _message(error: anthropic.APIStatusError) -> str:
    """What a server says: Bedrock says it without a frame."""
    bare = error.body.get("message") if isinstance(error.body, dict) else None
    return next((text for text in (error.api_message, bare) if isinstance(text, str)), "")
