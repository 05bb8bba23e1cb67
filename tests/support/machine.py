"""A controller over a prepared data set: the one place where tests on real containers put one together."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from locked_eval.preparation.index import IndexBuilder
from runner.campaign.campaign import Campaign, Controller
from runner.campaign.measurement import LedgerBook, TrialBook, measure
from runner.config import Config
from runner.corpus.redaction import Redactor
from runner.evaluation import trial
from runner.evaluation.evaluator import EvaluationRows, Evaluator, Program, TrialRequest
from runner.records import AuditPolicy, Proposal, RunRecord, Trial
from runner.sandbox import Engine
from runner.sandbox.images import BaseImage, Image
from runner.sandbox.session import Mounts
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from tests.support.scripted_controller import no_sealed_text

CONDITIONS = {"data": "d" * 64, "evaluation": "e" * 64, "train_seconds": "3", "base_image": "cpu-0"}


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What does not change from test to test."""

    engine: Engine
    data: Path  # a prepared data set, in the layout of `docs/contract.md`
    locked: Path  # a pinned copy of the locked evaluation
    base_image: str
    rebuild: Callable[[], str] = lambda: pytest.fail("nothing removes the base image here")

    @property
    def mounts(self) -> Mounts:
        """What containers see of the data."""
        train = {path.name: path for path in (self.data / "train").iterdir()}
        return Mounts(locked=self.locked, train=lambda _: train, val=self.data / "val", test=self.data / "test")

    @property
    def rows(self) -> EvaluationRows:
        """What the judge knows of the data. Every token stands for two bytes, the last one for none."""
        vocab_size = json.loads((self.data / "val" / "meta.json").read_text())["vocab_size"]
        return EvaluationRows(
            val_rows=np.load(self.data / "val" / "rows.npy"),
            test_rows=np.load(self.data / "test" / "rows.npy"),
            token_bytes=np.array([2] * (vocab_size - 1) + [0], dtype=np.uint16),
            train_text=np.fromfile(self.data / "train" / "shard-00.bin", "<u2"),
        )


@contextmanager
def open_controller(
    ground: Ground, root: Path, config: Config, *, observer: Any, repository: bool = True, **changes: Any
) -> Iterator[Controller]:
    """The controller of a folder.

    Args:
        root: a user's repository; the ledger is in its `.autoresearch/`.
        repository: whether it is one; without it, only single trials can be made.
        changes: fields of the controller.
    """
    state = root / ".autoresearch"
    with Ledger(state / "ledger.db") as ledger:
        evaluator = Evaluator(
            config=config,
            engine=ground.engine,
            controller=ledger.controller,
            mounts=ground.mounts,
            rows=ground.rows,
            redactor=Redactor(index=IndexBuilder(0).finish(), tokens=[]),
            scratch=state / "audits",
            claims=state / "claims",
            base=BaseImage(ground.base_image, ground.rebuild),
            observer=observer,
        )
        fields = {"sealed_text": no_sealed_text(), "conditions": dict(CONDITIONS), **changes}
        yield Controller(
            config=config,
            ledger=ledger,
            repository=Repository(root) if repository else None,
            evaluator=evaluator,
            observer=observer,
            **fields,
        )


def changed(
    controller: Controller, *, observer: Any = None, redactor: Any = None, base_image: Any = None, **settings: Any
) -> Controller:
    """The same controller with other settings, another observer, redactor or base image."""
    config = controller.config.model_copy(update=settings)
    observer = observer or controller.observer
    evaluator = replace(
        controller.evaluator,
        config=config,
        observer=observer,
        redactor=redactor or controller.evaluator.redactor,
        base=BaseImage(base_image, lambda: base_image) if base_image else controller.evaluator.base,
    )
    return replace(controller, config=config, evaluator=evaluator, observer=observer)


def measure_once(controller: Controller, files: dict[str, bytes]) -> tuple[Trial, tuple[RunRecord, ...]]:
    """Measure one program outside of a night, without an audit; the last trial, and all runs in the ledger."""
    row = controller.ledger.create_campaign(tag="test", base_commit="b", conditions={})
    campaign = Campaign(controller, row)
    opened = campaign.open(Proposal(hypothesis="one", edits=(), proposer="scripted"), diff="", parent=None)
    made = measure(
        controller.evaluator,
        TrialRequest(program=Program(number=opened.number, files=files, commit="c"), seed=1),
        LedgerBook(campaign, opened.number),
        lambda _: AuditPolicy(audit=False),
        None,
    )
    recorded = controller.ledger.experiment("test", opened.number)
    assert recorded is not None
    return made, recorded.runs


def examine_once(
    controller: Controller,
    files: dict[str, bytes],
    *,
    champion: str | None,
    policy: AuditPolicy,
    request: dict[str, Any],
    open_session: Any = None,
) -> Trial:
    """Take one program through the whole pipeline, without a record of it.

    Args:
        policy: what is audited and sealed.
        request: further fields of the trial's request.
        open_session: stands in the place of containers; None: a container for every phase, from an image.
    """
    evaluator = controller.evaluator
    program = Program(number=1, files=files, commit=uuid.uuid4().hex)
    built = Image(id="no image", base_id="", layer_digest="", layers=())
    with ExitStack() as stack:
        if open_session is not None:
            stack.enter_context(mock.patch.object(trial, "open_session", open_session))
            stack.enter_context(mock.patch.object(Evaluator, "ensure_image", lambda *_: built))
        asked = TrialRequest(program=program, **request)
        return measure(evaluator, asked, TrialBook(), lambda _: policy, champion)
