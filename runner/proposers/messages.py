"""One answer of the Messages API: recalled when it was paid for, else streamed, retried within bounds, booked.

The SDK's own retries are off: they obey `retry-after` without a cap and retry an exhausted spending limit all
night.
Nothing here ever shows the key: server texts are redacted, and SDK exceptions, whose chain may hold headers,
are turned into plain values before anything is raised.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import anthropic
import httpx2

from runner.errors import ProposerError
from runner.proposers.prices import Price, Tokens
from runner.proposers.text import one_line
from runner.records import Journal, Usage

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 120.0
READ_TIMEOUT_SECONDS = 300.0  # between two bytes; the API sends pings while it thinks
CONNECT_TIMEOUT_SECONDS = 15.0
# Of a cut stream the API reports no output tokens, but it bills them. Code has about three characters per token.
CHARACTERS_PER_TOKEN = 3

_TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
_TRANSIENT_TYPES = frozenset({"overloaded_error", "api_error", "rate_limit_error", "timeout_error"})
# What the SDK's accumulator raises on a stream that no server should send (broken JSON, an index never begun).
_GARBLED = (ValueError, TypeError, AttributeError, IndexError, KeyError)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A complete answer."""

    content: list[Any]  # blocks as they came, to be returned verbatim
    stop_reason: str
    stop_detail: str | None


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """There is no answer this time."""

    reason: str
    again: bool = True  # the same request may be answered later


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """What is asked, and where its answer is written down."""

    request: dict[str, Any]
    number: int
    sha256: str
    journal: Journal


@dataclass(frozen=True, kw_only=True)
class _Failure:
    reason: str
    retry: bool
    of_request: bool = False  # this very request is refused; another one may not be
    remedy: str | None = None
    retry_after: float | None = None


class Messages:
    """Asks one model, with one policy on errors.

    Args:
        model: its name at the API.
        max_output_tokens: cap of one answer, thinking included.
        price: tokens → USD.
        sleep: waits between attempts, in seconds; replaced in tests.
    """

    def __init__(
        self, model: str, max_output_tokens: int, price: Price, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.model = model
        self.max_output_tokens = max_output_tokens
        self.price = price
        self.sleep = sleep
        self._secrets: tuple[str, ...] = ()
        self.connect().close()  # a missing key is told now, not after the baseline

    def connect(self) -> anthropic.Anthropic:
        """Open a client; the SDK itself reads ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN and ANTHROPIC_BASE_URL.

        Raises:
            ProposerError: no credentials, or unusable ones.
        """
        problem, client = None, None
        try:
            client = anthropic.Anthropic(
                max_retries=0, timeout=anthropic.Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS)
            )
        except (anthropic.AnthropicError, httpx2.InvalidURL, ValueError, OSError) as error:
            problem = type(error).__name__
        if client is not None and (client.base_url.scheme not in ("http", "https") or not client.base_url.host):
            client.close()
            problem = "ANTHROPIC_BASE_URL is no http(s) address"
        if client is None or problem is not None:
            raise ProposerError(
                f"the anthropic client cannot be set up ({problem})",
                "check ANTHROPIC_BASE_URL and the ANTHROPIC_* credentials",
            )
        self._secrets = tuple(secret for secret in (client.api_key, client.auth_token) if secret)
        if not self._secrets and client.credentials is None:
            client.close()
            raise ProposerError(
                "there is no key for the anthropic proposer",
                "export ANTHROPIC_API_KEY=…, or use --proposer optuna, which needs none",
            )
        # Such a key fails inside the HTTP library, in an error that quotes it.
        if any(not secret.isascii() or not secret.isprintable() or " " in secret for secret in self._secrets):
            client.close()
            raise ProposerError(
                "ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN holds blanks, line ends or characters that no key has",
                "export it again without quotes and line ends",
            )
        return client

    def ask(
        self,
        client: anthropic.Anthropic,
        *,
        system: Sequence[Any],
        messages: Sequence[Any],
        tools: Sequence[Any],
        turn: int,
        journal: Journal,
    ) -> Answer | Unanswered:
        """Recall the answer to a request, or send it until it is answered, at most `ATTEMPTS` times.

        Args:
            client: from `connect`.
            system: system blocks.
            messages: the conversation so far.
            tools: tool definitions.
            turn: of the conversation, from 1.
            journal: every response is written there, complete or not, before it is looked at.

        Raises:
            ProposerError: the API refuses for good: key, permission, credit, model, malformed request.
        """
        request = {
            "model": self.model,
            "max_tokens": self.max_output_tokens,
            "system": system,
            "messages": messages,
            "tools": tools,
        }
        asked = _Turn(request=request, number=turn, sha256=_fingerprint(request), journal=journal)
        recorded = journal.recall(turn, asked.sha256)
        if recorded is not None:
            return Answer(**recorded)
        failure = _Failure(reason="", retry=True)
        for attempt in range(ATTEMPTS):
            if attempt:
                self.sleep(_wait_seconds(attempt, failure.retry_after))
            broke = journal.refusal()  # before every attempt: what is cut off costs money as well
            if broke is not None:
                return Unanswered(reason=broke)
            outcome = self._attempt(client, asked)
            if isinstance(outcome, Answer):
                return outcome
            failure = outcome
            if failure.of_request and turn > 1:
                # What was said is what the API does not take: another conversation may fare better.
                return Unanswered(reason=failure.reason, again=False)
            if not failure.retry:
                raise ProposerError(failure.reason, failure.remedy)
        return Unanswered(reason=f"the API did not answer in {ATTEMPTS} attempts; at last: {failure.reason}")

    def _attempt(self, client: anthropic.Anthropic, asked: _Turn) -> Answer | _Failure:
        stream: Any = None
        booking: int | None = None
        characters = 0
        failure: _Failure | None = None
        answer: Answer | None = None
        try:
            with client.messages.stream(**asked.request) as stream:
                for event in stream:
                    if booking is None and event.type == "message_start":
                        begun = self._usage(stream.current_message_snapshot, stream.request_id, 0)
                        booking = asked.journal.open_answer(asked.number, asked.sha256, begun)
                    elif event.type == "content_block_delta":
                        characters += _length(event.delta)
        except anthropic.APIStatusError as error:
            failure = self._explain(error)
        except anthropic.APIConnectionError as error:
            failure = _Failure(
                reason=f"no connection to {client.base_url.host} ({type(error).__name__})", retry=True
            )
        except anthropic.AnthropicError as error:  # credentials that cannot be read or renewed
            failure = _Failure(
                reason=f"the credentials cannot be used ({type(error).__name__})", retry=False, remedy=_KEY_REMEDY
            )
        except httpx2.HTTPError as error:  # leaks from a stream that is cut
            failure = _Failure(reason=f"the answer was cut off ({type(error).__name__})", retry=True)
        except _GARBLED as error:
            failure = _Failure(reason=f"the answer was garbled ({type(error).__name__})", retry=True)
        finally:  # also when a person interrupts: what has arrived is paid for
            if booking is not None:
                message = stream.current_message_snapshot
                usage = self._usage(message, stream.request_id, 0 if message.stop_reason else characters)
                if failure is None and message.stop_reason is not None:  # a stream that ends early raises nothing
                    answer = _answer(message)
                asked.journal.close_answer(booking, usage, self._recordable(answer))
        if answer is not None:
            return answer
        nothing = "the answer was empty" if booking is None else "the answer ended early"
        return failure or _Failure(reason=nothing, retry=True)

    def _recordable(self, answer: Answer | None) -> dict[str, Any] | None:
        """The answer for the ledger, unless a gateway put the key into it: then it is good for this once only."""
        if answer is None:
            return None
        body = asdict(answer)
        text = json.dumps(body)
        return None if any(secret in text for secret in self._secrets) else body

    def _usage(self, message: Any, request_id: str | None, unreported_characters: int) -> Usage:
        usage = getattr(message, "usage", None)  # not every local server sends it, or all of it
        writes = _count(usage, "cache_creation_input_tokens")
        hour = min(writes, _count(getattr(usage, "cache_creation", None), "ephemeral_1h_input_tokens"))
        guess = -(-unreported_characters // CHARACTERS_PER_TOKEN)
        tokens = Tokens(
            input=_count(usage, "input_tokens"),
            output=max(_count(usage, "output_tokens"), guess),
            cache_read=_count(usage, "cache_read_input_tokens"),
            cache_write=writes - hour,
            cache_write_hour=hour,
        )
        return Usage(
            model=one_line(str(message.model or self.model), 100),
            request_id=request_id,
            input_tokens=tokens.input,
            output_tokens=tokens.output,
            cache_read_tokens=tokens.cache_read,
            cache_write_tokens=writes,
            cost_usd=self.price(tokens),
        )

    def _explain(self, error: anthropic.APIStatusError) -> _Failure:
        """Decide on an error status, or on an error event inside a stream (status 200)."""
        status, kind, code = error.status_code, error.type or "", error.error_code or ""
        said = f"HTTP {status} {kind}".strip() if status != 200 else kind or "an error in the middle of the answer"
        text = self._redacted(error.api_message or "")
        quoted = f"{said}: {text}" if text else said
        if status == 402 or kind == "billing_error" or "spend_limit" in code or "billing" in code:
            return _Failure(
                reason=f"the account has no credit left or has reached its spending limit ({quoted})",
                retry=False,
                remedy="add credit or raise the limit in the console, then start again: the campaign resumes",
            )
        if status == 401 or kind == "authentication_error":
            return _Failure(reason=f"the API does not accept the key ({quoted})", retry=False, remedy=_KEY_REMEDY)
        if status == 403 or kind == "permission_error":
            return _Failure(
                reason=f"the key may not use model {self.model!r} ({quoted})",
                retry=False,
                remedy="use a key of a workspace that may, or choose another model with --model",
            )
        if status == 404 and kind == "not_found_error":
            return _Failure(
                reason=f"there is no model {self.model!r} ({quoted})",
                retry=False,
                remedy="choose a model that the API knows with --model, for instance claude-opus-5-5",
            )
        if status == 404:
            return _Failure(
                reason=f"there is no Messages API at {error.request.url.host}{error.request.url.path} ({quoted})",
                retry=False,
                remedy="check ANTHROPIC_BASE_URL: it ends before /v1",
            )
        if status in _TRANSIENT_STATUS or status >= 500 or (status == 200 and kind in {*_TRANSIENT_TYPES, ""}):
            return _Failure(reason=quoted, retry=True, retry_after=_retry_after(error.response.headers))
        return _Failure(reason=f"the API refuses the request ({quoted})", retry=False, of_request=True)

    def _redacted(self, text: str) -> str:
        """Server text without the key: some gateways quote it."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return one_line(text, 300)


_KEY_REMEDY = "check ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN) and ANTHROPIC_BASE_URL"


def _fingerprint(request: dict[str, Any]) -> str:
    """SHA-256 of what decides the answer: all of a request but the marks of the cache. No key is in it."""
    plain = {
        **request,
        "system": _unmarked(request["system"]),
        "messages": [{**said, "content": _unmarked(said["content"])} for said in request["messages"]],
        "tools": _unmarked(request["tools"]),
    }
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _unmarked(blocks: Sequence[Any]) -> list[Any]:
    return [{name: value for name, value in block.items() if name != "cache_control"} for block in blocks]


def _answer(message: Any) -> Answer:
    details = message.stop_details
    return Answer(
        content=[block.to_dict(mode="json") for block in getattr(message, "content", None) or []],
        stop_reason=message.stop_reason,
        stop_detail=None
        if details is None
        else one_line(str(getattr(details, "category", None) or ""), 80) or None,
    )


def _count(usage: object, name: str) -> int:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def _length(delta: Any) -> int:
    names = ("text", "thinking", "partial_json")
    return sum(len(value) for name in names if isinstance(value := getattr(delta, name, None), str))


def _retry_after(headers: httpx2.Headers) -> float | None:
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds >= 0 else None


def _wait_seconds(attempt: int, retry_after: float | None) -> float:
    """Exponential with jitter, so that many controllers do not knock in step; never before asked to."""
    backoff = min(FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1), MAX_WAIT_SECONDS)
    return max(backoff * random.uniform(0.5, 1.0), retry_after or 0.0)  # noqa: S311
