"""The controller dies around a container: the next start finds it by its label, removes it, and goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from runner.decision.history import champion_claims
from runner.failpoints import Side, Step
from runner.records import Outcome, Verdict
from runner.sandbox import images, remove_orphans
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from runner.storage.sealed import SealedScores
from tests.support import killed_night
from tests.support.constant_workload import make_repository
from tests.support.failpoint_nights import DOCKER

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

CHAIN = (
    (Step.VOLUME_CREATED, Side.BEFORE, 1, 0),
    (Step.VOLUME_CREATED, Side.AFTER, 1, 1),  # its name is not recorded
    (Step.CONTAINER_CREATED, Side.BEFORE, 2, 2),  # the volume and the scorer
    (Step.CONTAINER_CREATED, Side.AFTER, 2, 3),  # its id is not recorded
    (Step.CONTAINER_STARTED, Side.BEFORE, 1, 2),
    (Step.CONTAINER_STARTED, Side.AFTER, 2, 3),  # it goes on to train
    # The first things that are removed from here on are what the one before left: killed in the recovery itself.
    (Step.CONTAINER_REMOVED, Side.BEFORE, 1, 3),
    (Step.CONTAINER_REMOVED, Side.AFTER, 1, 2),
    (Step.VOLUME_REMOVED, Side.BEFORE, 1, 1),
    (Step.VOLUME_REMOVED, Side.AFTER, 1, 0),
    # And from here on they are what the training and the audit have done with.
    (Step.CONTAINER_REMOVED, Side.BEFORE, 1, 3),  # trained, and the ledger does not know it
    (Step.CONTAINER_STARTED, Side.AFTER, 4, 4),  # the auditors wait for the start signal
    (Step.VOLUME_REMOVED, Side.BEFORE, 2, 1),  # everything is measured; the first one was the recovery's
)
"""Where each start of one night dies, and how many containers and volumes that leaves."""


@pytest.fixture(scope="module")
def night(tiny_data, locked_folder, base_image):
    """Run the night of a folder; returns its exit code."""

    def one(root, *arguments):
        command = [sys.executable, killed_night.__file__, root, tiny_data, locked_folder, base_image, *arguments]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode

    return one


@pytest.fixture(scope="module")
def after_baseline(night, engine, tmp_path_factory):
    """A repository whose baseline is measured."""
    root = make_repository(tmp_path_factory.mktemp("night") / "repository")
    assert night(root, "baseline") == 0
    yield root
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        remove_orphans(engine, ledger.controller)
        images.remove_images(engine.client, {"controller": ledger.controller})


def ours(engine, controller):
    """Containers and volumes of a controller."""
    label = {"label": f"org.autoresearch.controller={controller}"}
    volumes = engine.client.api.volumes(filters=label).get("Volumes") or []
    return engine.client.api.containers(all=True, filters=label) + volumes


def test_every_step_around_a_container_is_in_the_chain():
    assert {(step, side) for step, side, *_ in CHAIN} == {(step, side) for step in DOCKER for side in Side}


@pytest.mark.timeout(600)
def test_a_night_that_dies_at_every_step_around_a_container_ends_as_if_it_never_had(
    night, after_baseline, engine, tmp_path
):
    """Each start is the recovery of the one before, and dies in it or further on."""
    whole, root = tmp_path / "whole", tmp_path / "repository"
    for copy in (whole, root):
        shutil.copytree(after_baseline, copy)
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        controller = ledger.controller
    assert ours(engine, controller) == []
    for step, side, occurrence, left in CHAIN:
        assert night(root, step, side, occurrence) == -9
        assert len(ours(engine, controller)) == left, (step, side, ours(engine, controller))
    assert night(root) == 0
    assert ours(engine, controller) == []
    assert night(whole) == 0

    (_, idea, one), sealed = told(root)
    (_, other_idea, other), other_sealed = told(whole)
    assert (one.verdict, one.number, one.diff) == (other.verdict, other.number, other.diff)
    assert (idea.verdict, one.verdict) == (Verdict.ACCEPT, Verdict.KEEP), "an idea, and its certificate"
    assert one.val_bpb == pytest.approx(other.val_bpb, abs=1e-4)  # the audits' draws differ
    assert one.layer_digest == other.layer_digest
    assert sealed == pytest.approx(other_sealed)
    assert champion_claims(one) == champion_claims(other), "bit by bit"
    assert Outcome.LOST in {trial.outcome for trial in (*idea.trials, *one.trials)}
    assert Outcome.LOST not in {trial.outcome for trial in (*other_idea.trials, *other.trials)}
    repository = Repository(root)
    assert one.kept_commit == repository.branch_head(f"autoresearch/{killed_night.TAG}")
    assert len(repository.refs("refs/autoresearch/tried")) == 3
    assert list((root / ".autoresearch" / "audits").glob("*")) == []


def told(root):
    """What the ledger has of a night."""
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        return ledger.experiments(killed_night.TAG), [
            one.test_bpb for one in SealedScores(ledger.database).of(killed_night.TAG)
        ]
