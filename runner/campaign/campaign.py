"""One campaign as it stands now: its row, its experiments in memory, and everything that works for it.

The experiments are read from the ledger once and kept up to date (`runner/decision/memory.py`): every method that
writes to the ledger reads back the one experiment that it changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from runner.config import TIP_SUFFIX, Config
from runner.decision.memory import Memory
from runner.edits.contamination import SealedText
from runner.errors import ConfigError
from runner.evaluation.evaluator import Evaluator
from runner.records import Experiment, Observer, Proposal, Ruling
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from runner.storage.rows import CampaignRow, Refused
from runner.storage.sealed import SealedScores


@dataclass(frozen=True, kw_only=True)
class Controller:
    """One controller process on a prepared machine: the only one with ledger, git and keys."""

    config: Config
    ledger: Ledger
    repository: Repository
    evaluator: Evaluator
    sealed_text: SealedText  # text that no candidate may contain
    conditions: Mapping[str, str]  # what two scores must share to be comparable
    observer: Observer
    stopping: Callable[[], bool] = lambda: False  # whether a person asked to stop; polled in long waits

    @property
    def branch(self) -> str:
        """The campaign's branch."""
        return f"autoresearch/{self.config.tag}"

    @property
    def tip_branch(self) -> str:
        """The branch of single edits that are not certified yet."""
        return f"{self.branch}{TIP_SUFFIX}"

    @property
    def sealed(self) -> SealedScores:
        """Where sealed scores are written."""
        return SealedScores(self.ledger.database)

    def listening(self, stopping: Callable[[], bool]) -> Controller:
        """The same, with somewhere to ask whether a person wants to stop."""
        return replace(self, stopping=stopping, evaluator=replace(self.evaluator, stopping=stopping))

    def refuse_other_conditions(self, row: CampaignRow) -> None:
        """Refuse to measure for a campaign whose scores would not be comparable with new ones.

        Raises:
            ConfigError: names every condition that differs.
        """
        changed = [
            f"{name} was {before!r}, is {self.conditions.get(name)!r}"
            for name, before in row.conditions.items()
            if self.conditions.get(name) != before
        ]
        if changed:
            raise ConfigError(
                f"the campaign {row.tag!r} began under other conditions, so scores cannot be compared: "
                + "; ".join(changed),
                "use the settings it began with, or begin another campaign: --tag NAME (TAG=NAME with make)",
            )


@dataclass
class Campaign:
    """A campaign that its controller works on."""

    controller: Controller
    row: CampaignRow
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        """Read its experiments."""
        self.memory = Memory(self.ledger.experiments(self.tag), self.config)

    @property
    def experiments(self) -> Sequence[Experiment]:
        """Its experiments as they are now, by number."""
        return self.memory.experiments

    @property
    def tag(self) -> str:
        """Its name."""
        return self.row.tag

    @property
    def config(self) -> Config:
        """Its settings."""
        return self.controller.config

    @property
    def ledger(self) -> Ledger:
        """Where it is recorded."""
        return self.controller.ledger

    @property
    def repository(self) -> Repository:
        """The repository that it works in."""
        return self.controller.repository

    @property
    def evaluator(self) -> Evaluator:
        """Where its programs are measured."""
        return self.controller.evaluator

    @property
    def observer(self) -> Observer:
        """Who watches it."""
        return self.controller.observer

    @property
    def stopping(self) -> Callable[[], bool]:
        """Whether a person asked to stop."""
        return self.controller.stopping

    @property
    def champion(self) -> Experiment:
        """The experiment that was kept last; there is one once the baseline is measured."""
        best = self.memory.champion
        assert best is not None
        return best

    @property
    def tip(self) -> Experiment:
        """The experiment whose program is the tip: every idea is an edit of it."""
        known = self.memory.tip
        assert known is not None
        return self.experiments[known.number]

    @property
    def open_experiment(self) -> Experiment | None:
        """The experiment without a verdict, if there is one."""
        return self.memory.open_experiment

    @property
    def num_done(self) -> int:
        """Ideas that were judged: closed experiments, baseline and certificates excluded."""
        return self.memory.num_done

    def parent_of(self, experiment: Experiment) -> str:
        """The commit that a candidate is based on: its parent's, or the campaign's first."""
        if experiment.parent is None:
            return self.row.base_commit
        commit = self.experiments[experiment.parent].commit
        assert commit is not None
        return commit

    def knows(self, commit: str) -> bool:
        """Whether a commit is one of its own."""
        return any(commit in (one.tried_commit, one.kept_commit) for one in self.experiments)

    def seed(self, number: int, index: int) -> int:
        """The seed of trial `index` of an experiment: issued by the host, the same after a crash."""
        digest = hashlib.sha256(f"{self.row.seed}:{number}:{index}".encode()).digest()
        return int.from_bytes(digest[:4]) & 0x7FFFFFFF

    def reload(self, number: int) -> Experiment:
        """Read one experiment back from the ledger."""
        (found,) = self.ledger.experiments(self.tag, number, number)
        self.memory.put(found)
        return found

    def open(
        self,
        proposal: Proposal,
        *,
        diff: str,
        parent: int | None,
        retry_of: int | None = None,
        refused: Refused | None = None,
        conversation: int | None = None,
    ) -> Experiment:
        """Record a proposal; see `Ledger.open_experiment`.

        Args:
            parent: the experiment whose program it edits; None for the baseline.
        """
        best = self.memory.champion
        number = self.ledger.open_experiment(
            self.tag,
            proposal,
            diff=diff,
            champion=None if best is None else best.number,
            parent=parent,
            retry_of=retry_of,
            refused=refused,
            conversation=conversation,
        )
        return self.reload(number)

    def close(self, number: int, ruling: Ruling) -> Experiment:
        """Record a verdict; a verdict is final."""
        self.ledger.close_experiment(self.tag, number, **vars(ruling))
        return self.reload(number)
