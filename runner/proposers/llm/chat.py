"""A conversation with a language model, whoever serves it: what is asked, what is answered, what is replied.

One module per API turns these values into its requests and its answers into these values (`messages`,
`responses`). No SDK here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from runner.records import Journal


class Stop(StrEnum):
    """Why an answer ended."""

    SAID = "said"  # all that the model had to say
    CALLS = "calls"  # it waits for the results of its calls
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
    builtin: str | None = None  # how an API calls it that knows it by itself
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

    raw: Sequence[Any]  # JSON as it came, to be returned verbatim
    calls: tuple[Call, ...]
    text: str
    thinking: str  # a summary, where the API shows one
    stop: Stop
    stop_detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a call gave."""

    call: str  # id
    text: str
    is_error: bool = False


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """An answer, and what was replied: a result for every call of it, or words."""

    answer: Answer
    results: tuple[Result, ...] = ()
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class Opening:
    """What a conversation begins with, the steadiest part first, so that it can be cached."""

    system: str  # the same for a whole campaign
    material: str  # the same until the next keep
    task: str


@dataclass(frozen=True, kw_only=True)
class Unanswered:
    """There is no answer this time."""

    reason: str
    again: bool = True  # the same request may be answered later


class Line(Protocol):
    """An open connection to a model."""

    def ask(
        self,
        opening: Opening,
        exchanges: Sequence[Exchange],
        tools: Sequence[Tool],
        journal: Journal,
    ) -> Answer | Unanswered:
        """Recall the answer to this conversation so far, or ask for it, within bounds.

        Its turn in the journal is `len(exchanges) + 1`. Every response is booked before it is looked at.

        Raises:
            ProposerError: the API refuses for good: key, permission, credit, model, malformed request.
        """


class Chat(Protocol):
    """One model behind one API. Made without a connection; raises when key or price are missing."""

    @property
    def model(self) -> str:
        """Its name at the API."""

    def connect(self, stopping: Callable[[], bool]) -> AbstractContextManager[Line]:
        """Open a connection for one conversation.

        Args:
            stopping: when it becomes true, an answer on its way is cut off, and what has arrived is booked.

        Raises:
            ProposerError: no credentials, or unusable ones.
        """
