"""The OpenAI Responses API: a conversation as its requests, a streamed response as an answer, errors as decisions.

Nothing is stored at the server: reasoning comes encrypted and goes back verbatim. The SDK is an optional package.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx2

from runner.config import Config
from runner.errors import ProposerError
from runner.proposers.llm.chat import Answer, Call, Exchange, Opening, Stop, Tool, Unanswered
from runner.proposers.llm.prices import Tokens, price_of
from runner.proposers.llm.request_policy import (
    CONNECT_TIMEOUT_SECONDS,
    GARBLED,
    READ_TIMEOUT_SECONDS,
    STOPPED,
    TRANSIENT_STATUS,
    Booking,
    Failure,
    Patience,
    check_keys,
    count,
    fingerprint,
    missing,
    never,
    plain_json,
    redacted,
    retry_after,
    secrets_of,
    tokens_in,
)
from runner.records import Journal, Usage
from runner.untrusted import prompt_line

if TYPE_CHECKING:
    import openai

# They do not reason, and refuse to be asked for reasoning.
WITHOUT_REASONING = ("gpt-3", "gpt-4", "chatgpt")

_KEY_REMEDY = "check OPENAI_API_KEY and OPENAI_BASE_URL"
_ENDS = ("response.completed", "response.incomplete", "response.failed")
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_REFUSED_KEYS = frozenset({"invalid_api_key", "authentication_error"})
# Of the request itself. In the middle of a stream every other code is trouble of the server's.
_REFUSALS = frozenset({"context_length_exceeded", "data_residency_mismatch"})


class Responses:
    """One model behind the Responses API.

    Args:
        config: names the model, its output cap and, where the table does not know it, its price.
        sleep: waits between attempts, in seconds; replaced in tests.

    Raises:
        ProposerError: no key, no price, or the SDK is missing.
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
        _client().close()  # a missing key is told now, not after the baseline

    @property
    def model(self) -> str:
        """Its name at the API."""
        return self.config.model

    @contextmanager
    def connect(self, stopping: Callable[[], bool] = never) -> Iterator[ResponsesLine]:
        """Open a client for one conversation; see `runner.proposers.llm.chat.Chat`."""
        client = _client()
        try:
            yield ResponsesLine(self, client, Patience(self.sleep, stopping))
        finally:
            client.close()


class ResponsesLine:
    """An open connection to a model behind the Responses API."""

    def __init__(self, chat: Responses, client: openai.OpenAI, patience: Patience) -> None:
        self._chat, self._client, self._patience = chat, client, patience
        self._secrets = secrets_of([client.api_key], client.default_headers)

    def ask(
        self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool], journal: Journal
    ) -> Answer | Unanswered:
        """See `runner.proposers.llm.chat.Line`."""
        request = self._request(opening, exchanges, tools)
        return self._patience.ask(
            lambda booking: self._attempt(request, booking),
            journal=journal,
            turn=len(exchanges) + 1,
            request_sha256=fingerprint(request),
            secrets=lambda: self._secrets,
        )

    def _request(self, opening: Opening, exchanges: Sequence[Exchange], tools: Sequence[Tool]) -> dict[str, Any]:
        """All that decides the answer. The API caches the longest beginning that it knows, without marks."""
        said: list[Any] = [*_said(opening.material), *_said(opening.task)]
        for exchange in exchanges:
            said += exchange.answer.raw
            said += [
                {
                    "type": "function_call_output",
                    "call_id": result.call,
                    "output": f"Error: {result.text}" if result.is_error else result.text,
                }
                for result in exchange.results
            ]
            said += _said(exchange.words)
        request = {
            "model": self._chat.model,
            "max_output_tokens": self._chat.config.max_output_tokens,
            "instructions": opening.system,
            "input": said,
            "tools": [_function(tool) for tool in tools],
            "store": False,
        }
        if not self._chat.model.startswith(WITHOUT_REASONING):
            request["include"] = ["reasoning.encrypted_content"]
        return request

    def _attempt(self, request: dict[str, Any], booking: Booking) -> Answer | Failure | Unanswered:
        import openai

        end: Any = None  # the response as it was when it ended
        items: list[Any] = []
        characters, request_id = 0, None
        outcome: Answer | Failure | Unanswered | None = None
        try:
            with self._client.responses.create(**request, stream=True) as stream:
                request_id = stream.response.headers.get("x-request-id")
                for event in stream:
                    if not booking.opened and event.type.startswith("response."):
                        booking.open(self._usage(request, None, 0, request_id))
                    if event.type == "error":
                        outcome = self._explain(200, event.code, event.message)
                        break
                    if event.type == "response.output_item.done":
                        items.append(event.item)
                    elif event.type in _ENDS:
                        end = event.response
                        break  # nothing follows that matters, and not every server closes the stream
                    delta = getattr(event, "delta", None)
                    characters += len(delta) if isinstance(delta, str) else 0
                    if self._patience.stopping():
                        outcome = STOPPED
                        break
            if end is not None and end.status == "failed":
                outcome = self._explain(200, getattr(end.error, "code", None), getattr(end.error, "message", None))
            elif end is not None:
                outcome = _answer(end, items)
        except openai.APIStatusError as error:
            outcome = self._explain_status(error)
        except openai.APIConnectionError as error:
            host = self._client.base_url.host
            outcome = Failure(reason=f"no connection to {host} ({type(error).__name__})", retry=True)
        except openai.APIError as error:  # an error in the middle of a stream, in its older form
            outcome = self._explain(200, error.code or error.type, error.message)
        except openai.OpenAIError as error:
            outcome = Failure(
                reason=f"the credentials cannot be used ({type(error).__name__})",
                retry=False,
                remedy=_KEY_REMEDY,
            )
        except httpx2.HTTPError as error:
            outcome = Failure(reason=f"the answer was cut off ({type(error).__name__})", retry=True)
        except GARBLED as error:
            outcome = Failure(reason=f"the answer was garbled ({type(error).__name__})", retry=True)
        finally:  # also when a person interrupts: what has arrived is paid for
            if booking.opened:
                usage = self._usage(request, end, characters, request_id)
                booking.close(usage, outcome if isinstance(outcome, Answer) else None)
        nothing = "the answer ended early" if booking.opened else "the answer was empty"
        return outcome or Failure(reason=nothing, retry=True)

    def _usage(self, request: dict[str, Any], end: Any, characters: int, request_id: str | None) -> Usage:
        """Known at the end only. Until then, and for good if there is none, the prompt's cost is a guess."""
        usage = getattr(end, "usage", None)
        details = getattr(usage, "input_tokens_details", None)
        read, written = count(details, "cached_tokens"), count(details, "cache_write_tokens")
        whole = count(usage, "input_tokens") if usage is not None else tokens_in(len(json.dumps(request)))
        tokens = Tokens(
            input=max(whole - read - written, 0),
            output=count(usage, "output_tokens") if usage is not None else tokens_in(characters),
            cache_read=read,
            cache_write=written,
        )
        return Usage(
            model=prompt_line(str(getattr(end, "model", None) or self._chat.model), 100),
            request_id=request_id,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=tokens.cache_write,
            cost_usd=self._chat.price(tokens),
        )

    def _explain_status(self, error: openai.APIStatusError) -> Failure:
        body = error.body if isinstance(error.body, dict) else {}
        failure = self._explain(error.status_code, error.code or error.type, body.get("message"))
        if error.status_code == 404 and failure.remedy is None:
            return Failure(
                reason=f"there is no Responses API at {error.request.url.host}{error.request.url.path}",
                retry=False,
                remedy="check OPENAI_BASE_URL: it ends with /v1",
            )
        if failure.retry:
            return Failure(reason=failure.reason, retry=True, retry_after=retry_after(error.response.headers))
        return failure

    def _explain(self, status: int, code: object, message: object) -> Failure:
        """Decide on an error status, or on an error inside a stream (status 200)."""
        kind = redacted(code, self._secrets) if isinstance(code, str) else ""
        said = f"HTTP {status} {kind}".strip() if status != 200 else kind or "an error in the middle of the answer"
        text = redacted(message, self._secrets) if isinstance(message, str) else ""
        quoted = f"{said}: {text}" if text else said
        model = self._chat.model
        if status == 402 or kind in _NO_MONEY:
            return Failure(
                reason=f"the account has no credit left or has reached its spending limit ({quoted})",
                retry=False,
                remedy="add credit or raise the limit in the console, then start again: the campaign resumes",
            )
        if status == 401 or kind in _REFUSED_KEYS:
            return Failure(reason=f"the API does not accept the key ({quoted})", retry=False, remedy=_KEY_REMEDY)
        if status == 403:
            return Failure(
                reason=f"the key may not use model {model!r} ({quoted})",
                retry=False,
                remedy="use a key of a project that may, or choose another model with --model",
            )
        if kind == "model_not_found":
            return Failure(
                reason=f"there is no model {model!r} ({quoted})",
                retry=False,
                remedy="choose a model that the API knows with --model",
            )
        refused = kind.startswith("invalid_") or "policy" in kind or kind in _REFUSALS
        if status in TRANSIENT_STATUS or status >= 500 or (status == 200 and not refused):
            return Failure(reason=quoted, retry=True)
        return Failure(reason=f"the API refuses the request ({quoted})", retry=False, of_request=True)


def _client() -> openai.OpenAI:
    """Open a client; the SDK itself reads OPENAI_API_KEY and OPENAI_BASE_URL."""
    try:
        import openai
    except ImportError:
        raise missing("openai", "openai") from None
    problem, client, timeout = None, None, httpx2.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
    try:
        client = openai.OpenAI(max_retries=0, timeout=timeout)
    except openai.OpenAIError:
        problem = "no key"
    except (httpx2.InvalidURL, ValueError, OSError) as error:
        problem = type(error).__name__
    if client is not None and (client.base_url.scheme not in ("http", "https") or not client.base_url.host):
        client.close()
        client, problem = None, "OPENAI_BASE_URL is no http(s) address"
    if problem == "no key" or (client is not None and not client.api_key):
        raise ProposerError(
            "there is no key for the OpenAI API",
            "export OPENAI_API_KEY=…, or use --proposer optuna, which needs none",
        )
    if client is None:
        raise ProposerError(f"the OpenAI client cannot be set up ({problem})", _KEY_REMEDY)
    check_keys([client.api_key], "OPENAI_API_KEY")
    return client


def _said(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_text", "text": text}]}] if text.strip() else []


def _function(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.schema),
        "strict": tool.strict and can_be_strict(tool.schema),  # never left out: the API's default is strict
    }


def can_be_strict(schema: object) -> bool:
    """Whether the API can enforce a schema: every object is closed, and every property of it required."""
    if isinstance(schema, Mapping):
        if schema.get("type") == "object" and (
            schema.get("additionalProperties") is not False
            or set(schema.get("required", ())) != set(schema.get("properties", {}))
        ):
            return False
        return all(can_be_strict(value) for value in schema.values())
    return all(can_be_strict(value) for value in schema) if isinstance(schema, list) else True


def _answer(end: Any, items: Sequence[Any]) -> Answer:
    """What a response says that has ended; a server may leave it out of the last event."""
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
        text=_joined(parts),
        thinking=_joined(thoughts),
        stop=stop,
        stop_detail=None if detail is None else prompt_line(detail, 80) or None,
    )


def _input(arguments: str) -> Any:
    """What a call was given. What is no JSON stays text: whoever reads it will refuse it."""
    try:
        wanted = json.loads(arguments)
        json.dumps(wanted, allow_nan=False)
    except ValueError:
        return arguments
    return plain_json(wanted)


def _joined(parts: Sequence[Any]) -> str:
    texts = (part.get("text") for part in parts)
    return "\n\n".join(text for text in texts if isinstance(text, str) and text.strip())
