"""All that a candidate must never change, as one value before and one after."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

from locked_eval import manifest
from runner.records import Proposal, TrialKind, Verdict
from runner.sandbox import Engine, remove_orphans
from runner.sandbox.engine import LABEL
from runner.sandbox.images import remove_images
from runner.storage import pinned_evaluation
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from tests.support.trials import scored

DATE = "2026-01-01T00:00:00+00:00"
DISK_SHARE = 0.01
CLOCK_SECONDS = 1.0
MEMORY_BYTES = 64 * 2**20
"""What a run may cost the controller: a candidate's output must not be collected in it."""


@dataclass(frozen=True, kw_only=True)
class State:
    """One moment. Two are compared by `changes`."""

    files: dict[str, str]  # of the repository with its state folder, and canaries; path → kind, owner, content
    locked_differences: tuple[str, ...]
    refs: dict[str, str]
    rows: tuple[str, ...]
    containers: tuple[str, ...]
    volumes: tuple[str, ...]
    free_bytes: dict[str, int]
    clock_offset_seconds: float  # of wall clock and monotonic clock: it moves when the wall clock is set

    def changes(self, after: State) -> list[str]:
        """What a later moment has otherwise."""
        found = [
            f"{field.name}: {_difference(getattr(self, field.name), getattr(after, field.name))}"
            for field in fields(self)
            if field.name not in ("free_bytes", "clock_offset_seconds")
            and getattr(self, field.name) != getattr(after, field.name)
        ]
        for path, free in self.free_bytes.items():
            if after.free_bytes[path] < free * (1 - DISK_SHARE):
                found.append(f"{path}: {free - after.free_bytes[path]} bytes fewer are free")
        if abs(after.clock_offset_seconds - self.clock_offset_seconds) > CLOCK_SECONDS:
            found.append("the wall clock was set")
        return found


class Estate:
    """A project with a campaign in it: a repository, a ledger, a pinned evaluation; canaries around it."""

    def __init__(self, root: Path, data: Path, engine: Engine) -> None:
        self.engine = engine
        self.project = root / "project"
        self.folders = (root, data)
        self.canaries = [root / "canary", data / "canary", root / "project" / "canary"]
        handle, name = tempfile.mkstemp(prefix="autoresearch-canary-")
        os.close(handle)
        self.canaries.append(Path(name))
        self.canaries.append(Path.home() / f".{Path(name).name}")
        self._make_repository(root)
        self.ledger = Ledger(self.project / ".autoresearch" / "ledger.db")
        self._fill_ledger()
        self.locked, _ = pinned_evaluation.pin(self.project / ".autoresearch")
        self.canaries.append(self.locked.parent / "canary")
        for path in self.canaries:
            path.write_text("as it was")

    @property
    def controller(self) -> str:
        """The label of what is ours."""
        return self.ledger.controller

    def _make_repository(self, root: Path) -> None:
        """With hooks, a filter and an attribute that leave a file where they are run."""
        self.project.mkdir(parents=True)
        tripped = root / "tripped"
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "owner")
        self.git("config", "user.email", "owner@localhost")
        (self.project / "workload").mkdir()
        for name in ("model.py", "train.py", "__init__.py"):
            (self.project / "workload" / name).write_text(f'"""{name}"""\n')
        self.git("add", "--all")
        self.git("commit", "-q", "-m", "the beginning")
        self.git("branch", "autoresearch/test")
        self.git("update-ref", "refs/autoresearch/tried/test/1", "HEAD")
        (self.project / ".git" / "info" / "attributes").write_text("* filter=trap diff=trap\n")
        for key in ("filter.trap.clean", "filter.trap.smudge", "filter.trap.process", "diff.trap.textconv"):
            self.git("config", key, f"touch {tripped}; cat")
        for hook in ("reference-transaction", "post-commit", "pre-commit", "post-checkout", "post-rewrite"):
            path = self.project / ".git" / "hooks" / hook
            path.write_text(f"#!/bin/sh\ntouch {tripped}\n")
            path.chmod(0o755)

    def git(self, *arguments: str, hooks: bool = False) -> None:
        """Git, as the owner of the project uses it; with the traps if asked to."""
        settings = () if hooks else ("-c", "core.hooksPath=/dev/null")
        subprocess.run(["git", "-C", str(self.project), *settings, *arguments], check=True, capture_output=True)

    def _fill_ledger(self) -> None:
        head = self.repository().resolve("HEAD")
        self.ledger.create_campaign(tag="test", base_commit=head, conditions={"profile": "cpu"})
        for number in range(2):
            proposal = Proposal(hypothesis="as it is", edits=(), proposer="replay")
            self.ledger.open_experiment("test", proposal, diff="", champion=None)
            opened = self.ledger.open_trial("test", number, TrialKind.CANDIDATE, 1)
            self.ledger.close_trial("test", opened, scored(1.0))
            self.ledger.close_experiment("test", number, verdict=Verdict.KEEP, reason="", val_bpb=1.0)

    def repository(self) -> Repository:
        """The one of the project."""
        return Repository(self.project)

    def state(self) -> State:
        """All of it, now."""
        api = self.engine.client.api
        ours = {"label": f"{LABEL}controller={self.controller}"}
        with closing(sqlite3.connect(f"file:{self.ledger.path}?mode=ro", uri=True)) as database:
            rows = tuple(database.iterdump())
        walked = [path for folder in self.folders for path in (folder, *folder.rglob("*"))]
        walked = [path for path in walked if not path.name.startswith("ledger.db")]  # `rows` has it
        return State(
            files={str(path): _describe(path) for path in (*walked, *self.canaries)},
            locked_differences=tuple(manifest.differences(self.locked / "locked_eval")),
            refs=self.repository().refs("refs/"),
            rows=rows,
            containers=tuple(one["Id"] for one in api.containers(all=True, filters=ours)),
            volumes=tuple(one["Name"] for one in api.volumes(filters=ours).get("Volumes") or ()),
            free_bytes={path: _free(path) for path in (api.info()["DockerRootDir"], tempfile.gettempdir())},
            clock_offset_seconds=time.time() - time.clock_gettime(time.CLOCK_BOOTTIME),
        )

    def leave_volume(self) -> None:
        """A volume of ours that is never removed."""
        self.engine.client.volumes.create(labels={f"{LABEL}controller": self.controller})

    def remove_left(self) -> None:
        """Containers and volumes of ours."""
        remove_orphans(self.engine, self.controller)

    def close(self) -> None:
        """Remove what lies outside the folder, and what tests that failed have left."""
        self.remove_left()
        remove_images(self.engine.client, {"controller": self.controller})
        self.ledger.close()
        for path in self.canaries:
            path.unlink(missing_ok=True)


def controller_memory() -> int:
    """The most that this process has had in memory since `forget_peak`, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Begin to look for the most memory anew."""
    Path("/proc/self/clear_refs").write_text("5")


def _describe(path: Path) -> str:
    try:
        facts = path.lstat()
    except OSError as error:
        return type(error).__name__
    content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
    return f"{facts.st_mode:o} {facts.st_uid}:{facts.st_gid} {facts.st_nlink} {content}"


def _free(path: str) -> int:
    """Free bytes of the file system that holds a folder, which only root may look into."""
    place = Path(path)
    while True:
        try:
            facts = os.statvfs(place)
        except PermissionError:
            place = place.parent
        else:
            return facts.f_bavail * facts.f_frsize


def _difference(before: object, after: object) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return ", ".join(
            f"{key}: {before.get(key)} → {after.get(key)}"
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        )
    return f"{before} → {after}"
