"""A user's repository and nights in it that a test can stop at any step: real processes, git and ledger."""

from __future__ import annotations

import atexit
import json
import os
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Thread

DRIVER = Path(__file__).with_name("scripted_autoresearch.py")
ROOT = DRIVER.parents[2]
PYTHON_PATH = str(ROOT)
TAG, BRANCH = "test", "autoresearch/test"
EXPERIMENTS = 3
"""A discard, a keep and a crash."""
TRAINING = ("trial_opened", "after", 4)
"""A gate while experiment 2 trains: after two runs of the baseline with four containers each, and two others."""
WAIT_SECONDS = 30
"""Longest wait for what comes within a second on a quiet machine."""


def git(root, *arguments, check=True):
    """One git command of the user's."""
    return subprocess.run(["git", *arguments], cwd=root, check=check, capture_output=True, text=True).stdout


def commit(root, message):
    """A commit of the user's."""
    git(root, "add", "-A")
    git(root, "-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", message)


@cache
def server():
    """Starts every process, and ends with this one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, str(DRIVER), "serve", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            env={**os.environ, "PYTHONPATH": PYTHON_PATH},
            stdin=subprocess.DEVNULL,
        )

    def end():
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


@dataclass(frozen=True)
class Ended:
    """How a command ended; a negative code is the signal that it died of."""

    code: int
    output: str
    errors: str

    def told(self):
        """The one error that a person reads: what happened, to what, and what to type."""
        assert "Traceback" not in self.errors, self.errors
        assert self.errors.count("error: ") == 1, self.errors
        what = self.errors.partition("error: ")[2]
        assert "\n  → " in what, f"no remedy: {what}"
        return what


class Process:
    """A started command, its gates and its streams."""

    def __init__(self, request, streams):
        nothing = os.open(os.devnull, os.O_RDWR)
        self._output, output = os.pipe()
        self._errors, errors = os.pipe()
        self._gate, gate_out = os.pipe()
        gate_in, self._go_on = os.pipe()
        told, tell = os.pipe()
        theirs = {"stdin": nothing, "stdout": output, "stderr": errors, **streams}
        message = json.dumps(request).encode()
        socket.send_fds(server(), [message], [*theirs.values(), gate_out, gate_in, tell])
        for descriptor in (nothing, output, errors, gate_out, gate_in, tell):
            os.close(descriptor)
        self._told = os.fdopen(told)
        self.pid = int(self._told.readline())

    def at_gate(self):
        """Wait until the next gate is reached."""
        if not _ready(self._gate) or os.read(self._gate, 1) != b".":
            raise AssertionError(f"no gate was reached: {self.end()}")

    def open_gate(self):
        """Let it go on."""
        os.write(self._go_on, b".")

    def send(self, number):
        """A signal for this process."""
        os.kill(self.pid, number)

    def await_error(self, text):
        """Read stderr until `text` stands there."""
        seen = b""
        while text.encode() not in seen:
            piece = os.read(self._errors, 4096) if _ready(self._errors) else b""
            assert piece, f"{text!r} never came: {seen.decode()}"
            seen += piece

    def leave(self):
        """Who read its output is gone."""
        for descriptor in (self._output, self._errors):
            os.close(descriptor)
        self._output = self._errors = None

    def end(self, *, unread=False):
        """Wait until it has ended.

        Args:
            unread: nobody reads its streams before that.
        """
        texts = {}

        def read(name, descriptor):
            with os.fdopen(descriptor, errors="replace") as stream:
                texts[name] = stream.read()

        readers = [
            Thread(target=read, args=(name, descriptor))
            for name, descriptor in (("output", self._output), ("errors", self._errors))
            if descriptor is not None
        ]
        self._output = self._errors = None
        for reader in () if unread else readers:
            reader.start()
        in_time = _ready(self._told)
        if not in_time:
            self.stop()
        code = int(self._told.readline())
        for reader in readers:
            if unread:
                reader.start()
            reader.join()
        ended = Ended(code, texts.get("output", ""), texts.get("errors", ""))
        assert in_time, f"it did not end: {ended}"
        return ended

    def stop(self):
        """At once, wherever it is."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self):
        """Leave nothing of it."""
        self.stop()
        self._told.read()
        self._told.close()
        for descriptor in (self._output, self._errors, self._gate, self._go_on):
            if descriptor is not None:
                os.close(descriptor)


def _ready(stream):
    return bool(select.select([stream], [], [], WAIT_SECONDS)[0])


@dataclass
class Night:
    """A repository in a folder, and commands in it."""

    folder: Path
    environment: dict = field(default_factory=dict)
    started: list = field(default_factory=list)

    def __post_init__(self):
        self.root = self.folder / "repository"
        self.state = self.root / ".autoresearch"
        (self.root / "workload").mkdir(parents=True)
        for name, text in {"__init__.py": "", "model.py": "", "train.py": "BOOST = 1.0\n"}.items():
            (self.root / "workload" / name).write_text(text)
        (self.root / "program.md").write_text("Lower is better.\n")
        (self.root / ".gitignore").write_text("/.autoresearch\n")
        git(self.root, "init", "-q", "-b", "main")
        commit(self.root, "start")

    def start(self, *arguments, gates=(), shell=None, nohup=False, mortal=False, **streams):
        """Start `autoresearch`; without arguments, the night.

        Args:
            gates: crash points to stop at, in the order in which they are passed: step, side, occurrence.
            shell: the end of a shell's command line, `>&-` for example.
            nohup: ignore SIGHUP.
            mortal: obey permissions, also as root.
            streams: descriptors for `stdin`, `stdout`, `stderr`.
        """
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "GIT_"))
        }
        environment = {
            **inherited,
            "PYTHONPATH": PYTHON_PATH,
            "AUTORESEARCH_PROFILE": "cpu",
            "AUTORESEARCH_PROPOSER": "optuna",
            "AUTORESEARCH_TAG": TAG,
            "AUTORESEARCH_EXPERIMENTS": str(EXPERIMENTS),
            "AUTORESEARCH_BASELINE_RUNS": "2",
            "AUTORESEARCH_CERTIFY": "each",
            "AUTORESEARCH_MIN_PAIRS": "1",
            "AUTORESEARCH_MAX_PAIRS": "1",
            "AUTORESEARCH_CONTROL_INTERVAL": "0",
            "AUTORESEARCH_NOISE_PRIOR_BPB": "0.0001",
            "AUTORESEARCH_AUDIT_DISCARDS": "0",
            "AUTORESEARCH_MAX_DISTURBANCE": "1",
            "IMAGES": str(self.folder / "images"),
            "GATES": json.dumps(list(gates)),
            **self.environment,
        }
        request = {
            "arguments": ["autoresearch", *(arguments or ("overnight",))],
            "folder": str(self.root),
            "environment": environment,
            "shell": shell,
            "nohup": nohup,
            "mortal": mortal,
        }
        process = Process(request, streams)
        self.started.append(process)
        return process

    def run(self, *arguments, **options):
        """Run a command to its end."""
        return self.start(*arguments, **options).end()

    def close(self):
        """End what a failed test left."""
        for process in self.started:
            process.close()

    def rows(self, table):
        """A table of the ledger."""
        with closing(sqlite3.connect(self.state / "ledger.db")) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(f"SELECT * FROM {table} ORDER BY rowid")]

    def final_state(self):
        """What a night leaves: verdicts and their figures, money, refs and what they hold, sealed scores, claims.

        Nothing is damaged or left over.
        """
        assert self.rows("pragma_integrity_check") == [{"integrity_check": "ok"}]
        git(self.root, "fsck", "--strict")
        assert all(trial["outcome"] for trial in self.rows("trials"))
        left = [path for path in self.state.rglob("*") if path.name.endswith(".partial")]
        assert left + list((self.state / "audits").glob("*")) == []
        kept = [row["kept_commit"] for row in self.rows("experiments") if row["verdict"] == "keep"]
        assert git(self.root, "rev-parse", BRANCH).strip() == kept[-1]
        varying = ("opened_at", "closed_at", "tried_commit", "kept_commit", "opened_seq", "closed_seq", "kept_seq")
        rows = [{k: v for k, v in row.items() if k not in varying} for row in self.rows("experiments")]
        for row in rows:
            if row["figures"] is not None:  # ids of trials: those that a fault cut off have some as well
                row["figures"] = {**json.loads(row["figures"]), "trials": None, "pool": None}
        refs = ("--format=%(refname) %(tree)", f"refs/heads/{BRANCH}", "refs/autoresearch")
        return {
            "experiments": rows,
            "money": [(row["experiment"], row["cost_usd"]) for row in self.rows("usage")],
            "sealed": [(row["number"], row["seed"], row["test_bpb"]) for row in self.rows("sealed")],
            "refs": git(self.root, "for-each-ref", *refs),
            "history": git(self.root, "log", "--first-parent", "--format=%s %T", BRANCH),
            "claims": sorted(path.name for path in (self.state / "claims" / TAG).iterdir()),
        }

    def events(self):
        """The whole lines of the event log."""
        lines = (self.state / "logs" / f"{TAG}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
