"""Tables of the ledger, format 9."""

from __future__ import annotations

FORMAT = 9

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE campaigns (
    tag TEXT PRIMARY KEY,
    created_at TEXT NOT NULL,
    base_commit TEXT NOT NULL,
    seed INTEGER NOT NULL,              -- seeds of all trials derive from it; secret from candidates
    target INTEGER NOT NULL,            -- experiments wanted so far, baseline excluded
    conditions TEXT NOT NULL,           -- JSON: what two scores must share to be comparable
    ticks INTEGER NOT NULL DEFAULT 0,   -- logical clock: opened_seq, closed_seq and kept_seq are ticks of it
    cost_usd REAL NOT NULL DEFAULT 0    -- running sum of its `usage`, kept by triggers
) STRICT;
CREATE TABLE experiments (
    tag TEXT NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    number INTEGER NOT NULL,            -- 0 is the baseline
    opened_at TEXT NOT NULL,
    opened_seq INTEGER NOT NULL,
    closed_at TEXT,
    closed_seq INTEGER,
    hypothesis TEXT NOT NULL,
    category TEXT,
    proposer TEXT NOT NULL,
    model TEXT,
    parameters TEXT NOT NULL,           -- JSON
    retry_of INTEGER,
    champion INTEGER,                   -- experiment that was kept last when it was opened
    parent INTEGER,                     -- experiment whose program it edits: the tip then, or its champion
    diff TEXT NOT NULL,                 -- against the parent's tree
    tried_commit TEXT,
    image_id TEXT,
    layer_digest TEXT,
    verdict TEXT,
    reason TEXT,
    val_bpb REAL,
    delta_bpb REAL,
    sigma_bpb REAL,
    kept_commit TEXT,
    kept_seq INTEGER,
    figures TEXT,                       -- JSON: what the verdict rests on
    certifies TEXT NOT NULL,            -- JSON: of a certificate, the accepted edits that it compares
    PRIMARY KEY (tag, number)
) STRICT;
CREATE INDEX experiments_by_verdict ON experiments (tag, verdict, number);
CREATE TABLE trials (                   -- one program under one seed
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL,
    experiment INTEGER NOT NULL,
    kind TEXT NOT NULL,                 -- candidate, or control: a champion measured again
    seed INTEGER NOT NULL,
    opened_at TEXT NOT NULL,
    opened_seq INTEGER NOT NULL,
    closed_at TEXT,
    closed_seq INTEGER,
    outcome TEXT,                       -- NULL: it runs, or its controller was killed
    reason TEXT,                        -- why there is no score
    val_bpb REAL,                       -- audited where there was an audit, as claimed otherwise
    claims_sha256 TEXT,                 -- committed before the audit's positions are drawn
    sealed INTEGER NOT NULL DEFAULT 0,  -- 1: its checkpoint has a score on the sealed rows
    FOREIGN KEY (tag, experiment) REFERENCES experiments ON DELETE CASCADE
) STRICT;
CREATE INDEX trials_of ON trials (tag, experiment);
CREATE TABLE runs (                     -- container executions of a trial, in order
    trial INTEGER NOT NULL REFERENCES trials ON DELETE CASCADE,
    position INTEGER NOT NULL,
    phase TEXT NOT NULL,
    opened_at TEXT,
    closed_at TEXT,
    end TEXT NOT NULL,
    exit_code INTEGER,
    wall_seconds REAL,
    cpu_seconds REAL,
    others_cpu_seconds REAL,            -- of other programs on the same cores
    clock_mhz REAL,                     -- mean clock of the processors that trained
    val_bpb REAL,
    claims_sha256 TEXT,
    audit TEXT,                         -- JSON: what an audit found
    curve TEXT,                         -- JSON: losses that a training printed, untrusted
    log_tail TEXT NOT NULL,             -- cleaned, untrusted; last, so that other columns are read without it
    PRIMARY KEY (trial, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_by_claim ON runs (val_bpb, trial) WHERE phase = 'score';
CREATE INDEX runs_stopped ON runs (end, trial, wall_seconds) WHERE end = 'stopped';
CREATE INDEX runs_finished_anyway ON runs (trial)
    WHERE json_extract(curve, '$.stop_reason') IS NOT NULL AND end <> 'stopped';
CREATE INDEX runs_refused ON runs (trial) WHERE json_extract(audit, '$.finding') IS NOT NULL;
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
CREATE TABLE confirmations (            -- attempts to confirm a claim: each one counts against the next
    programs_sha256 TEXT NOT NULL,      -- of both programs
    number INTEGER NOT NULL,            -- from 1
    made_at TEXT NOT NULL,
    attempt TEXT NOT NULL,              -- JSON
    PRIMARY KEY (programs_sha256, number)
) STRICT;
CREATE TABLE usage (                    -- what each response of a language model cost
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
CREATE INDEX usage_of ON usage (tag, experiment, cost_usd);
CREATE INDEX usage_by_cost ON usage (tag, cost_usd);
CREATE TRIGGER usage_booked AFTER INSERT ON usage
    BEGIN UPDATE campaigns SET cost_usd = cost_usd + NEW.cost_usd WHERE tag = NEW.tag; END;
CREATE TRIGGER usage_corrected AFTER UPDATE OF cost_usd ON usage
    BEGIN UPDATE campaigns SET cost_usd = cost_usd - OLD.cost_usd + NEW.cost_usd WHERE tag = NEW.tag; END;
CREATE TABLE conversations (            -- about one idea; at most one per proposer is open
    id INTEGER PRIMARY KEY,
    tag TEXT NOT NULL REFERENCES campaigns ON DELETE CASCADE,
    proposer TEXT NOT NULL,
    seen INTEGER NOT NULL,              -- last experiment whose verdict it knows; a restart asks the same
    running INTEGER,                    -- experiment that was running meanwhile
    retry_of INTEGER,                   -- crash that it is to repair
    opened_at TEXT NOT NULL,
    ended_at TEXT,                      -- NULL: it is open
    experiment INTEGER,                 -- what came of it; NULL: nothing (yet)
    transcript BLOB                     -- zlib of JSON, for people
) STRICT;
CREATE INDEX conversations_of ON conversations (tag, experiment);
CREATE TABLE answers (                  -- responses of language models, so that none is paid for twice
    booking INTEGER PRIMARY KEY REFERENCES usage ON DELETE CASCADE,
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    turn INTEGER NOT NULL,              -- of the conversation, from 1
    request_sha256 TEXT NOT NULL,
    body BLOB                           -- zlib of JSON; NULL: the response was cut off
) STRICT;
CREATE INDEX answers_of ON answers (conversation, turn);
CREATE TABLE checks (                   -- results of smoke tests; another run may differ
    conversation INTEGER NOT NULL REFERENCES conversations ON DELETE CASCADE,
    tree_sha256 TEXT NOT NULL,
    reason TEXT NOT NULL,               -- why the submission failed; empty: it passed
    PRIMARY KEY (conversation, tree_sha256)
) STRICT;
"""
