"""The workload's own tests, run where the workload runs: in the base image, without network."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from runner import edits
from runner.proposers.replay import read_patch
from runner.proposers.tour import FOLDER
from runner.sandbox.containers import PYTHON

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
PURE_PYTHON = ("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
"""What pytest is made of; the base image has none of it, and needs none of it for candidates."""


def test_the_tests_of_the_workload_pass_in_the_base_image(engine, torch_image, locked_folder, tmp_path):
    site = tmp_path / "site"
    site.mkdir()
    for name in PURE_PYTHON:
        origin = Path(importlib.util.find_spec(name).origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, site)
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "workload", tree / "workload", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tests" / "workload", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    patched = tree / "tests" / "patched"
    patched.mkdir()
    files = {path.relative_to(tree).as_posix(): path.read_bytes() for path in (tree / "workload").rglob("*.py")}
    for patch in (ROOT / FOLDER).glob("*.patch"):
        applied = edits.apply(files, read_patch(patch).edits)
        (patched / f"{patch.stem}.py").write_bytes(applied["workload/model.py"])
    container = engine.client.containers.create(
        torch_image,
        entrypoint=[PYTHON, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "/tree/tests"],
        environment={
            "PYTHONPATH": "/site:/tree:/locked",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/tmp",
            "OMP_NUM_THREADS": "1",
        },
        volumes={
            str(site): {"bind": "/site", "mode": "ro"},
            str(tree): {"bind": "/tree", "mode": "ro"},
            str(locked_folder): {"bind": "/locked", "mode": "ro"},
        },
        tmpfs={"/tmp": "rw,exec,size=256m,mode=1777"},
        network_mode="none",
        user="10001:10001",
        working_dir="/tmp",
        labels={"org.autoresearch.kind": "test"},
    )
    try:
        container.start()
        code = container.wait(timeout=240)["StatusCode"]
        output = container.logs().decode()
    finally:
        container.remove(force=True)
    assert code == 0, output
    assert " passed" in output
    assert "skipped" not in output.splitlines()[-1], output
