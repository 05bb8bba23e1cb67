"""A single-file trainer becomes a workload; what breaks the contract is found with its line."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from runner.cli import cli
from runner.edits import Refusal
from runner.edits.adoption import adopt
from runner.edits.contract import breaches
from tests.support.constant_workload import make_repository, workload_files

ROOT = Path(__file__).resolve().parents[3]
BEFORE = (ROOT / "examples/adopt/before/train.py").read_text("utf-8")
AFTER = {name: (ROOT / f"examples/adopt/after/{name}.py").read_text("utf-8") for name in ("model", "train")}
HELPERS = {
    f"workload/{name}.py": (ROOT / f"workload/{name}.py").read_bytes() for name in ("__init__", "checkpoint")
}
MOST_LINES = 40


def tree(**files):
    """A workload with these files besides those that every adopted program keeps."""
    return HELPERS | {f"workload/{name}.py": text.encode() for name, text in files.items()}


def adopted(source=BEFORE):
    found = adopt(source, "train.py")
    assert not isinstance(found, Refusal), found.reason
    return found


def test_definitions_go_to_the_model_and_what_runs_to_the_training():
    found = adopted()
    compile(found.model, "model.py", "exec")
    compile(found.train, "train.py", "exec")
    assert "class TinyGPT" in found.model and "manual_seed" not in found.model
    assert found.train.splitlines()[0] == "import math"
    assert "from workload.model import" in found.train and "class" not in found.train
    moved = [line for line in BEFORE.splitlines() if line not in (found.model + found.train).splitlines()]
    assert moved == [], "no line is rewritten"
    assert "model = TinyGPT()\n" in found.model.partition("def load(path, device):")[2]


def test_the_places_that_must_change_are_named():
    found = adopted()
    problems = breaches(tree(model=found.model, train=found.train))
    named = {problem.sentence.partition(" ")[0]: problem.place for problem in problems}
    text = {"workload/model.py": found.model.splitlines(), "workload/train.py": found.train.splitlines()}
    lines = {}
    for variable, place in named.items():
        path, _, line = place.partition(":")
        lines[variable] = text[path][int(line) - 1].strip()
    assert lines == {
        "DATA_DIR": 'self.data = np.memmap(path, dtype=np.uint16, mode="r")',
        "SEED": "torch.manual_seed(1337)",
        "DEADLINE_SECONDS": "while True:",
        "nothing": 'torch.save(model.state_dict(), "model.pt")',
    }


def test_the_port_of_the_guide_keeps_the_contract_and_changes_few_lines():
    assert breaches(tree(**AFTER)) == []
    changes = difflib.ndiff(BEFORE.splitlines(), (AFTER["model"] + AFTER["train"]).splitlines())
    new = [line for line in changes if line.startswith("+ ") and line[2:].strip()]
    assert len(new) <= MOST_LINES
    said = re.search(
        r"steps: (\d+) of its \d+ lines are new or different", (ROOT / "docs/adopt.md").read_text("utf-8")
    )
    assert int(said[1]) == len(new)


def test_our_own_workload_keeps_the_contract():
    files = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in (ROOT / "workload").rglob("*.py")}
    assert breaches(files) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import tiktoken\n" + BEFORE,
            "train.py:1: it imports tiktoken, and a program with a tokenizer",
        ),
        ("class BytePairTokenizer:\n    pass\n" + BEFORE, "train.py:1: it defines BytePairTokenizer"),
        ("x = 1\n", "only defines things"),
        ("print('hello')\n", "no subclass of torch.nn.Module"),
        ("print('first')\n" + BEFORE, "the class TinyGPT is defined below line 1"),
        ("def broken(:\n", "is not Python that can be read"),
    ],
)
def test_what_cannot_be_adopted_is_refused_with_the_reason(source, words):
    found = adopt(source, "train.py")
    assert isinstance(found, Refusal)
    assert words in found.reason


@pytest.mark.parametrize(
    ("file", "old", "new", "place", "words"),
    [
        ("model", "def load(path, device):", "def make(path, device):", "workload/model.py", "no function load"),
        ("model", "def load(path, device):", "def load(path):", "workload/model.py", "1 positional arguments"),
        ("train", "import torch\n", "import torch\nimport wandb\n", "workload/train.py:6", "imports wandb"),
        ("model", "import os\n", "import os\nimport sentencepiece\n", "workload/model.py:4", "sentencepiece"),
        ("train", 'os.environ["SEED"]', '"1337"', "workload/train.py", "SEED is never read"),
        ("train", "publish(lambda", "print(lambda", "workload/train.py", "nothing is published"),
    ],
)
def test_a_breach_is_found_with_its_place(file, old, new, place, words):
    assert AFTER[file].count(old) == 1
    (found,) = breaches(tree(**AFTER | {file: AFTER[file].replace(old, new)}))
    assert found.place.startswith(place)
    assert words in found.sentence and found.remedy


def test_the_command_writes_the_workload_and_refuses_to_lose_changes(tmp_path, monkeypatch):
    root = make_repository(tmp_path / "repository")
    trainer = tmp_path / "trainer.py"
    trainer.write_text(BEFORE)
    monkeypatch.chdir(root)
    (root / "workload" / "model.py").write_text("# not committed\n")
    assert CliRunner().invoke(cli, ["adopt", str(trainer)]).exit_code == 1
    (root / "workload" / "model.py").write_bytes(workload_files()["workload/model.py"])
    done = CliRunner().invoke(cli, ["adopt", str(trainer)])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (root / "workload").iterdir()} == {
        "__init__.py", "checkpoint.py", "model.py", "train.py",
    }  # fmt: skip
    assert done.output.count("✗ workload/") == 4
    checked = CliRunner().invoke(cli, ["check-workload"])
    assert checked.exit_code == 1 and checked.output.count("✗ workload/") == 4, "no engine is needed for these"
