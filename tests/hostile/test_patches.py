"""Hostile edits: refused by name, and by the next wall without the first one; odd ones arrive unchanged."""

from __future__ import annotations

import hashlib
import json

import pytest

from runner import edits
from runner.errors import ImageError, RepositoryError
from runner.records import RunEnd, Write
from runner.sandbox import images
from tests.hostile.estate import DATE
from tests.hostile.patches import ODDITIES, TRICKS
from tests.support.publishing import CHECKPOINT
from tests.support.tiny_candidates import MODEL, PUBLISH

pytestmark = pytest.mark.docker

CHAMPION = {
    "workload/__init__.py": b"",
    "workload/checkpoint.py": CHECKPOINT.encode(),
    "workload/model.py": MODEL.encode(),
    "workload/train.py": PUBLISH.encode(),
}


@pytest.fixture(scope="module")
def stage(estate):
    """Write a tree into the estate's repository; forget it afterwards."""
    repository = estate.repository()
    refs = []

    def one(files):
        ref = f"refs/autoresearch/tried/hostile/{len(refs)}"
        staged = repository.stage(parent=repository.resolve("HEAD"), files=files, message="m", ref=ref, when=DATE)
        refs.append(ref)
        return repository, staged

    yield one
    for ref in refs:
        estate.git("update-ref", "-d", ref)


@pytest.mark.parametrize("trick", TRICKS, ids=[trick.name for trick in TRICKS])
def test_a_tricky_edit_is_refused_and_nothing_is_written(estate, trick):
    before = estate.state()
    outcome = edits.apply(CHAMPION, trick.edits)
    assert isinstance(outcome, edits.Refusal), "accepted"
    assert trick.reason in outcome.reason
    assert len(outcome.reason) < 500 and outcome.reason.isprintable(), "a reason goes to terminals and prompts"
    assert before.changes(estate.state()) == []


SECOND_WALL = [
    "workload/../x.py",
    "/etc/cron.d/x",
    ".git/hooks/post-commit",
    "locked_eval/judging/judge.py",
    "workload/",
]


@pytest.mark.parametrize("path", [*SECOND_WALL, "workload/.git/config", "workload/.GIT/config", "workload/a\nb"])
def test_git_refuses_what_the_edits_let_through(stage, unharmed, path):
    with unharmed(), pytest.raises(RepositoryError):
        stage({**CHAMPION, path: b"x"})


@pytest.mark.parametrize("path", [*SECOND_WALL, "workload/.wh.model.py", "workload/a\0b"])
def test_an_image_refuses_what_the_edits_let_through(unharmed, path):
    with unharmed(), pytest.raises(ImageError):
        images.layer_tar({**CHAMPION, path: b"x"})


def test_names_that_are_options_are_names_for_git_and_the_builder(stage, engine, base_image, estate):
    """Past `edits`, which refuses them: neither the one nor the other takes a name for an option."""
    files = {**CHAMPION, "workload/--upload-pack=sh": b"1", "workload/-c": b"2", "workload/$(reboot)": b"3"}
    repository, staged = stage(files)
    assert repository.read_workload(staged.commit) == files
    built = images.build_candidate(
        engine.client, base_id=base_image, files=files, labels={"controller": estate.controller}
    )
    images.remove_images(engine.client, {"controller": estate.controller})
    assert built.layers[-1] == built.layer_digest


def test_no_hook_and_no_filter_of_the_project_runs(stage, estate):
    tripped = estate.project.parent / "tripped"
    repository, staged = stage({**CHAMPION, "workload/extra.txt": b"x"})
    repository.read_workload(staged.commit)
    repository.advance("autoresearch/hooks", staged.commit, None)
    ran = tripped.exists()
    estate.git("update-ref", "-d", "refs/heads/autoresearch/hooks", hooks=True)
    assert tripped.exists(), "the hooks are no trap: they do not run when the owner uses git"
    tripped.unlink()
    assert not ran


READ = """
import hashlib, json, os
from pathlib import Path
root = Path("/candidate")
below = sorted(root.rglob("*"))
names = {str(path.relative_to(root)): path for path in below if path.is_file()}
files = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in names.items()}
odd = [str(path) for path in below if path.is_symlink() or path.stat().st_uid or path.stat().st_mode & 0o22]
print(json.dumps({"files": files, "odd": odd}))
print(os.path.exists("/ran"), os.environ.get("LD_PRELOAD"))
"""


def test_odd_files_arrive_as_they_were_written_and_nothing_of_them_runs(attack, stage):
    """A Dockerfile, a setup.py, a torch.py, …: from the edit through git and the builder into the container."""
    champion = {**CHAMPION, "workload/train.py": READ.encode()}
    tree = edits.apply(champion, [Write(path=oddity.path, content=oddity.content) for oddity in ODDITIES])
    assert not isinstance(tree, edits.Refusal), tree.reason
    repository, staged = stage(tree)
    stored = repository.read_workload(staged.commit)
    assert stored == tree
    made = attack(
        {path.removeprefix("workload/"): content.decode() for path, content in stored.items()}, train_seconds=30.0
    )
    assert made.trained.end is RunEnd.FINISHED, made.trained.log_tail
    first, second = made.trained.log_tail.splitlines()
    report = json.loads(first)
    assert report["files"] == {path: hashlib.sha256(content).hexdigest() for path, content in tree.items()}
    assert report["odd"] == []
    assert second == "False None"
