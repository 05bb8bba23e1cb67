"""A campaign whose baseline is measured, to be copied for faults of the engine."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from runner.sandbox import images, remove_orphans
from runner.storage.ledger import Ledger
from tests.support.engine_night import Operator, Site, make_repository, run
from tests.support.faulty_engine import FaultyEngine


@pytest.fixture(scope="session")
def measured(engine, base_image, tiny_data, locked_folder, tmp_path_factory):
    """A site whose campaign has its baseline."""
    one = Site(
        socket=engine.url,
        repository=str(make_repository(tmp_path_factory.mktemp("measured") / "repository")),
        data=str(tiny_data),
        locked=str(locked_folder),
        base_image=base_image,
        settings={
            "vocab_size": 64, "context_length": 16, "train_seconds": 3.0, "score_seconds": 20.0,
            "baseline_runs": 2, "noise_prior_bpb": 0.001, "audit_discards": 0.0, "max_disturbance": 1000.0,
            "min_trials": 1, "max_trials": 1, "control_interval": 0, "stack_sigmas": 0,
        },
    )  # fmt: skip
    with one.laboratory(Operator()) as lab:
        run(lab, [])
        images.remove_images(lab.engine.client, {"controller": lab.ledger.controller})
    return one


@pytest.fixture
def site(measured, engine, tmp_path):
    """A copy of it for one test; nothing of it may be left on the engine."""
    repository = shutil.copytree(measured.repository, tmp_path / "repository")
    yield replace(measured, repository=str(repository))
    with Ledger(Path(repository) / ".autoresearch" / "ledger.db") as ledger:
        controller = ledger.controller
    left = remove_orphans(engine, controller)
    images.remove_images(engine.client, {"controller": controller})
    assert left == 0, "a container or volume was left behind"


@pytest.fixture
def faulty(engine, tmp_path):
    """A socket in front of the engine of this machine."""
    with FaultyEngine(tmp_path / "faulty.sock", engine.url) as one:
        yield one


@pytest.fixture
def faulty_site(site, faulty):
    """A site whose engine is behind that socket."""
    return replace(site, socket=faulty.url, request_seconds=5.0)
