"""Conversations with proposers: what was asked, answered and paid for, so that no answer is paid for twice."""

from __future__ import annotations

import json
import sqlite3
import zlib
from dataclasses import dataclass
from typing import Any

from runner.failpoints import Step
from runner.records import Usage, UsageTotals
from runner.storage.clock import now
from runner.storage.database import Database
from runner.storage.rows import usage_values


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """An open conversation with a proposer."""

    id: int
    seen: int  # last experiment whose verdict it knows
    running: int | None  # experiment that was running meanwhile
    retry_of: int | None  # crash that it is to repair


class Conversations:
    """Conversations, answers, smoke tests and costs in a ledger. Every method raises what `Database` raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ongoing(self, tag: str, proposer: str) -> Conversation | None:
        """The open conversation with a proposer, if there is one."""
        for row in self._database.read(
            "SELECT id, seen, running, retry_of FROM conversations"
            " WHERE tag = ? AND proposer = ? AND ended_at IS NULL",
            *(tag, proposer),
        ):
            return Conversation(**dict(row))
        return None

    def open(
        self, tag: str, proposer: str, *, seen: int, running: int | None = None, retry_of: int | None = None
    ) -> Conversation:
        """Begin a conversation on the basis of what is known now.

        Args:
            seen: the last experiment whose verdict it knows.
            running: the experiment that runs meanwhile.
            retry_of: the crash that it is to repair.
        """
        with self._database.transaction(Step.CONVERSATION_OPENED) as db:
            cursor = db.execute(
                "INSERT INTO conversations (tag, proposer, seen, running, retry_of, opened_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (tag, proposer, seen, running, retry_of, now()),
            )
        assert cursor.lastrowid is not None
        return Conversation(id=cursor.lastrowid, seen=seen, running=running, retry_of=retry_of)

    def end(self, conversation: int, transcript: object | None = None) -> None:
        """End a conversation that led to no experiment.

        Args:
            transcript: JSON of everything that was said, for people.
        """
        with self._database.transaction(Step.CONVERSATION_ENDED) as db:
            _end(db, conversation, None, transcript)

    def end_with(
        self, db: sqlite3.Connection, conversation: int, experiment: int, transcript: object | None
    ) -> None:
        """End a conversation in the transaction that opens its experiment, which takes over its cost."""
        db.execute(
            "UPDATE usage SET experiment = ? WHERE id IN (SELECT booking FROM answers WHERE conversation = ?)",
            (experiment, conversation),
        )
        _end(db, conversation, experiment, transcript)

    def retry_abandoned(self, tag: str, crash: int) -> bool:
        """Whether a conversation about repairing a crash led to nothing."""
        return bool(
            self._database.read(
                "SELECT 1 FROM conversations"
                " WHERE tag = ? AND retry_of = ? AND ended_at IS NOT NULL AND experiment IS NULL LIMIT 1",
                *(tag, crash),
            )
        )

    def transcript(self, tag: str, number: int) -> Any | None:
        """The conversation that led to an experiment, as JSON; None: there was none."""
        for row in self._database.read(
            "SELECT transcript FROM conversations WHERE tag = ? AND experiment = ? AND transcript IS NOT NULL",
            *(tag, number),
        ):
            return _unpacked(row["transcript"])
        return None

    def open_answer(self, conversation: int, *, turn: int, request_sha256: str, usage: Usage) -> int:
        """Book a response that has just begun, so that a kill in its middle hides no money; return the booking.

        Args:
            usage: what is known when it begins.
        """
        columns = {"booked_at": now(), **usage_values(usage)}
        with self._database.transaction(Step.ANSWER_BOOKED) as db:
            cursor = db.execute(
                f"INSERT INTO usage (tag, {', '.join(columns)})"  # noqa: S608
                f" VALUES ((SELECT tag FROM conversations WHERE id = ?), {', '.join('?' * len(columns))})",
                (conversation, *columns.values()),
            )
            db.execute(
                "INSERT INTO answers (booking, conversation, turn, request_sha256) VALUES (?, ?, ?, ?)",
                (cursor.lastrowid, conversation, turn, request_sha256),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def close_answer(self, booking: int, usage: Usage, body: object | None) -> None:
        """Record what a response cost in the end, and what it said.

        Args:
            body: JSON; None when it was cut off.
        """
        columns = {"booked_at": now(), **usage_values(usage)}
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._database.transaction(Step.ANSWER_KEPT) as db:
            db.execute(f"UPDATE usage SET {assignments} WHERE id = ?", (*columns.values(), booking))  # noqa: S608
            packed = None if body is None else _packed(body)
            db.execute("UPDATE answers SET body = ? WHERE booking = ?", (packed, booking))

    def recall_answer(self, conversation: int, *, turn: int, request_sha256: str) -> Any | None:
        """The recorded answer to this very request; None: it must be sent."""
        for row in self._database.read(
            "SELECT body FROM answers WHERE conversation = ? AND turn = ? AND request_sha256 = ?"
            " AND body IS NOT NULL ORDER BY booking DESC LIMIT 1",
            *(conversation, turn, request_sha256),
        ):
            return _unpacked(row["body"])
        return None

    def keep_check(self, conversation: int, tree_sha256: str, reason: str) -> None:
        """Record the result of a submission's smoke test; an empty reason: it passed."""
        with self._database.transaction(Step.CHECK_KEPT) as db:
            db.execute("INSERT OR REPLACE INTO checks VALUES (?, ?, ?)", (conversation, tree_sha256, reason))

    def recall_check(self, conversation: int, tree_sha256: str) -> str | None:
        """The recorded result of a smoke test; None: it has not been run."""
        for row in self._database.read(
            "SELECT reason FROM checks WHERE conversation = ? AND tree_sha256 = ?", conversation, tree_sha256
        ):
            return str(row["reason"])
        return None

    def cost_usd(self, conversation: int) -> float:
        """Cost of a conversation so far."""
        (row,) = self._database.read(
            "SELECT coalesce(sum(cost_usd), 0) FROM usage JOIN answers ON booking = id WHERE conversation = ?",
            conversation,
        )
        return float(row[0])

    def campaign_cost_usd(self, tag: str) -> float:
        """All money spent in a campaign: a running sum, since every request asks for it."""
        (row,) = self._database.read("SELECT coalesce(sum(cost_usd), 0) FROM campaigns WHERE tag = ?", tag)
        return float(row[0])

    def usage_totals(self, tag: str) -> UsageTotals:
        """Money and tokens of a campaign, summed over its responses; all zero when there were none."""
        (row,) = self._database.read(
            "SELECT count(*) AS num_responses, coalesce(sum(input_tokens), 0) AS input_tokens,"
            " coalesce(sum(output_tokens), 0) AS output_tokens,"
            " coalesce(sum(cache_read_tokens), 0) AS cache_read_tokens,"
            " coalesce(sum(cache_write_tokens), 0) AS cache_write_tokens,"
            " coalesce(sum(cost_usd), 0.0) AS cost_usd FROM usage WHERE tag = ?",
            tag,
        )
        return UsageTotals(**dict(row))

    def highest_cost_usd(self, tag: str) -> float:
        """Cost of a campaign's most expensive answer so far."""
        (row,) = self._database.read("SELECT coalesce(max(cost_usd), 0) FROM usage WHERE tag = ?", tag)
        return float(row[0])


def _end(db: sqlite3.Connection, conversation: int, experiment: int | None, transcript: object | None) -> None:
    db.execute(
        "UPDATE conversations SET ended_at = ?, experiment = ?, transcript = ? WHERE id = ? AND ended_at IS NULL",
        (now(), experiment, None if transcript is None else _packed(transcript), conversation),
    )


def _packed(value: object) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def _unpacked(packed: bytes) -> Any:
    return json.loads(zlib.decompress(packed))
