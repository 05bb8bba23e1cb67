"""Fixtures for real containers with small candidates: a base image, a tiny data set, a session.

Registered by `tests/conftest.py`: `tests/engine/`, `tests/hostile/` and `tests/zoo/` use it.
"""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from runner import config as settings
from runner.evaluation.evaluator import EvaluationRows
from runner.sandbox import images, open_session, remove_orphans
from runner.sandbox.containers import Owner, Sandbox, create_output_volume, remove_volume
from runner.sandbox.session import Mounts
from runner.sandbox.training import Callbacks, Training, train
from runner.storage import pinned_evaluation
from tests.support import stand_in_image
from tests.support.publishing import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
VOCAB_SIZE, CONTEXT, ROWS = 64, 16, 10

MODEL = """
import torch
class Uniform(torch.nn.Module):
    def forward(self, tokens):  # (B, T) -> (B, T, V)
        return torch.zeros(*tokens.shape, 64)
def load(path, device):
    return Uniform()
"""
"""The smallest honest model: knows nothing, log2(64) = 6 bits a token."""

PUBLISH = """
from workload.checkpoint import publish
publish(lambda path: path.write_bytes(b"weights"))
"""


@pytest.fixture(scope="session")
def torch_image(engine):
    """The base image of the cpu profile; built when missing, which takes minutes."""
    return stand_in_image.torch_image(engine)


@pytest.fixture(scope="session")
def base_image(engine, pytestconfig):
    """The image of tests that are not about arithmetic: its torch is a stand-in, but with `--full`."""
    if pytestconfig.getoption("--full"):
        return stand_in_image.torch_image(engine)
    return stand_in_image.stand_in_image(engine)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A prepared data set of random tokens, in the layout of `docs/contract.md`."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    meta = {"vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "bos_token": VOCAB_SIZE - 1}
    for split in ("train", "val", "test"):
        folder = root / split
        folder.mkdir()
        (folder / "meta.json").write_text(json.dumps(meta))
    for number in range(2):
        rng.integers(0, VOCAB_SIZE, 2500).astype("<u2").tofile(root / "train" / f"shard-{number:02d}.bin")
    for split in ("val", "test"):
        rows = rng.integers(0, VOCAB_SIZE - 1, (ROWS, CONTEXT + 1)).astype(np.uint16)
        np.save(root / split / "rows.npy", rows)
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


@pytest.fixture(scope="session")
def mounts(tiny_data, locked_folder):
    """What containers see of the tiny data set."""
    train = {path.name: path for path in (tiny_data / "train").iterdir()}
    return Mounts(locked=locked_folder, train=lambda _: train, val=tiny_data / "val", test=tiny_data / "test")


@pytest.fixture(scope="session")
def evaluation(tiny_data):
    """What the judge knows of the tiny data set."""
    return EvaluationRows(
        val_rows=np.load(tiny_data / "val" / "rows.npy"),
        test_rows=np.load(tiny_data / "test" / "rows.npy"),
        token_bytes=np.array([2] * (VOCAB_SIZE - 1) + [0], dtype=np.uint16),
        train_text=np.fromfile(tiny_data / "train" / "shard-00.bin", "<u2"),
    )


@pytest.fixture(scope="session")
def cpu_config():
    """The cpu profile with clocks for tests."""
    overrides = {
        "profile": "cpu", "train_seconds": 3, "score_seconds": 20, "tag": "test",
        "certify": "each", "min_pairs": 1, "max_pairs": 1, "control_interval": 0,
    }  # fmt: skip
    made = settings.load(ROOT, overrides, environ={})
    # Smaller than a person may choose. And no training is repeated because of what else this machine does.
    changes = {"vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "max_disturbance": 1000.0}
    return made.model_copy(update=changes)


@pytest.fixture(scope="session")
def locked_folder(tmp_path_factory):
    """A pinned copy of the locked evaluation."""
    folder, _ = pinned_evaluation.pin(tmp_path_factory.mktemp("state"))
    return folder


@pytest.fixture
def owner(engine):
    """Labels of this test; nothing may be left under them."""
    one = Owner(controller=f"test-{uuid.uuid4().hex}", campaign="test", experiment=1)
    yield one
    left = remove_orphans(engine, one.controller)
    images.remove_images(engine.client, {"controller": one.controller})
    assert left == 0, "a container or volume was left behind"


def build(engine, *, base_image, owner, files):
    """The image of a candidate; what `files` does not hold of its `workload/` is honest and small."""
    tree = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": MODEL, "train.py": PUBLISH, **files}
    return images.build_candidate(
        engine.client,
        base_id=base_image,
        files={f"workload/{name}": text.encode() for name, text in tree.items()},
        labels=owner.facts(),
    ).id


@contextmanager
def open_candidate(engine, *, base_image, config, mounts, owner, files, max_claims_bytes=ROWS * CONTEXT * 4):
    """A session for a candidate: a scorer waits for the end of its training."""
    with open_session(
        engine,
        config=config,
        mounts=mounts,
        image_id=build(engine, base_image=base_image, owner=owner, files=files),
        owner=owner,
        max_claims_bytes=max_claims_bytes,
    ) as opened:
        yield opened


def train_alone(engine, *, base_image, config, mounts, owner, files, seed, **callbacks):
    """Train a candidate that is never scored: no scorer waits. Callbacks are those of `Session.train`."""
    image_id = build(engine, base_image=base_image, owner=owner, files=files)
    volume = create_output_volume(engine, config, owner)
    try:
        return train(
            Sandbox(engine=engine, config=config, locked=mounts.locked, owner=owner),
            Training(image_id=image_id, volume=volume, data=mounts.train(seed), seed=seed),
            Callbacks(**callbacks),
        )
    finally:
        remove_volume(engine.client, volume)


@pytest.fixture
def session(engine, base_image, mounts, cpu_config, owner):
    """Open a session for a candidate: `with session({"train.py": …}) as opened`."""

    def open_one(files, **changes):
        return open_candidate(
            engine,
            base_image=base_image,
            config=cpu_config.model_copy(update=changes),
            mounts=mounts,
            owner=owner,
            files=files,
        )

    return open_one
