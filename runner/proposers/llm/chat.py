"""A conversation with a language model, independent of the API: the question, the answers, and the replies.

One module per API (`anthropic_messages`, `openai_responses`) turns these values into its requests, and its
responses into these values. This module imports no SDK.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from runner.records import Journal


class Stop(StrEnum):
    """The reason why an answer ended."""

    SAID = "said"  # the model has finished
    CALLS = "calls"  # the model waits for the results of its calls
    REFUSED = "refused"
    TOO_LONG = "too_long"  # cut at the output limit: a call in it must not be run
    WINDOW_FULL = "window_full"  # the conversation no longer fits the model's context window


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool that the model may call."""

    name: str
    description: str
    schema: Mapping[str, Any]  # JSON schema of its input
    strict: bool = False  # the API is asked to enforce the schema
    builtin: str | None = None  # its type at an API that has this tool built in
    max_characters: int | None = None  # of one view; for the built-in editor


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call of a tool. Its input is the model's: any JSON."""

    id: str
    name: str
    input: Any


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One complete answer."""

    raw: Sequence[Any]  # JSON as received, to be returned verbatim
    calls: tuple[Call, ...]
    text: str
    thinking: str  # a summary, if the API provides one
    stop: Stop
    stop_detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a call."""

    call: str  # id
    text: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An answer and the reply to it: a result for every call, or words."""

    answer: Answer
    results: tuple[Result, ...] = ()
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """The beginning of a conversation, the most stable part first, so that it can be cached."""

    system: str  # the same for a whole campaign
    material: str  # the same until the next keep
    task: str


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """The absence of an answer, and its reason."""

    reason: str
    again: bool = True  # the same request may be answered later


class Connection(Protocol):
    """An open connection to a model."""

    def ask(
        self,
        opening: Opening,
        exchanges: Sequence[Exchange],
        tools: Sequence[Tool],
        journal: Journal,
    ) -> Answer | Unanswered:
        """Recall the answer to this conversation so far, or request it, within bounds.

        Its turn in the journal is `len(exchanges) + 1`. Every response is booked before it is used.

        Raises:
            ProposerError: the API refuses for good: key, permission, credit, model, malformed request.
        """


class Chat(Protocol):
    """One model behind one API. Created without a connection; raises if the key or the price is missing."""

    @property
    def model(self) -> str:
        """Its name at the API."""

    def connect(self, stopping: Callable[[], bool]) -> AbstractContextManager[Connection]:
        """Open a connection for one conversation.

        Args:
            stopping: when it becomes true, the answer in progress is cut off, and everything received is booked.

        Raises:
            ProposerError: no credentials, or unusable ones.
        """
