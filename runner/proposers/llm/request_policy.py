"""How an answer is asked for, whichever API gives it: within bounds, paid for once, and without showing a key.

The module of an API builds requests, reads one response (`Attempt`) and explains its errors (`Failure`). The
SDKs' own retries are off: they obey `retry-after` without a cap and retry an exhausted spending limit all night.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from runner.errors import ProposerError
from runner.proposers.llm.chat import Answer, Call, Stop, Unanswered
from runner.records import Journal, Usage
from runner.untrusted import prompt_line

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 2.0
MAX_WAIT_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 120.0
POLL_SECONDS = 0.5  # how late a wait learns that it is to end
READ_TIMEOUT_SECONDS = 300.0  # between two bytes; the APIs send something while they think
CONNECT_TIMEOUT_SECONDS = 15.0
# Of a cut answer no API reports the output tokens, but it bills them. Code has about three characters per token.
CHARACTERS_PER_TOKEN = 3
# Shorter ones are the placeholders that local servers are content with: words that any answer may hold.
MIN_SECRET_CHARACTERS = 12

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
# What the SDKs raise on a stream that no server should send (broken JSON, an index never begun).
GARBLED = (ValueError, TypeError, AttributeError, IndexError, KeyError, RuntimeError)

Secrets = Callable[[], tuple[str, ...]]
"""What must not be shown; asked late, for a client may renew its token."""

STOPPED = Unanswered(reason="stopped")


def never() -> bool:
    """Nobody wants to stop."""
    return False


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why one attempt gave no answer."""

    reason: str
    retry: bool
    of_request: bool = False  # this very request is refused; another one may not be
    remedy: str | None = None
    retry_after: float | None = None  # seconds


class Booking:
    """One response in the journal: opened with its first event, closed when it ends, kept when it came whole."""

    def __init__(self, journal: Journal, turn: int, request_sha256: str, secrets: Secrets) -> None:
        self._journal, self._turn, self._sha256, self._secrets = journal, turn, request_sha256, secrets
        self._number: int | None = None

    @property
    def opened(self) -> bool:
        """Whether a response has begun."""
        return self._number is not None

    def open(self, usage: Usage) -> None:
        """Book what is known at the begin of the response."""
        self._number = self._journal.open_answer(self._turn, self._sha256, usage)

    def close(self, usage: Usage, answer: Answer | None) -> None:
        """Correct it, and keep the answer; None: it did not come whole.

        An answer that quotes a key (some gateways echo headers) is good for this once only and is not kept.
        """
        assert self._number is not None
        body = None if answer is None else asdict(answer)
        text = json.dumps(body)
        if any(json.dumps(secret)[1:-1] in text for secret in self._secrets()):
            body = None
        self._journal.close_answer(self._number, usage, body)


Attempt = Callable[[Booking], Answer | Failure | Unanswered]
"""Sends a request once. Raises nothing; books what comes, also when a person interrupts."""


class Patience:
    """Tries until there is an answer, at most `ATTEMPTS` times.

    Args:
        sleep: waits, in seconds; replaced in tests.
        stopping: whether a person wants to stop. Asked before every attempt, every `POLL_SECONDS` of a wait and
            between the events of a stream; not while a server is silent, which the read timeout bounds.
    """

    def __init__(self, sleep: Callable[[float], None] = time.sleep, stopping: Callable[[], bool] = never) -> None:
        self.sleep, self.stopping = sleep, stopping

    def ask(
        self, attempt: Attempt, *, journal: Journal, turn: int, request_sha256: str, secrets: Secrets
    ) -> Answer | Unanswered:
        """Recall the answer if it was paid for, else attempt it.

        Args:
            attempt: sends the request once.
            journal: where the answer is, or will be.
            turn: of the conversation, from 1.
            request_sha256: fingerprint of the request.
            secrets: what no answer in the journal may hold.

        Raises:
            ProposerError: asking again cannot help.
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
            broke = journal.refusal()  # before every attempt: what is cut off costs money as well
            if broke is not None:
                return Unanswered(reason=broke)
            outcome = attempt(Booking(journal, turn, request_sha256, secrets))
            if not isinstance(outcome, Failure):
                return outcome
            failure = outcome
            if failure.of_request and turn > 1:
                # What was said is what the API does not take: another conversation may fare better.
                return Unanswered(reason=failure.reason, again=False)
            if not failure.retry:
                raise ProposerError(failure.reason, failure.remedy)
        return Unanswered(reason=f"the API did not answer in {ATTEMPTS} attempts; at last: {failure.reason}")

    def _wait(self, seconds: float) -> None:
        if self.stopping is never:
            return self.sleep(seconds)
        while seconds > 0 and not self.stopping():
            self.sleep(min(seconds, POLL_SECONDS))
            seconds -= POLL_SECONDS
        return None


def _rebuilt(recorded: Mapping[str, Any]) -> Answer:
    calls = tuple(Call(**call) for call in recorded["calls"])
    return Answer(**{**recorded, "calls": calls, "stop": Stop(recorded["stop"])})


def fingerprint(request: object) -> str:
    """SHA-256 of all that decides an answer: JSON, without marks of a cache and without a key."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def plain_json(value: Any) -> Any:
    """A copy that every request can carry.

    Raises:
        ValueError: NaN, or half a character. Sent back, it would fail for the rest of the conversation.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False)
    text.encode()
    return json.loads(text)


def secrets_of(keys: Iterable[str | None], headers: Mapping[str, object]) -> tuple[str, ...]:
    """What must never be shown: the keys, and what a person put into headers that looks like one by its name.

    **Not covered**: shorter than `MIN_SECRET_CHARACTERS`.
    """
    words = ("authorization", "key", "token", "secret")
    found = [key for key in keys if key]
    for name, value in headers.items():
        if isinstance(value, str) and any(word in name.lower() for word in words):
            found.append(value.removeprefix("Bearer "))
    return tuple(dict.fromkeys(secret for secret in found if len(secret) >= MIN_SECRET_CHARACTERS))


def check_keys(keys: Iterable[str], names: str) -> None:
    """Refuse a key that no header can hold. It would fail inside the HTTP library, in an error that quotes it.

    Raises:
        ProposerError: it names the variables, not the key.
    """
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ProposerError(
            f"{names} holds blanks, line ends or characters that no key has",
            "export it again without quotes and line ends",
        )


def missing(extra: str, package: str) -> ProposerError:
    """A package is not installed that an API needs."""
    return ProposerError(f"the package {package} is missing", f"pip install 'autoresearch-runner[{extra}]'")


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Text of a server in one line and without keys: some gateways quote them."""
    for secret in secrets:
        text = text.replace(secret, "[key]")
    return prompt_line(text, 300)


def tokens_in(characters: int) -> int:
    """A careful guess of how many tokens a text has."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def count(usage: object, name: str) -> int:
    """A number of tokens; not every local server sends it."""
    value = getattr(usage, name, None)
    return value if isinstance(value, int) and value > 0 else 0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, within our cap."""
    try:
        seconds = float(headers.get("retry-after", ""))
    except ValueError:
        return None
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds >= 0 else None


def _wait_seconds(attempt: int, asked_for: float | None) -> float:
    """Exponential with jitter, so that many controllers do not knock in step; never before asked to."""
    backoff = min(FIRST_WAIT_SECONDS * 2.0 ** (attempt - 1), MAX_WAIT_SECONDS)
    return max(backoff * random.uniform(0.5, 1.0), asked_for or 0.0)  # noqa: S311
