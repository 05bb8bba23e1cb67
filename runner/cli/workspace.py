"""Opening the repository, its state folder and its ledger for a command."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from runner.errors import ConfigError, LedgerError

if TYPE_CHECKING:
    from runner.records import Experiment, Trial
    from runner.storage.ledger import Ledger
    from runner.storage.paths import StatePaths
    from runner.storage.repository import Repository
    from runner.storage.sealed import SealedScores


_REF = re.compile(r"(?:refs/heads/)?autoresearch/([\w-]+)(?![\w/-])|refs/autoresearch/tried/([\w-]+)/")


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Repository, state folder and ledger of a command."""

    repository: Repository
    paths: StatePaths
    ledger: Ledger

    @property
    def sealed(self) -> SealedScores:
        """Scores on the sealed rows, for people."""
        from runner.storage.sealed import SealedScores

        return SealedScores(self.ledger.database)

    def recorded(self, tag: str) -> dict[str, str]:
        """Return the settings that a campaign began with and must go on with; empty when there is none."""
        from runner.config import CONDITIONS

        campaign = self.ledger.campaign(tag)
        conditions = {} if campaign is None else {"tier": "none", **campaign.conditions}
        return {name: conditions[name] for name in CONDITIONS if name in conditions}

    def campaign_of(self, revision: str) -> str | None:
        """Return the campaign whose branch or ref a revision names, else the newest one that has this commit.

        Raises:
            RepositoryError: there is no such commit.
        """
        from runner.config import TIP_SUFFIX

        commit = self.repository.resolve(revision)
        named = _REF.match(revision)
        tag = named and (named[1] or named[2]).removesuffix(TIP_SUFFIX)
        return tag if tag and self.ledger.campaign(tag) else self.ledger.campaign_of(commit)


@contextmanager
def open_workspace(*, create: bool) -> Iterator[Workspace]:
    """Open the repository around the current folder.

    Args:
        create: create a missing ledger, to write to it. Otherwise its absence is an error, and it may belong to
            another user or be on a read-only medium.
    """
    from runner.storage.ledger import Ledger
    from runner.storage.paths import StatePaths
    from runner.storage.repository import Repository

    repository = Repository(Path.cwd())
    paths = StatePaths.of(repository.root)
    if not create and not paths.ledger.exists():
        raise LedgerError(
            f"no campaign has been started in {repository.root}", "run make demo or autoresearch overnight"
        )
    read_only = not create and not all(os.access(path, os.W_OK) for path in (paths.root, paths.ledger))
    with Ledger(paths.ledger, read_only=read_only) as ledger:
        yield Workspace(repository=repository, paths=paths, ledger=ledger)


def choose_tag(ledger: Ledger, tag: str | None) -> str:
    """Choose the campaign that a command reads: the named one, else the newest.

    Raises:
        ConfigError: there is none, or none of this name.
    """
    names = ledger.campaigns()
    if not names:
        raise ConfigError("no campaign has been started here", "run make demo or autoresearch overnight")
    if tag is None:
        return names[0]
    if tag not in names:
        raise ConfigError(f"there is no campaign {tag!r}", f"choose one of: {', '.join(names)}")
    return tag


def log_to_file(path: Path) -> None:
    """Write events to a file as JSON lines; the terminal shows progress instead."""
    import structlog

    from runner.cli.event_log import EventLog

    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(sort_keys=True),
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", EventLog(path))),
        cache_logger_on_first_use=False,
    )


def as_json(experiment: Experiment, *, full: bool = False) -> dict[str, Any]:
    """Return one experiment as plain data; `full` adds diff, log, runs and figures."""
    data: dict[str, Any] = {
        "number": experiment.number,
        "verdict": experiment.verdict,
        "reason": experiment.reason,
        "val_bpb": experiment.val_bpb,
        "delta_bpb": experiment.delta_bpb,
        "sigma_bpb": experiment.sigma_bpb,
        "hypothesis": experiment.hypothesis,
        "category": experiment.category,
        "proposer": experiment.proposer,
        "model": experiment.model,
        "parameters": dict(experiment.parameters),
        "retry_of": experiment.retry_of,
        "certifies": list(experiment.certifies),
        "champion": experiment.champion,
        "parent": experiment.parent,
        "tried_commit": experiment.tried_commit,
        "kept_commit": experiment.kept_commit,
        "image_id": experiment.image_id,
        "layer_digest": experiment.layer_digest,
        "cost_usd": experiment.cost_usd,
        "started_at": experiment.started_at,
        "ended_at": experiment.ended_at,
    }
    if full:
        data["diff"] = experiment.diff
        data["log_tail"] = experiment.log_tail
        data["trials"] = [_trial(trial) for trial in (*experiment.trials, *experiment.control_trials)]
        data["figures"] = None if experiment.figures is None else asdict(experiment.figures)
    return data


def _trial(trial: Trial) -> dict[str, Any]:
    return {**asdict(trial), "runs": [{**asdict(run), "log_tail": None} for run in trial.runs]}


def print_json(data: object) -> None:
    """Print one JSON line on stdout."""
    click.echo(json.dumps(data, sort_keys=True))
