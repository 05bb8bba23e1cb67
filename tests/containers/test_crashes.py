"""The controller dies around a container: the next start finds it by its label, removes it, and goes on."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import killed_night
import pytest
import test_campaign

from runner.crash_points import Side, Step
from runner.ledger import Ledger
from runner.records import RunEnd, Verdict
from runner.repo import Repository
from runner.sandbox import remove_orphans

pytestmark = pytest.mark.docker

POINTS = {
    "a volume is there, and nobody knows its name": (Step.VOLUME_CREATED, Side.AFTER, 1),
    "a container is there, and nobody knows its id": (Step.CONTAINER_CREATED, Side.AFTER, 2),
    "a training runs": (Step.CONTAINER_STARTED, Side.AFTER, 2),
    "the auditors wait for the word": (Step.CONTAINER_STARTED, Side.AFTER, 4),
    "everything is measured, the volume stays": (Step.VOLUME_REMOVED, Side.BEFORE, 1),
}


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
    root = tmp_path_factory.mktemp("night") / "repository"
    (root / "workload").mkdir(parents=True)
    texts = {"__init__.py": "", "model.py": test_campaign.MODEL, "train.py": test_campaign.TRAIN}
    for name, text in texts.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    (root / ".gitignore").write_text("/.autoresearch/\n")
    for command in (
        ["init", "-q", "-b", "main", "."],
        ["add", "-A"],
        ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    assert night(root, "baseline") == 0
    yield root
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        remove_orphans(engine, ledger.controller)


def ours(engine, controller):
    """Containers and volumes of a controller."""
    label = {"label": f"org.autoresearch.controller={controller}"}
    volumes = engine.client.api.volumes(filters=label).get("Volumes") or []
    return engine.client.api.containers(all=True, filters=label) + volumes


@pytest.mark.parametrize(("step", "side", "occurrence"), POINTS.values(), ids=POINTS.keys())
def test_what_a_dead_controller_left_is_found_and_its_night_goes_on(
    night, after_baseline, engine, tmp_path, step, side, occurrence
):
    root = tmp_path / "repository"
    shutil.copytree(after_baseline, root)
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        controller = ledger.controller
    assert ours(engine, controller) == []
    for _ in range(2):
        assert night(root, step, side, occurrence) == -9
        assert ours(engine, controller), "the dead one left something, or the test proves nothing"
    assert night(root) == 0
    assert ours(engine, controller) == []
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        baseline, one = ledger.experiments(killed_night.TAG)
    assert (baseline.verdict, one.verdict) == (Verdict.KEEP, Verdict.KEEP)
    assert one.kept_commit == Repository(root).branch_head(f"autoresearch/{killed_night.TAG}")
    assert RunEnd.LOST in {run.end for run in one.runs} or step is Step.VOLUME_CREATED or side is Side.BEFORE
    assert list((Path(root) / ".autoresearch" / "audits").glob("*")) == []
