"""A laboratory over a prepared data set: the one place where tests on real containers put one together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from locked_eval.preparation.index import IndexBuilder
from runner.config import Config
from runner.corpus.redaction import Redactor
from runner.edits.contamination import SealedText
from runner.evaluation import trial
from runner.evaluation.audit import Evaluation
from runner.evaluation.trial import Laboratory
from runner.records import Proposal, RunRecord
from runner.sandbox import Engine, images
from runner.sandbox.session import Mounts
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository

CONDITIONS = {"data": "d" * 64, "evaluation": "e" * 64, "train_seconds": "3", "base_image": "cpu-0"}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What does not change from test to test."""

    engine: Engine
    data: Path  # a prepared data set, in the layout of `docs/contract.md`
    locked: Path  # a pinned copy of the locked evaluation
    base_image: str

    @property
    def mounts(self) -> Mounts:
        """What containers see of the data."""
        train = {path.name: path for path in (self.data / "train").iterdir()}
        return Mounts(locked=self.locked, train=lambda _: train, val=self.data / "val", test=self.data / "test")

    @property
    def evaluation(self) -> Evaluation:
        """What the judge knows of the data. Every token stands for two bytes, the last one for none."""
        vocab_size = json.loads((self.data / "val" / "meta.json").read_text())["vocab_size"]
        return Evaluation(
            val_rows=np.load(self.data / "val" / "rows.npy"),
            test_rows=np.load(self.data / "test" / "rows.npy"),
            token_bytes=np.array([2] * (vocab_size - 1) + [0], dtype=np.uint16),
            train_text=np.fromfile(self.data / "train" / "shard-00.bin", "<u2"),
        )


@contextmanager
def open_laboratory(
    ground: Ground, root: Path, config: Config, *, observer: Any, repository: bool = True, **changes: Any
) -> Iterator[Laboratory]:
    """The laboratory of a folder.

    Args:
        root: a user's repository; the ledger is in its `.autoresearch/`.
        repository: whether it is one; without it, only single measurements can be made.
        changes: fields of the laboratory.
    """
    state = root / ".autoresearch"
    nothing = SealedText(validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[])
    with Ledger(state / "ledger.db") as ledger:
        fields = {
            "sealed_text": nothing,
            "redactor": Redactor(index=IndexBuilder(0).finish(), tokens=[]),
            "conditions": dict(CONDITIONS),
            **changes,
        }
        yield Laboratory(
            config=config,
            engine=ground.engine,
            repository=Repository(root) if repository else None,
            ledger=ledger,
            observer=observer,
            mounts=ground.mounts,
            evaluation=ground.evaluation,
            scratch=state / "audits",
            claims=state / "claims",
            base_image=ground.base_image,
            **fields,
        )


def measure_once(lab: Laboratory, files: dict[str, bytes]) -> tuple[trial.Outcome, tuple[RunRecord, ...]]:
    """Measure one program outside of a campaign, without an audit; its outcome, and the runs in the ledger."""
    built = images.build_candidate(
        lab.engine.client, base_id=lab.base_image, files=files, labels=lab.owner(1).facts()
    )
    lab.ledger.create_campaign(tag="test", base_commit="b", conditions={})
    proposal = Proposal(hypothesis="one", edits=(), proposer="scripted")
    number = lab.ledger.open_experiment("test", proposal, diff="", champion=None)
    outcome = trial.measure(
        lab,
        build=lambda: built.id,
        number=number,
        seed=1,
        runs=trial.LedgerRuns(lab.ledger, "test", number),
        examiner=trial.Examined(audit=False, seal=False),
        champion=None,
    )
    return outcome, lab.ledger.experiment("test", number).runs


def examine_once(
    lab: Laboratory,
    files: dict[str, bytes],
    *,
    seed: int,
    champion: str | None,
    open_session: Any = None,
    **wanted: Any,
) -> tuple[trial.Outcome, tuple[RunRecord, ...]]:
    """Take one program through the whole pipeline, without a record of it.

    Args:
        open_session: stands in the place of containers; None: a container for every phase, from an image.
        wanted: what is audited and sealed, and how long scoring may take.
    """
    runs = trial.UnrecordedRuns()

    def build() -> str:
        if open_session is not None:
            return "no image"
        labels = lab.owner(1).facts()
        return images.build_candidate(lab.engine.client, base_id=lab.base_image, files=files, labels=labels).id

    with mock.patch.object(trial, "open_session", open_session or trial.open_session):
        outcome = trial.measure(
            lab,
            build=build,
            number=1,
            seed=seed,
            runs=runs,
            examiner=trial.Examined(**wanted),
            champion=champion,
        )
    return outcome, tuple(runs.closed)
