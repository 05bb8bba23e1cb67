"""Programs that containers start as scripts: they find `locked_eval`, and their own folders shadow no module."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from locked_eval import manifest

CONTAINER = manifest.FOLDER / "container"
PREPARE = manifest.FOLDER / "preparation" / "prepare.py"

LOADED = """
import json, runpy, sys
path, name = sys.argv[1], sys.argv[2]
before = set(sys.modules)
runpy.run_path(path, run_name=name)
files = {one: getattr(sys.modules[one], "__file__", None) for one in set(sys.modules) - before}
print(json.dumps({"path": sys.path, "files": files}))
"""


@pytest.fixture
def copy(tmp_path):
    """The locked evaluation as containers see it: alone in a folder, without bytecode."""
    root = tmp_path / "locked" / "locked_eval"
    shutil.copytree(manifest.FOLDER, root, ignore=shutil.ignore_patterns(manifest.BYTECODE_FOLDER))
    return root


def python(*arguments, cwd):
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_module_has_the_name_of_one_of_the_standard_library():
    names = {path.stem for path in manifest.FOLDER.rglob("*.py")} | {"container", "judging", "preparation"}
    assert not names & sys.stdlib_module_names


def test_pid_1_loads_the_standard_library_and_its_own_modules_alone(copy, tmp_path):
    told = json.loads(python("-I", "-S", "-c", LOADED, copy / "container" / "supervisor.py", "pid1", cwd=tmp_path))
    assert told["path"][0] == str(copy.parent)
    assert str(copy / "container") not in told["path"]
    own = {name for name, file in told["files"].items() if file and Path(file).is_relative_to(copy)}
    assert own == {
        "locked_eval",
        "locked_eval.container",
        "locked_eval.container.cgroup",
        "locked_eval.container.handover",
        "locked_eval.container.throttle",
    }
    assert {name.partition(".")[0] for name in told["files"].keys() - own} <= sys.stdlib_module_names


def test_pid_1_parses_its_command_line_without_site_packages(copy, tmp_path):
    assert "--linger" in python("-I", "-S", copy / "container" / "supervisor.py", "--help", cwd=tmp_path)


@pytest.mark.parametrize("flags", [["-I"], []], ids=["isolated", "not isolated"])
def test_the_preparation_starts_as_a_script_and_its_folder_leaves_the_path(copy, tmp_path, flags):
    program = copy / "preparation" / "prepare.py"
    spy = "import sys, atexit; atexit.register(lambda: print(sys.path))\n"
    program.write_text(program.read_text().replace("import os\n", f"import os\n{spy}", 1))
    pytest.importorskip("numpy")
    path = python(*flags, program, "--help", cwd=tmp_path).splitlines()[-1]
    assert repr(str(copy.parent)) in path
    assert repr(str(copy / "preparation")) not in path


def test_the_launcher_is_started_isolated_so_that_its_folder_is_not_on_the_path(copy, tmp_path):
    launcher = copy / "container" / "launcher.py"
    launcher.write_text(launcher.read_text().replace("    main()\n", "    print(sys.path, LOCKED_ROOT)\n"))
    path = python("-I", "-u", launcher, cwd=tmp_path)
    assert str(copy / "container") not in path
    assert path.rstrip().endswith(str(copy.parent))
    supervisor = (CONTAINER / "supervisor.py").read_text()
    assert '[sys.executable, "-I", "-u", str(launcher)' in supervisor


def test_a_program_does_not_change_the_path_of_those_that_import_it(tmp_path):
    code = """
import sys
before = list(sys.path)
import locked_eval.container.supervisor, locked_eval.preparation.prepare
print(before == sys.path)
"""
    assert python("-c", code, cwd=manifest.FOLDER.parent).strip() == "True"
