"""A campaign whose baseline is measured, to be copied for faults of the engine."""

from __future__ import annotations

import gc
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from runner.sandbox import images, remove_orphans
from runner.storage.ledger import Ledger
from tests.support.constant_workload import make_repository
from tests.support.engine_night import Operator, Site, run
from tests.support.faulty_engine import FaultyEngine
from tests.support.machine import Ground, open_controller
from tests.support.silent_observer import SilentObserver
from tests.support.typed_night import Clone, write_corpus

SETTINGS = {
    "vocab_size": 64, "context_length": 16, "train_seconds": 3.0, "score_seconds": 20.0,
    "baseline_runs": 2, "noise_prior_bpb": 0.001, "audit_discards": 0.0, "max_disturbance": 1000.0,
    "certify": "each", "min_pairs": 1, "max_pairs": 1, "control_interval": 0,
}  # fmt: skip


@pytest.fixture(autouse=True)
def collected():
    """A connection that stays open is an error of the test that left it, not of a later one."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def measured(engine, base_image, tiny_data, locked_folder, tmp_path_factory):
    """A site whose campaign has its baseline: measured once, and copied by the tests that go on from there."""
    one = Site(
        socket=engine.url,
        repository=str(make_repository(tmp_path_factory.mktemp("measured") / "repository")),
        data=str(tiny_data),
        locked=str(locked_folder),
        base_image=base_image,
        settings=SETTINGS,
    )
    with one.opened(Operator()) as controller:
        run(controller, [])
        images.remove_images(controller.evaluator.engine.client, {"controller": controller.ledger.controller})
    return one


def assert_nothing_left(engine, root):
    """Nothing of a repository's controller is left on the engine but images, which go now."""
    with Ledger(Path(root) / ".autoresearch" / "ledger.db") as ledger:
        controller = ledger.controller
    left = remove_orphans(engine, controller)
    images.remove_images(engine.client, {"controller": controller})
    assert left == 0, "a container or volume was left behind"


@pytest.fixture
def site(measured, engine, tmp_path):
    """A copy of it for one test; nothing of it may be left on the engine."""
    repository = shutil.copytree(measured.repository, tmp_path / "repository")
    yield replace(measured, repository=str(repository))
    assert_nothing_left(engine, repository)


@pytest.fixture
def ground(engine, tiny_data, locked_folder, base_image):
    """What the controllers of all tests share."""
    return Ground(engine=engine, data=tiny_data, locked=locked_folder, base_image=base_image)


@pytest.fixture
def short_config(cpu_config):
    """A campaign with the shortest baseline."""
    return cpu_config.model_copy(update={"train_seconds": 3.0, "baseline_runs": 2, "noise_prior_bpb": 0.001})


@pytest.fixture
def controller(engine, ground, short_config, tmp_path):
    """A controller over the tiny data set; nothing is measured yet."""
    root = make_repository(tmp_path / "repository")
    with open_controller(ground, root, short_config, observer=SilentObserver()) as opened:
        yield opened
    assert_nothing_left(engine, root)


@pytest.fixture
def measured_controller(site, ground, short_config):
    """A controller whose campaign has its baseline."""
    with open_controller(ground, Path(site.repository), short_config, observer=SilentObserver()) as opened:
        yield opened


@pytest.fixture
def faulty(engine, tmp_path):
    """A socket in front of the engine of this machine."""
    with FaultyEngine(tmp_path / "faulty.sock", engine.url) as one:
        yield one


@pytest.fixture
def faulty_site(site, faulty):
    """A site whose engine is behind that socket."""
    return replace(site, socket=faulty.url, request_seconds=5.0)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of small texts."""
    return write_corpus(tmp_path_factory.mktemp("typed") / "corpus")


@pytest.fixture(scope="session")
def prepared(corpus, base_image, tmp_path_factory, engine):
    """A clone whose data set is prepared."""
    clone = Clone.make(tmp_path_factory.mktemp("typed") / "clone", corpus, base_image)
    clone("prepare")
    return clone


@pytest.fixture(scope="session")
def with_baseline(prepared, tmp_path_factory, engine):
    """A clone whose baseline is measured."""
    root = shutil.copytree(prepared.root, tmp_path_factory.mktemp("typed") / "clone", symlinks=True)
    clone = replace(prepared, root=root)
    clone("baseline")
    assert_nothing_left(engine, root)
    return clone


def _at_the_end(clone, engine):
    if (clone.state / "ledger.db").exists():
        assert_nothing_left(engine, clone.root)


@pytest.fixture
def fresh_clone(corpus, base_image, engine, tmp_path):
    """A clone in which nothing was typed yet."""
    clone = Clone.make(tmp_path / "clone", corpus, base_image)
    yield clone
    _at_the_end(clone, engine)


@pytest.fixture
def clone(prepared, fresh_clone):
    """A clone whose data set is prepared."""
    shutil.copytree(prepared.state / "data", fresh_clone.state / "data")
    return fresh_clone


@pytest.fixture
def torch_clone(clone, torch_image):
    """The same with the command itself, on the real torch."""
    return replace(clone, image_id=None)


@pytest.fixture
def measured_clone(with_baseline, engine, tmp_path):
    """A clone whose baseline is measured."""
    clone = replace(with_baseline, root=shutil.copytree(with_baseline.root, tmp_path / "clone", symlinks=True))
    yield clone
    _at_the_end(clone, engine)
