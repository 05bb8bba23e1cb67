"""The installed package: built as a user gets it, it holds every file that it needs outside of the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

FACTS = """
import json
from pathlib import Path
import runner
from locked_eval import manifest
from runner.config import load
from runner.sandbox.images.base import IMAGES_DIR, base_inputs
print(json.dumps({
    "package": str(Path(runner.__file__).parent),
    "images": str(IMAGES_DIR),
    "inputs": [base_inputs(kind) for kind in ("cpu", "cuda", "prepare")],
    "profiles": [load(Path("/nowhere"), {"profile": one}, environ={}).profile for one in ("cpu", "cuda")],
    "changes": manifest.differences(Path(manifest.__file__).parent),
}))
"""


def run(*command, cwd, check=True, **variables):
    environment = {**os.environ, **variables}
    answer = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert not check or answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel from a source distribution of this repository."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=ROOT)
    (archive,) = folder.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", str(folder), str(archive), cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run Python with the installed wheel in an empty folder: `installed("-m", "runner", …)`."""
    target, empty = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("empty")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(target))
    run(*pip, str(wheel), cwd=empty)

    def call(*arguments, **options):
        # -P: neither this folder nor the repository comes before the installed package.
        return run(sys.executable, "-P", *arguments, cwd=empty, PYTHONPATH=str(target), **options)

    call.target = target
    return call


def test_a_wheel_of_a_checkout_holds_the_same_files_as_one_of_a_source_distribution(wheel, tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=ROOT)
    (other,) = tmp_path.glob("*.whl")
    assert zipfile.ZipFile(other).namelist() == zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_everything_that_is_not_python(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, packaged in (("images", "runner/sandbox/images/files"), ("runner/profiles", "runner/profiles")):
        assert {f"{packaged}/{path.name}" for path in (ROOT / folder).iterdir()} <= names
    assert "locked_eval/manifest.json" in names
    assert not {name.partition("/")[0] for name in names} & {"tests", "images", "workload", "bench", "docs"}


def test_the_wheel_holds_every_module_of_its_packages(wheel):
    modules = {
        str(path.relative_to(ROOT)) for name in ("runner", "locked_eval") for path in (ROOT / name).rglob("*.py")
    }
    assert modules <= set(zipfile.ZipFile(wheel).namelist())


def test_the_installed_package_finds_its_files_and_not_those_of_the_repository(installed):
    from runner.sandbox.images.base import base_inputs

    facts = json.loads(installed("-c", FACTS))
    assert facts["package"] == str(installed.target / "runner")
    assert facts["images"] == str(installed.target / "runner" / "sandbox" / "images" / "files")
    assert facts["inputs"] == [base_inputs(kind) for kind in ("cpu", "cuda", "prepare")]
    assert facts["profiles"] == ["cpu", "cuda"]
    assert facts["changes"] == [], "the locked evaluation matches its manifest"


def test_the_installed_commands_run_outside_of_the_repository(installed):
    assert "overnight" in installed("-m", "runner", "--help")
    findings = installed("-m", "runner", "doctor", "--json", check=False, DOCKER_HOST="unix:///nowhere.sock")
    found = {one["name"]: one for one in map(json.loads, findings.splitlines())}
    assert found["locked-evaluation"]["level"] == "ok"
    assert found["torch-version"]["level"] == "ok", "read from a lock in images/"
