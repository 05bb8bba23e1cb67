"""The zoo's controller: a small text that can be learnt, an honest program, and the whole pipeline for others.

Candidates are edits of `honest/`. They go through `edits.apply`, an image, a session and `measurement.measure`:
training, scoring, judge, audit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from locked_eval.preparation.shingles import shingle
from runner import config as settings
from runner import edits
from runner.edits.contamination import SealedText
from runner.records import AuditPolicy, Edit, Outcome, Phase, RunRecord, Trial
from runner.sandbox import images, remove_orphans
from runner.sandbox.reservation import choose_cores
from runner.storage import pinned_evaluation
from tests.support.machine import Ground, changed, examine_once, open_controller
from tests.support.silent_observer import SilentObserver
from tests.zoo.animals import WORDS, honest_files
from tests.zoo.warm.container import open_container, sessions

ROOT = Path(__file__).resolve().parents[2]

VOCAB_SIZE, CONTEXT, BATCH_ROWS = 64, 32, 64
VAL_ROWS, TEST_ROWS = 330, 160  # the last batch of the validation rows is smaller than the others
BOS = VOCAB_SIZE - 1
SEED = 20


@pytest.fixture(scope="session")
def chain():
    """Writes text: each token follows from the last one or the one before it, as `honest/model.py` assumes.

    One token never comes. Text drifts: of what is scored, every tenth token is one of six, whatever
    comes before it, as the text of other years has other words. So there is something to gain by learning
    from the rows themselves, and more than the few rows of an audit's second container tell.
    """
    rng = np.random.default_rng(1)
    last, before = rng.dirichlet([0.1] * (BOS - 1), (2, VOCAB_SIZE)).cumsum(-1)  # (V, V - 2), cumulated
    other = np.isin(np.arange(BOS - 1), rng.choice(BOS - 1, 6, replace=False)).cumsum() / 6  # (V - 2,)

    def write(num_rows, length, seed, drift):
        dice = np.random.default_rng(seed)
        rows = np.full((num_rows, length), BOS, dtype=np.uint16)
        for t in range(2, length):
            table = np.where(dice.random((num_rows, 1)) < 0.75, last[rows[:, t - 1]], before[rows[:, t - 2]])
            table = np.where(dice.random((num_rows, 1)) < drift, other, table)  # (N, V - 2)
            drawn = (table < dice.random((num_rows, 1))).sum(1).clip(max=BOS - 2)
            rows[:, t] = np.where(dice.random(num_rows) < 0.02, BOS, drawn)
        return rows

    return write


@pytest.fixture(scope="session")
def data(chain, tmp_path_factory):
    """Prepared data in the layout of `docs/contract.md`; all splits come from one chain and share no text."""
    root = tmp_path_factory.mktemp("zoo")
    meta = {"vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "bos_token": BOS}
    for split in ("train", "val", "test"):
        (root / split).mkdir()
        (root / split / "meta.json").write_text(json.dumps(meta))
    for number in range(2):
        chain(500, 200, seed=10 + number, drift=0).astype("<u2").tofile(root / "train" / f"shard-{number:02d}.bin")
    np.save(root / "val" / "rows.npy", chain(VAL_ROWS, CONTEXT + 4, seed=2, drift=0.1)[:, 3:])
    np.save(root / "test" / "rows.npy", chain(TEST_ROWS, CONTEXT + 4, seed=3, drift=0.1)[:, 3:])
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="session")
def config():
    """The cpu profile for a text of 64 tokens."""
    overrides = {"profile": "cpu", "train_seconds": 10, "score_seconds": 20, "tag": "zoo"}
    made = settings.load(ROOT, overrides, environ={})
    # Smaller than a person may choose.
    changes = {"vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "score_batch_rows": BATCH_ROWS}
    # A training of half a second is never repeated: the end of its container counts as the work of other programs.
    changes["max_disturbance"] = 100
    return made.model_copy(update=changes)


@pytest.fixture(scope="session")
def ground(engine, data, torch_image, tmp_path_factory):
    """What the controller stands on: the real torch."""
    locked, _ = pinned_evaluation.pin(tmp_path_factory.mktemp("locked"))
    return Ground(engine=engine, data=data, locked=locked, base_image=torch_image)


@pytest.fixture(scope="session")
def evaluation(ground):
    """What the judge knows."""
    return ground.rows


@pytest.fixture(scope="session")
def sealed_text(evaluation):
    """What no edit may hold."""
    splits = []
    for rows in (evaluation.val_rows, evaluation.test_rows):
        texts = [b"".join(WORDS[token] for token in row) for row in rows]
        splits.append(np.unique(shingle(texts).hashes))
    return SealedText(validation=splits[0], test=splits[1], tokens=WORDS)


@pytest.fixture(scope="session")
def controller(engine, ground, config, sealed_text, tmp_path_factory):
    """A real one. Nothing of a campaign is needed: measurements are not recorded."""
    root = tmp_path_factory.mktemp("controller")
    with open_controller(
        ground, root, config, observer=SilentObserver(), repository=False, sealed_text=sealed_text
    ) as opened:
        yield opened
        left = remove_orphans(engine, opened.ledger.controller)
        images.remove_images(engine.client, {"controller": opened.ledger.controller})
    assert left == 0, "a container or volume was left behind"


@pytest.fixture(scope="session")
def warm(ground, config, tmp_path_factory):
    """The warm container of this worker."""
    boxes = tmp_path_factory.mktemp("boxes")
    boxes.chmod(0o755)
    (core,) = choose_cores(config)
    with open_container(ground.engine, ground.base_image, ground.locked, boxes, core) as opened:
        yield opened


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """What the pipeline made of one candidate."""

    trial: Trial

    @property
    def runs(self) -> tuple[RunRecord, ...]:
        """Its containers."""
        return self.trial.runs

    def run(self, phase: Phase) -> RunRecord | None:
        """The run of one phase; None when it did not come so far."""
        return next((run for run in self.runs if run.phase is phase), None)

    @property
    def claimed_bpb(self) -> float | None:
        """What a naive evaluation would believe."""
        scored = self.run(Phase.SCORE)
        return None if scored is None else scored.val_bpb

    @property
    def finding(self) -> str | None:
        """What the audit refuses the claims for."""
        audited = self.run(Phase.AUDIT)
        return None if audited is None or audited.audit is None else audited.audit.finding

    @property
    def log(self) -> str:
        """What the training printed."""
        trained = self.run(Phase.TRAIN)
        return "" if trained is None else trained.log_tail


@pytest.fixture(scope="session")
def watch(controller, warm, pytestconfig):
    """Take edits of the honest program through the whole pipeline: `watch(edits, champion=…)`.

    With `arithmetic`, in the warm container; with `--full`, always in containers of its own.
    """

    def one(changes: tuple[Edit, ...], *, champion=None, audit=True, seal=False, score_limit_seconds=None,
            arithmetic=False, **settings_changed) -> Sighting:  # fmt: skip
        files = edits.apply(honest_files(), changes) if changes else honest_files()
        assert not isinstance(files, edits.Refusal), files.reason
        trial = examine_once(
            changed(controller, **settings_changed),
            files,
            champion=champion,
            policy=AuditPolicy(audit=audit, seal_below_bpb=float("inf") if seal else None),
            request={"seed": SEED, "score_limit_seconds": score_limit_seconds},
            open_session=sessions(warm, files) if arithmetic and not pytestconfig.getoption("--full") else None,
        )
        return Sighting(trial=trial)

    return one


@pytest.fixture(scope="session")
def honest_sighting(watch) -> Sighting:
    """The champion: audited, and its claims kept, so that audits look hardest where a candidate beats it."""
    return watch((), seal=True)


@pytest.fixture(scope="session")
def honest(honest_sighting) -> Trial:
    """The champion's score."""
    assert honest_sighting.trial.outcome is Outcome.SCORED, honest_sighting
    return honest_sighting.trial
