"""Shared parts of the tests of every API: a conversation to hold, and a journal of its own for each."""

from __future__ import annotations

import itertools
import json
import os
import traceback
import zlib
from dataclasses import dataclass
from types import ModuleType

from runner.campaign.budget import LedgerJournal
from runner.config import load
from runner.errors import ProposerError
from runner.proposers.llm.chat import Answer, Exchange, Opening, Result, Tool, Unanswered
from runner.proposers.llm.request_policy import never
from runner.storage.ledger import Ledger

CANARY = "sk-canary-0123456789abcdef"
OPENING = Opening(system="Lower val_bpb.", material="RATE = 0.02", task="Propose experiment 3.")
SUBMIT = Tool(
    name="submit",
    description="Submit it.",
    schema={
        "type": "object",
        "additionalProperties": False,
        "required": ["why"],
        "properties": {"why": {"type": "string"}},
    },
    strict=True,
)
EDITOR = Tool(
    name="str_replace_based_edit_tool",
    description="Views and changes files.",
    schema={
        "type": "object",
        "required": ["command", "path"],
        "properties": {"command": {"type": "string"}, "path": {"type": "string"}, "old_str": {"type": "string"}},
    },
    builtin="text_editor_20250728",
    max_characters=16_000,
)
TOOLS = (EDITOR, SUBMIT)
FIRST = Answer(raw=[{"type": "text", "text": "Hm."}], calls=(), text="Hm.", thinking="", stop="said")
"""An answer to continue from."""


def forget_environment(monkeypatch, home):
    """Remove the keys, addresses and profiles of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith(("ANTHROPIC_", "OPENAI_", "AWS_", "GOOGLE_", "CLOUD_ML_")) or name.lower() in (
            "http_proxy",
            "https_proxy",
            "all_proxy",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    trust_no_server(monkeypatch, home)


def trust_no_server(monkeypatch, folder):
    """A folder without certificates: clients need not read the machine's at 25 ms each, and reach no real API."""
    (folder / "no certificates").mkdir()
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("SSL_CERT_DIR", str(folder / "no certificates"))


def config(folder, **settings):
    """A configuration of these settings only."""
    return load(folder, {"tag": "t", "proposer": "anthropic", **settings}, environ={})


def replied(answer, *texts, is_error=False, words=""):
    """An exchange that replies to every call of an answer with a text."""
    results = tuple(
        Result(call=call.id, text=text, is_error=is_error) for call, text in zip(answer.calls, texts, strict=True)
    )
    return Exchange(answer=answer, results=results, words=words)


class Notebook:
    """A journal in memory."""

    def __init__(self):
        self.bodies, self.usages = {}, []

    def refusal(self):
        return None

    def recall(self, turn, request_sha256):
        return self.bodies.get((turn, request_sha256))

    def open_answer(self, turn, request_sha256, usage):
        self.usages.append(usage)
        self._key = turn, request_sha256
        return len(self.usages) - 1

    def close_answer(self, booking, usage, body):
        self.usages[booking] = usage
        self.bodies[self._key] = json.loads(json.dumps(body))


@dataclass
class Asked:
    """The outcome of one conversation."""

    outcomes: list  # Answer, Unanswered, or at last a ProposerError
    booked: list
    kept: bytes

    @property
    def last(self):
        return self.outcomes[-1]


@dataclass(frozen=True, kw_only=True)
class Api:
    """One API as its tests use it: its scripted server, its variables and its chat."""

    fake: ModuleType  # `fake_anthropic` or `fake_openai`
    server: type
    url_variable: str
    key_variable: str
    settings: dict
    chat: type

    def config(self, folder, **settings):
        """A configuration for this API."""
        return config(folder, **{**self.settings, **settings})

    def open(self, folder, *, sleep=lambda _: None, **settings):
        """A chat with this API."""
        return self.chat(self.config(folder, **settings), sleep=sleep)

    def asking(self, monkeypatch, folder):
        """A function that holds a conversation with a script: the outcome, the server, and the waits."""
        asker = Asker(folder)

        def run(*script, settings=(), stopping=None, **options):
            waits = []
            with self.server(script) as server:
                monkeypatch.setenv(self.url_variable, server.url)
                chat = self.open(folder, sleep=waits.append, **dict(settings))
                asked = asker(chat, stopping=stopping or never, **options)
            return asked, server, waits

        return run


class Asker:
    """Holds conversations, each in a ledger of its own, and searches everything left behind for the key."""

    def __init__(self, folder):
        self._folders = (folder / f"state{number}" for number in itertools.count())

    def __call__(self, chat, *, replies=(), opening=OPENING, budget=lambda: None, stopping=never):
        """Ask; reply to each answer and ask again, until the replies run out or there is no answer.

        Args:
            replies: functions, Answer → Exchange.
            budget: answers `refusal` of the journal.
            stopping: whether the answer in progress is cut off.
        """
        folder = next(self._folders)
        exchanges, outcomes = [], []
        with Ledger(folder / "ledger.db") as ledger:
            ledger.create_campaign(tag="t", base_commit="b", conditions={})
            journal = LedgerJournal(ledger.conversations, "t", ledger.conversations.open("t", "p", seen=2))
            journal.refusal = budget
            try:
                with chat.connect(stopping) as connection:
                    for reply in (*replies, None):
                        outcomes.append(connection.ask(opening, exchanges, TOOLS, journal))
                        if reply is None or isinstance(outcomes[-1], Unanswered):
                            break
                        exchanges.append(reply(outcomes[-1]))
            except ProposerError as error:
                outcomes.append(error)
            booked = [dict(row) for row in ledger.database.read("SELECT * FROM usage ORDER BY id")]
            answers = ledger.database.read("SELECT body FROM answers WHERE body IS NOT NULL")
            kept = b"".join(zlib.decompress(row["body"]) for row in answers)
        for outcome in outcomes:
            if not isinstance(outcome, Answer):
                assert CANARY not in _shown(outcome)
        for data in (kept, *(path.read_bytes() for path in folder.iterdir())):
            assert CANARY.encode() not in data
        return Asked(outcomes=outcomes, booked=booked, kept=kept)


def _shown(outcome):
    return "".join(traceback.format_exception(outcome)) if isinstance(outcome, Exception) else repr(outcome)
