"""The ledger: the only truth about a campaign. Git and Docker are reconciled from it at every start.

SQLite in WAL mode with `synchronous=FULL`: a row that was acknowledged survives power loss. Every
transition is written before the act that it announces and closed after it:

    experiment opened  → candidate staged in git → image built → runs → verdict → branch advanced
    run opened         → containers               → run closed
    conversation opened → its answers, its checks → ended, with the experiment that came of it
    answer opened      → rest of its stream       → answer closed

So an experiment without a verdict, a run without an end, a conversation that goes on, or a keep without a kept
commit is work that a killed controller left; `campaign` finishes it.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import uuid
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from runner.errors import AutoresearchError, DiskFullError, LedgerError, remedy_of
from runner.failpoints import Step, around
from runner.records import (
    AuditRecord,
    Curve,
    Experiment,
    Figures,
    Phase,
    Proposal,
    RunEnd,
    RunRecord,
    SealedScore,
    StopReason,
    Usage,
    UsageTotals,
    Verdict,
)
from runner.storage.lock import write_failure

SCHEMA_VERSION = 7
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE campaigns (
    tag TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    base_commit TEXT NOT NULL,
    seed INTEGER NOT NULL,              -- all seeds of runs derive from it; secret from candidates
    target INTEGER NOT NULL,            -- experiments wanted so far, the baseline not counted
    conditions TEXT NOT NULL            -- JSON: what two scores must share to be comparable
) STRICT;
CREATE TABLE experiments (
    tag TEXT NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    number INTEGER NOT NULL,            -- 0 is the baseline
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    hypothesis TEXT NOT NULL,
    category TEXT,
    proposer TEXT NOT NULL,
    model TEXT,
    parameters TEXT NOT NULL,           -- JSON
    retry_of INTEGER,
    champion INTEGER,                   -- experiment that it is compared with
    diff TEXT NOT NULL,                 -- against the champion's tree
    tried_commit TEXT,
    image_id TEXT,
    layer_digest TEXT,
    verdict TEXT,
    reason TEXT,
    val_bpb REAL,
    delta_bpb REAL,
    sigma_bpb REAL,
    kept_commit TEXT,
    figures TEXT,                       -- JSON: what the verdict rests on
    combines TEXT NOT NULL DEFAULT '[]', -- JSON: near misses that it tries together
    PRIMARY KEY (tag, number)
) STRICT;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    experiment INTEGER NOT NULL,
    phase TEXT NOT NULL,
    seed INTEGER NOT NULL,
    opened_at TEXT NOT NULL,
    closed_at TEXT,
    end TEXT,
    exit_code INTEGER,
    wall_seconds REAL,
    cpu_seconds REAL,
    others_cpu_seconds REAL,            -- of other programs on the same cores
    log_tail TEXT NOT NULL DEFAULT '',  -- cleaned, untrusted
    val_bpb REAL,
    claims_sha256 TEXT,
    audit TEXT,                         -- JSON: what an audit found
    control INTEGER NOT NULL DEFAULT 0, -- 1: of a champion, measured again
    curve TEXT,                         -- JSON: what a training printed of its loss, untrusted
    clock_mhz REAL,                     -- mean clock of the processors that trained
    FOREIGN KEY (tag, experiment) REFERENCES experiments ON DELETE CASCADE
) STRICT;
CREATE TABLE usage (
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    experiment INTEGER,                 -- NULL: no experiment has come of it (yet)
    booked_at TEXT NOT NULL,
    model TEXT NOT NULL,
    request_id TEXT,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL
) STRICT;
CREATE INDEX runs_of ON runs (tag, experiment);
"""
SEALED = """
CREATE TABLE sealed (                   -- scores on the test rows, apart from what proposers and verdicts read
    tag TEXT NOT NULL,
    number INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    val_bpb REAL NOT NULL,
    test_bpb REAL NOT NULL,
    claims_sha256 TEXT NOT NULL,
    sealed_at TEXT NOT NULL,
    PRIMARY KEY (tag, number, seed),
    FOREIGN KEY (tag, number) REFERENCES experiments ON DELETE CASCADE
) STRICT;
"""
CONVERSATIONS = """
CREATE TABLE conversations (            -- about one idea; at most one with each proposer goes on
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    proposer TEXT NOT NULL,
    seen INTEGER NOT NULL,              -- last experiment whose verdict it knows; a restart asks the same
    running INTEGER,                    -- experiment that ran meanwhile
    retry_of INTEGER,                   -- crash that was to be mended
    opened_at TEXT NOT NULL,
    ended_at TEXT,                      -- NULL: it goes on
    experiment INTEGER,                 -- what came of it; NULL: nothing (yet)
    transcript BLOB                     -- zlib of JSON, for people
) STRICT;
CREATE TABLE answers (                  -- what language models said, so that nobody pays for it twice
    booking INTEGER PRIMARY KEY REFERENCES usage ON DELETE CASCADE,
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    turn INTEGER NOT NULL,              -- of the conversation, from 1
    request_sha256 TEXT NOT NULL,
    body BLOB                           -- zlib of JSON; NULL: it never came whole
) STRICT;
CREATE TABLE checks (                   -- what a short run of a submission showed; another run may differ
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    tree_sha256 TEXT NOT NULL,
    reason TEXT NOT NULL,               -- why it is no good; empty: it is
    PRIMARY KEY (conversation, tree_sha256)
) STRICT;
"""
ANSWERS_OF_FORMAT_3 = """
CREATE TABLE answers (booking INTEGER PRIMARY KEY REFERENCES usage ON DELETE CASCADE, number INTEGER NOT NULL,
    retry_of INTEGER, turn INTEGER NOT NULL, request_sha256 TEXT NOT NULL, body BLOB, ended_at TEXT) STRICT;
"""
TO_FORMAT_4 = "\n".join(
    [
        "ALTER TABLE answers RENAME TO answers_of_format_3;",
        CONVERSATIONS,
        """
INSERT INTO conversations (tag, proposer, seen, retry_of, opened_at, ended_at)
    SELECT usage.tag, 'anthropic', number - 1, retry_of, min(booked_at), max(booked_at)
    FROM answers_of_format_3 JOIN usage ON usage.id = booking GROUP BY usage.tag, number, retry_of;
INSERT INTO answers SELECT booking, conversations.id, turn, request_sha256, body
    FROM answers_of_format_3 AS old JOIN usage ON usage.id = booking JOIN conversations
    ON conversations.tag = usage.tag AND seen = number - 1 AND conversations.retry_of IS old.retry_of;
DROP TABLE answers_of_format_3;
""",
    ]
)
"""Every conversation counts as ended: its questions were put in other words."""
MIGRATIONS = {
    1: "ALTER TABLE runs ADD COLUMN audit TEXT;\n" + SEALED,
    2: ANSWERS_OF_FORMAT_3,
    3: TO_FORMAT_4,
    4: "ALTER TABLE runs ADD COLUMN control INTEGER NOT NULL DEFAULT 0;\n"
    "ALTER TABLE experiments ADD COLUMN figures TEXT;\n",
    5: "ALTER TABLE runs ADD COLUMN curve TEXT;\n",
    6: "ALTER TABLE experiments ADD COLUMN combines TEXT NOT NULL DEFAULT '[]';\n"
    "ALTER TABLE runs ADD COLUMN clock_mhz REAL;\n",
}
"""Format → what makes the next one of it."""

LEAST_ROOM_BYTES = 64 * 1024
"""A file system with less is full: SQLite wants that much for the smallest of its files."""


def now() -> str:
    """UTC now, ISO 8601 to the second."""
    return datetime.now(UTC).replace(microsecond=0).isoformat()


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """One row of `campaigns`."""

    tag: str
    created_at: str
    base_commit: str
    seed: int
    target: int
    conditions: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation with a proposer that goes on."""

    id: int
    seen: int  # last experiment whose verdict it knows
    running: int | None  # experiment that ran meanwhile
    retry_of: int | None  # crash that is to be mended


class Ledger:
    """All campaigns of one repository.

    Raises from every method:
        LedgerError: the file is no ledger of ours, or cannot be read or written.
        DiskFullError: no room left.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=30)
            self._db.row_factory = sqlite3.Row
            self._prepare()
        except (sqlite3.Error, OSError, LedgerError) as error:
            if hasattr(self, "_db"):
                self._db.close()
            if isinstance(error, LedgerError):
                raise
            raise _failure(path, error) from error

    def _prepare(self) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            self._db.execute(f"PRAGMA {pragma}")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version < SCHEMA_VERSION:
            with self._transaction(Step.LEDGER_MADE):
                self._upgrade()
        elif version > SCHEMA_VERSION:
            raise LedgerError(
                f"the ledger {self.path} has format {version}, this program writes {SCHEMA_VERSION}",
                f"move {self.path} away, or use the program version that wrote it",
            )

    def _upgrade(self) -> None:
        """Make the tables, or bring those of an earlier program version up to date."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._run_all(SCHEMA + SEALED + CONVERSATIONS)
            self._db.execute("INSERT INTO meta VALUES ('controller', ?)", (uuid.uuid4().hex,))
        else:
            for step in range(version, SCHEMA_VERSION):
                self._run_all(MIGRATIONS[step])
        self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _run_all(self, statements: str) -> None:
        for statement in statements.split(";\n"):
            if statement.strip():
                self._db.execute(statement)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self, step: Step) -> Iterator[sqlite3.Connection]:
        try:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                with around(step):
                    self._db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # SQLite has ended some that failed by itself
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error

    def _read(self, query: str, *values: object) -> list[sqlite3.Row]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _failure(self.path, error) from error

    @property
    def controller(self) -> str:
        """Id of this state folder; labels of containers, volumes and images carry it."""
        value: str = self._read("SELECT value FROM meta WHERE key = 'controller'")[0][0]
        return value

    # ------------------------------------------------------------------ campaigns

    def campaign(self, tag: str) -> Campaign | None:
        """The campaign of this name, if there is one."""
        for row in self._read("SELECT * FROM campaigns WHERE tag = ?", tag):
            return Campaign(**{**dict(row), "conditions": json.loads(row["conditions"])})
        return None

    def campaigns(self) -> tuple[str, ...]:
        """Names of all campaigns, the newest first."""
        return tuple(row[0] for row in self._read("SELECT tag FROM campaigns ORDER BY rowid DESC"))

    def create_campaign(self, *, tag: str, base_commit: str, conditions: Mapping[str, str]) -> Campaign:
        """Open a new campaign."""
        seed = int.from_bytes(os.urandom(7))
        with self._transaction(Step.CAMPAIGN_CREATED) as db:
            db.execute(
                "INSERT INTO campaigns VALUES (?, ?, ?, ?, 0, ?)",
                (tag, now(), base_commit, seed, json.dumps(dict(conditions), sort_keys=True)),
            )
        campaign = self.campaign(tag)
        assert campaign is not None
        return campaign

    def set_target(self, tag: str, target: int) -> None:
        """How many experiments are wanted in all."""
        with self._transaction(Step.TARGET_SET) as db:
            db.execute("UPDATE campaigns SET target = ? WHERE tag = ?", (target, tag))

    def delete_campaign(self, tag: str) -> None:
        """Forget a campaign whole: its experiments, runs, bookings and answers."""
        with self._transaction(Step.CAMPAIGN_DELETED) as db:
            db.execute("DELETE FROM campaigns WHERE tag = ?", (tag,))

    # ---------------------------------------------------------------- experiments

    def open_experiment(
        self,
        tag: str,
        proposal: Proposal,
        *,
        diff: str,
        champion: int | None,
        retry_of: int | None = None,
        refused: str | None = None,
        refused_as: Verdict = Verdict.INVALID,
        conversation: int | None = None,
    ) -> int:
        """Write down a proposal before anything is done with it, with what it cost; returns its number.

        Args:
            refused: why its edits cannot be applied; then it is closed at once.
            refused_as: the verdict that it is closed with.
            conversation: that it came of; it has ended, and its cost is the experiment's from now on.
        """
        with self._transaction(Step.EXPERIMENT_OPENED) as db:
            (number,) = db.execute(
                "SELECT coalesce(max(number), -1) + 1 FROM experiments WHERE tag = ?", (tag,)
            ).fetchone()
            db.execute(
                "INSERT INTO experiments (tag, number, opened_at, closed_at, hypothesis, category, proposer,"
                " model, parameters, retry_of, combines, champion, diff, verdict, reason)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    tag,
                    number,
                    now(),
                    now() if refused else None,
                    proposal.hypothesis,
                    proposal.category,
                    proposal.proposer,
                    proposal.model,
                    json.dumps(dict(proposal.parameters)),
                    retry_of,
                    json.dumps(proposal.combines),
                    champion,
                    diff,
                    refused_as if refused else None,
                    refused,
                ),
            )
            if conversation is not None:
                db.execute(
                    "UPDATE usage SET experiment = ? WHERE id IN"
                    " (SELECT booking FROM answers WHERE conversation = ?)",
                    (number, conversation),
                )
                self._end(db, conversation, number, proposal.transcript)
        return int(number)

    def set_candidate(self, tag: str, number: int, *, commit: str, image_id: str, layer_digest: str) -> None:
        """Write down which commit and image the experiment runs."""
        columns = {"tried_commit": commit, "image_id": image_id, "layer_digest": layer_digest}
        self._update(Step.CANDIDATE_RECORDED, tag, number, columns, "verdict IS NULL")

    def close_experiment(
        self,
        tag: str,
        number: int,
        *,
        verdict: Verdict,
        reason: str,
        val_bpb: float | None = None,
        delta_bpb: float | None = None,
        sigma_bpb: float | None = None,
        figures: Figures | None = None,
    ) -> None:
        """Write the verdict with the figures that it rests on; there is one for ever.

        Raises:
            LedgerError: it has a verdict already.
        """
        columns = {
            "closed_at": now(),
            "verdict": verdict,
            "reason": reason,
            "val_bpb": val_bpb,
            "delta_bpb": delta_bpb,
            "sigma_bpb": sigma_bpb,
            "figures": None if figures is None else json.dumps(asdict(figures)),
        }
        self._update(Step.EXPERIMENT_CLOSED, tag, number, columns, "verdict IS NULL")

    def set_kept(self, tag: str, number: int, commit: str) -> None:
        """Write down that the branch now stands at this experiment's commit.

        Raises:
            LedgerError: it is no keep, or its commit is written down already.
        """
        condition = "verdict = 'keep' AND kept_commit IS NULL"
        self._update(Step.KEEP_RECORDED, tag, number, {"kept_commit": commit}, condition)

    def _update(self, step: Step, tag: str, number: int, columns: Mapping[str, Any], condition: str) -> None:
        """Change one experiment that is in the state for it."""
        assignments = ", ".join(f"{name} = ?" for name in columns)
        with self._transaction(step) as db:
            changed = db.execute(
                f"UPDATE experiments SET {assignments} WHERE tag = ? AND number = ? AND {condition}",  # noqa: S608
                (*columns.values(), tag, number),
            ).rowcount
            if changed != 1:
                raise LedgerError(
                    f"experiment {number} of {tag} cannot take the step {step}: it is closed, or does not exist",
                    f"autoresearch show {number}",
                )

    def experiments(self, tag: str) -> tuple[Experiment, ...]:
        """Every experiment of a campaign in order, each with its closed runs and its cost."""
        rows = self._read("SELECT * FROM experiments WHERE tag = ? ORDER BY number", tag)
        runs: dict[tuple[int, int], list[RunRecord]] = {}
        for row in self._read("SELECT * FROM runs WHERE tag = ? AND end IS NOT NULL ORDER BY id", tag):
            runs.setdefault((row["experiment"], row["control"]), []).append(_run(row))
        spent = "SELECT experiment, sum(cost_usd) FROM usage WHERE tag = ? GROUP BY experiment"
        costs: dict[int, float] = dict(tuple(row) for row in self._read(spent, tag))
        return tuple(
            _experiment(
                row,
                runs=tuple(runs.get((row["number"], 0), ())),
                controls=tuple(runs.get((row["number"], 1), ())),
                cost_usd=costs.get(row["number"], 0.0),
            )
            for row in rows
        )

    def experiment(self, tag: str, number: int) -> Experiment | None:
        """One experiment."""
        return next((one for one in self.experiments(tag) if one.number == number), None)

    def cost_usd(self, tag: str) -> float:
        """All money spent in a campaign."""
        (row,) = self._read("SELECT coalesce(sum(cost_usd), 0) FROM usage WHERE tag = ?", tag)
        return float(row[0])

    def usage_totals(self, tag: str) -> UsageTotals:
        """Money and tokens of a campaign, summed over its responses; all zero when there were none."""
        (row,) = self._read(
            "SELECT count(*) AS num_responses, coalesce(sum(input_tokens), 0) AS input_tokens,"
            " coalesce(sum(output_tokens), 0) AS output_tokens,"
            " coalesce(sum(cache_read_tokens), 0) AS cache_read_tokens,"
            " coalesce(sum(cache_write_tokens), 0) AS cache_write_tokens,"
            " coalesce(sum(cost_usd), 0.0) AS cost_usd FROM usage WHERE tag = ?",
            tag,
        )
        return UsageTotals(**dict(row))

    # ----------------------------------------------------------------------- runs

    def open_run(self, tag: str, number: int, phase: Phase, seed: int, *, control: bool = False) -> int:
        """Announce a container; returns the id to close it with.

        Args:
            control: the experiment is the champion, and is measured again.
        """
        with self._transaction(Step.RUN_OPENED) as db:
            cursor = db.execute(
                "INSERT INTO runs (tag, experiment, phase, seed, opened_at, control) VALUES (?, ?, ?, ?, ?, ?)",
                (tag, number, phase, seed, now(), int(control)),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def close_run(self, run_id: int, run: RunRecord) -> None:
        """Write how a container ended.

        Raises:
            LedgerError: that is written down already.
        """
        with self._transaction(Step.RUN_CLOSED) as db:
            changed = db.execute(
                "UPDATE runs SET closed_at = ?, end = ?, exit_code = ?, wall_seconds = ?, cpu_seconds = ?,"
                " others_cpu_seconds = ?, clock_mhz = ?, log_tail = ?, val_bpb = ?, claims_sha256 = ?, audit = ?,"
                " curve = ? WHERE id = ? AND end IS NULL",
                (
                    now(),
                    run.end,
                    run.exit_code,
                    run.wall_seconds,
                    run.cpu_seconds,
                    run.others_cpu_seconds,
                    run.clock_mhz,
                    run.log_tail,
                    run.val_bpb,
                    run.claims_sha256,
                    None if run.audit is None else json.dumps(asdict(run.audit)),
                    None if run.curve is None else json.dumps(asdict(run.curve)),
                    run_id,
                ),
            ).rowcount
            if changed != 1:
                raise LedgerError(f"run {run_id} has ended already, or does not exist", "autoresearch doctor")

    # -------------------------------------------------------------- conversations

    def conversation(self, tag: str, proposer: str) -> Conversation | None:
        """The conversation with a proposer that goes on, if there is one."""
        for row in self._read(
            "SELECT id, seen, running, retry_of FROM conversations"
            " WHERE tag = ? AND proposer = ? AND ended_at IS NULL",
            *(tag, proposer),
        ):
            return Conversation(**dict(row))
        return None

    def open_conversation(
        self, tag: str, proposer: str, *, seen: int, running: int | None = None, retry_of: int | None = None
    ) -> Conversation:
        """Begin a conversation on the ground of what is known now.

        Args:
            seen: the last experiment whose verdict it knows.
            running: the experiment that runs meanwhile.
            retry_of: the crash that is to be mended.
        """
        with self._transaction(Step.CONVERSATION_OPENED) as db:
            cursor = db.execute(
                "INSERT INTO conversations (tag, proposer, seen, running, retry_of, opened_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (tag, proposer, seen, running, retry_of, now()),
            )
        assert cursor.lastrowid is not None
        return Conversation(id=cursor.lastrowid, seen=seen, running=running, retry_of=retry_of)

    def end_conversation(self, conversation: int, transcript: object | None = None) -> None:
        """A conversation led to nothing.

        Args:
            transcript: JSON of all that was said, for people.
        """
        with self._transaction(Step.CONVERSATION_ENDED) as db:
            self._end(db, conversation, None, transcript)

    def _end(
        self, db: sqlite3.Connection, conversation: int, experiment: int | None, transcript: object | None
    ) -> None:
        db.execute(
            "UPDATE conversations SET ended_at = ?, experiment = ?, transcript = ?"
            " WHERE id = ? AND ended_at IS NULL",
            (now(), experiment, None if transcript is None else _packed(transcript), conversation),
        )

    def retry_abandoned(self, tag: str, crash: int) -> bool:
        """Whether a conversation about mending a crash led to nothing."""
        return bool(
            self._read(
                "SELECT 1 FROM conversations"
                " WHERE tag = ? AND retry_of = ? AND ended_at IS NOT NULL AND experiment IS NULL LIMIT 1",
                tag,
                crash,
            )
        )

    def transcript(self, tag: str, number: int) -> Any | None:
        """What was said before an experiment; None: nothing, or before transcripts were kept."""
        for row in self._read(
            "SELECT transcript FROM conversations WHERE tag = ? AND experiment = ? AND transcript IS NOT NULL",
            tag,
            number,
        ):
            return _unpacked(row["transcript"])
        return None

    def open_answer(self, conversation: int, *, turn: int, request_sha256: str, usage: Usage) -> int:
        """Book a response that has just begun, so that a kill in its middle hides no money; returns the booking.

        Args:
            usage: what is known at its begin.
        """
        with self._transaction(Step.ANSWER_BOOKED) as db:
            cursor = db.execute(
                "INSERT INTO usage (tag, booked_at, model, request_id, input_tokens, output_tokens,"
                " cache_read_tokens, cache_write_tokens, cost_usd)"
                " VALUES ((SELECT tag FROM conversations WHERE id = ?), ?, ?, ?, ?, ?, ?, ?, ?)",
                (conversation, now(), *_amounts(usage)),
            )
            db.execute(
                "INSERT INTO answers (booking, conversation, turn, request_sha256) VALUES (?, ?, ?, ?)",
                (cursor.lastrowid, conversation, turn, request_sha256),
            )
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def close_answer(self, booking: int, usage: Usage, body: object | None) -> None:
        """Write down what a response cost in the end, and what it said.

        Args:
            body: JSON; None when it did not come whole.
        """
        with self._transaction(Step.ANSWER_KEPT) as db:
            db.execute(
                "UPDATE usage SET booked_at = ?, model = ?, request_id = ?, input_tokens = ?, output_tokens = ?,"
                " cache_read_tokens = ?, cache_write_tokens = ?, cost_usd = ? WHERE id = ?",
                (now(), *_amounts(usage), booking),
            )
            packed = None if body is None else _packed(body)
            db.execute("UPDATE answers SET body = ? WHERE booking = ?", (packed, booking))

    def recall_answer(self, conversation: int, *, turn: int, request_sha256: str) -> Any | None:
        """What this very request was answered; None: it must be sent."""
        for row in self._read(
            "SELECT body FROM answers WHERE conversation = ? AND turn = ? AND request_sha256 = ?"
            " AND body IS NOT NULL ORDER BY booking DESC LIMIT 1",
            *(conversation, turn, request_sha256),
        ):
            return _unpacked(row["body"])
        return None

    def keep_check(self, conversation: int, tree_sha256: str, reason: str) -> None:
        """Write down what a short run of a submission showed; an empty reason: nothing is wrong with it."""
        with self._transaction(Step.CHECK_KEPT) as db:
            db.execute("INSERT OR REPLACE INTO checks VALUES (?, ?, ?)", (conversation, tree_sha256, reason))

    def recall_check(self, conversation: int, tree_sha256: str) -> str | None:
        """What it showed before; None: it has not been run."""
        for row in self._read(
            "SELECT reason FROM checks WHERE conversation = ? AND tree_sha256 = ?", conversation, tree_sha256
        ):
            return str(row["reason"])
        return None

    def conversation_usd(self, conversation: int) -> float:
        """What a conversation has cost so far."""
        (row,) = self._read(
            "SELECT coalesce(sum(cost_usd), 0) FROM usage JOIN answers ON booking = id WHERE conversation = ?",
            conversation,
        )
        return float(row[0])

    def highest_cost_usd(self, tag: str) -> float:
        """What the dearest answer of a campaign has cost so far."""
        (row,) = self._read("SELECT coalesce(max(cost_usd), 0) FROM usage WHERE tag = ?", tag)
        return float(row[0])

    # --------------------------------------------------------------------- sealed

    def seal(self, tag: str, score: SealedScore, claims_sha256: str) -> None:
        """Write down a score on the test rows; a second one of the same run replaces it."""
        with self._transaction(Step.SCORE_SEALED) as db:
            db.execute(
                "INSERT OR REPLACE INTO sealed VALUES (?, ?, ?, ?, ?, ?, ?)",
                (tag, score.number, score.seed, score.val_bpb, score.test_bpb, claims_sha256, now()),
            )

    def is_sealed(self, tag: str, number: int, seed: int) -> bool:
        """Whether a run has its score on the test rows; not which."""
        return bool(
            self._read("SELECT 1 FROM sealed WHERE tag = ? AND number = ? AND seed = ?", tag, number, seed)
        )

    def sealed(self, tag: str) -> tuple[SealedScore, ...]:
        """Scores on the test rows. Only reports for people may ask for them."""
        rows = self._read("SELECT * FROM sealed WHERE tag = ? ORDER BY number, rowid", tag)
        return tuple(
            SealedScore(number=row["number"], seed=row["seed"], val_bpb=row["val_bpb"], test_bpb=row["test_bpb"])
            for row in rows
        )

    def close_lost_runs(self, tag: str) -> int:
        """Mark runs that a killed controller left open; returns how many."""
        with self._transaction(Step.LOST_RUNS_CLOSED) as db:
            cursor = db.execute(
                "UPDATE runs SET closed_at = ?, end = ? WHERE tag = ? AND end IS NULL", (now(), RunEnd.LOST, tag)
            )
        return cursor.rowcount


def _packed(value: object) -> bytes:
    return zlib.compress(json.dumps(value).encode())


def _unpacked(packed: bytes) -> Any:
    return json.loads(zlib.decompress(packed))


def _amounts(usage: Usage) -> tuple[str | int | float | None, ...]:
    """In the order of the columns of `usage`."""
    return (
        usage.model,
        usage.request_id,
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.cost_usd,
    )


def _run(row: sqlite3.Row) -> RunRecord:
    return RunRecord(
        phase=Phase(row["phase"]),
        seed=row["seed"],
        end=RunEnd(row["end"]),
        exit_code=row["exit_code"],
        wall_seconds=row["wall_seconds"],
        cpu_seconds=row["cpu_seconds"],
        others_cpu_seconds=row["others_cpu_seconds"],
        clock_mhz=row["clock_mhz"],
        log_tail=row["log_tail"],
        val_bpb=row["val_bpb"],
        claims_sha256=row["claims_sha256"],
        audit=None if row["audit"] is None else _audit(json.loads(row["audit"])),
        curve=None if row["curve"] is None else _curve(json.loads(row["curve"])),
        opened_at=row["opened_at"],
        closed_at=row["closed_at"],
        id=row["id"],
    )


def _figures(facts: dict[str, Any]) -> Figures:
    return Figures(**{**facts, "trials": tuple(facts["trials"]), "pool": tuple(facts["pool"])})


def _curve(facts: dict[str, Any]) -> Curve:
    stop_reason = facts["stop_reason"]
    return Curve(
        losses=tuple(facts["losses"]), stop_reason=None if stop_reason is None else StopReason(**stop_reason)
    )


def _audit(facts: dict[str, Any]) -> AuditRecord:
    return AuditRecord(**{**facts, "exceedances": tuple(facts["exceedances"])})


def _experiment(
    row: sqlite3.Row, *, runs: tuple[RunRecord, ...], controls: tuple[RunRecord, ...], cost_usd: float
) -> Experiment:
    training = [run for run in runs if run.phase is Phase.TRAIN]
    return Experiment(
        number=row["number"],
        hypothesis=row["hypothesis"],
        proposer=row["proposer"],
        verdict=None if row["verdict"] is None else Verdict(row["verdict"]),
        reason=row["reason"],
        category=row["category"],
        model=row["model"],
        parameters=json.loads(row["parameters"]),
        retry_of=row["retry_of"],
        combines=tuple(json.loads(row["combines"])),
        diff=row["diff"],
        champion=row["champion"],
        tried_commit=row["tried_commit"],
        kept_commit=row["kept_commit"],
        val_bpb=row["val_bpb"],
        delta_bpb=row["delta_bpb"],
        sigma_bpb=row["sigma_bpb"],
        log_tail=training[-1].log_tail if training else "",
        cost_usd=cost_usd,
        started_at=row["opened_at"],
        ended_at=row["closed_at"],
        image_id=row["image_id"],
        layer_digest=row["layer_digest"],
        figures=None if row["figures"] is None else _figures(json.loads(row["figures"])),
        runs=runs,
        controls=controls,
    )


def _failure(path: Path, error: sqlite3.Error | OSError) -> AutoresearchError:
    """What SQLite or the file system refused, in our words."""
    if isinstance(error, OSError):
        return write_failure(path, error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the extended codes are told in the text
    disk = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
    if code == sqlite3.SQLITE_FULL or (disk and _is_full(path.parent)):
        return DiskFullError(f"no room to write the ledger {path}", remedy_of(OSError(errno.ENOSPC, "")))
    what = f"the ledger {path} cannot be used: {error}"
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        mended = path.with_name("mended.db")
        return LedgerError(
            what,
            f"it is left as it is: sqlite3 {path} .recover | sqlite3 {mended} saves what can be read; "
            f"or move {path} away, with what begins with its name, to start a new one",
        )
    if disk or code == sqlite3.SQLITE_READONLY:
        return LedgerError(
            what, f"can {path.parent} be written? ls -ld, df -h, dmesg; then start again: nothing is lost"
        )
    return LedgerError(what, "autoresearch doctor, then start again: nothing is lost")


def _is_full(folder: Path) -> bool:
    """Whether its file system has no room for another file."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < LEAST_ROOM_BYTES or (found.f_files > 0 and found.f_favail == 0)
