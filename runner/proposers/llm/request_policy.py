"""The policy of every request, whichever API answers it: within bounds, paid for once, and without exposing a key.

The module of an API builds requests, reads one response (`Arrival`) and explains its errors (`failures`). The
SDKs' own retries are off: they obey `retry-after` without a cap and retry an exhausted spending limit all night.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import httpx2

from runner.errors import ProposerError
from runner.proposers.llm.chat import Answer, Call, Stop, Unanswered
from runner.proposers.llm.failures import GARBLED, Failure
from runner.records import Journal, Usage

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0
POLL_SECONDS = 0.5  # how late a wait notices a stop request
READ_TIMEOUT_SECONDS = 300.0  # between two bytes; the APIs send something while they think
CONNECT_TIMEOUT_SECONDS = 15.0
# APIs bill the output tokens of an answer that was cut off but do not report them. Code has about three characters
# per token.
CHARACTERS_PER_TOKEN = 3
# Shorter ones are the placeholders that satisfy local servers: words that any answer may contain.
MIN_SECRET_CHARACTERS = 12

Secrets = Callable[[], tuple[str, ...]]
"""The values that must not be shown; called late, since a client may renew its token."""

STOPPED = Unanswered(reason="stopped")


def never() -> bool:
    """The default for `stopping`."""
    return False


class Booking:
    """One response in the journal: opened at its first event, closed when it ends, kept if it is complete."""

    def __init__(self, journal: Journal, turn: int, request_sha256: str, secrets: Secrets) -> None:
        self._journal, self._turn, self._sha256, self._secrets = journal, turn, request_sha256, secrets
        self._number: int | None = None

    @property
    def opened(self) -> bool:
        """Whether a response has begun."""
        return self._number is not None

    def open(self, usage: Usage) -> None:
        """Book the cost that is known when the response begins."""
        self._number = self._journal.open_answer(self._turn, self._sha256, usage)

    def close(self, usage: Usage, answer: Answer | None) -> None:
        """Correct the cost and keep the answer; None: the response is incomplete.

        An answer that quotes a key (some gateways echo headers) is used this once and is not kept.
        """
        assert self._number is not None
        body = None if answer is None else asdict(answer)
        text = json.dumps(body)
        if any(json.dumps(secret)[1:-1] in text for secret in self._secrets()):
            body = None
        self._journal.close_answer(self._number, usage, body)


class Arrival(Protocol):
    """One request and its response while it arrives. Each API implements it."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Exceptions of the SDK and of the libraries beneath it."""

    def read(self, booking: Booking) -> Answer | Failure | Unanswered | None:
        """Send the request and read the stream, opening the booking at its first event.

        Returns:
            None if the stream ended before the answer did.
        """

    def usage(self) -> Usage:
        """The cost of everything that has arrived so far."""

    def explain(self, error: Exception) -> Failure:
        """Decide on an exception that `read` raised."""


def receive(arrival: Arrival, booking: Booking) -> Answer | Failure | Unanswered:
    """Make one attempt. Every response that begins is booked, whatever happens to it."""
    expected: tuple[type[Exception], ...] = (*arrival.errors, httpx2.HTTPError, *GARBLED)
    outcome: Answer | Failure | Unanswered | None = None
    try:
        outcome = arrival.read(booking)
    except expected as error:
        outcome = arrival.explain(error)
    finally:  # also on a keyboard interrupt: whatever has arrived is billed
        if booking.opened:
            booking.close(arrival.usage(), outcome if isinstance(outcome, Answer) else None)
    nothing = "the answer ended early" if booking.opened else "the answer was empty"
    return outcome or Failure(reason=nothing, retry=True)


class RequestPolicy:
    """Repeats a request until it is answered, at most `ATTEMPTS` times.

    Args:
        sleep: waits, in seconds; replaced in tests.
        stopping: whether a person wants to stop. Checked before every attempt, every `POLL_SECONDS` of a wait and
            between the events of a stream; not while a server is silent, which the read timeout bounds.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep, stopping: Callable[[], bool] = never) -> None:
        self.sleep, self.stopping = sleep, stopping

    def ask(
        self,
        make_arrival: Callable[[], Arrival],
        *,
        journal: Journal,
        turn: int,
        request_sha256: str,
        secrets: Secrets,
    ) -> Answer | Unanswered:
        """Recall the answer if it was paid for; otherwise send the request.

        Args:
            make_arrival: begins one attempt.
            journal: holds the answer, or will hold it.
            turn: of the conversation, from 1.
            request_sha256: fingerprint of the request.
            secrets: values that no answer in the journal may contain.

        Raises:
            ProposerError: repeating the request cannot help.
        """
        recorded = journal.recall(turn, request_sha256)
        if recorded is not None:
            return _rebuilt(recorded)
        failure = Failure(reason="", retry=True)
        for number in range(ATTEMPTS):
            if number:
                self._wait(_wait_seconds(number, failure.retry_after))
            if self.stopping():
                return STOPPED
            refusal = journal.refusal()  # before every attempt: an answer that is cut off costs money as well
            if refusal is not None:
                return Unanswered(reason=refusal)
            outcome = receive(make_arrival(), Booking(journal, turn, request_sha256, secrets))
            if not isinstance(outcome, Failure):
                return outcome
            failure = outcome
            if failure.of_request and turn > 1:
                # The API rejects what was said in this conversation; another one may fare better.
                return Unanswered(reason=failure.reason, again=False)
            if not failure.retry:
                raise ProposerError(failure.reason, failure.remedy)
        return Unanswered(reason=f"the API did not answer in {ATTEMPTS} attempts; the last one: {failure.reason}")

    def _wait(self, seconds: float) -> None:
        if self.stopping is never:
            return self.sleep(seconds)
        while seconds > 0 and not self.stopping():
            self.sleep(min(seconds, POLL_SECONDS))
            seconds -= POLL_SECONDS
        return None


def _wait_seconds(attempt: int, requested: float | None) -> float:
    """Exponential backoff with jitter, so that controllers do not retry in step; never shorter than requested."""
    backoff = min(FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1), MAX_WAIT_SECONDS)
    return max(backoff * random.uniform(0.5, 1.0), requested or 0.0)  # noqa: S311


def _rebuilt(recorded: Mapping[str, Any]) -> Answer:
    calls = tuple(Call(**call) for call in recorded["calls"])
    return Answer(**{**recorded, "calls": calls, "stop": Stop(recorded["stop"])})


def fingerprint(request: object) -> str:
    """SHA-256 of everything that determines an answer: JSON, without cache marks and without a key."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def plain_json(value: Any) -> Any:
    """A copy that every request can carry.

    Raises:
        ValueError: NaN, or half of a surrogate pair. Sent back, it would fail for the rest of the conversation.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    return json.loads(text)


def paragraphs(parts: Iterable[object]) -> str:
    """The texts among the parts of an answer, blank ones left out."""
    return "\n\n".join(part for part in parts if isinstance(part, str) and part.strip())


def secrets_of(keys: Iterable[str | None], headers: Mapping[str, object]) -> tuple[str, ...]:
    """The keys, and the values of custom headers whose name suggests a secret.

    **Not covered**: values shorter than `MIN_SECRET_CHARACTERS`.
    """
    words = ("authorization", "key", "token", "secret")
    found = [key for key in keys if key]
    for name, value in headers.items():
        if isinstance(value, str) and any(word in name.lower() for word in words):
            found.append(value.removeprefix("Bearer "))
    return tuple(dict.fromkeys(secret for secret in found if len(secret) >= MIN_SECRET_CHARACTERS))


def check_keys(keys: Iterable[str], names: str) -> None:
    """Refuse a key that no header can hold. The HTTP library would fail with an error that quotes it.

    Raises:
        ProposerError: names the variables, not the key.
    """
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ProposerError(
            f"{names} contains spaces, line breaks, or other characters that are never part of a key",
            "export it again without quotes and line breaks",
        )


def missing(extra: str, package: str) -> ProposerError:
    """The error for an optional package that is not installed."""
    return ProposerError(f"the package {package} is missing", f"pip install 'autoresearch-runner[{extra}]'")


def tokens_in(characters: int) -> int:
    """An estimate, on the high side, of the tokens in a text."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def count(usage: object, name: str) -> int:
    """A number of tokens; 0 if the server does not report it, as some local ones do."""
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0
