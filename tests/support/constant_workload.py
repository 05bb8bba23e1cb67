"""A user's repository whose model is one number: how likely token 0 is. Real containers train it in no time."""

from __future__ import annotations

import subprocess
from pathlib import Path

from runner.records import Proposal, Replace
from tests.support.publishing import CHECKPOINT

MODEL = """\
import time

import torch

PAUSE = 0.0


class Constant(torch.nn.Module):
    \"\"\"Knows how likely token 0 is, and nothing else.\"\"\"

    def __init__(self, boost):
        super().__init__()
        self.boost = boost

    def forward(self, tokens):  # (B, T) -> (B, T, V)
        time.sleep(PAUSE)
        logits = torch.zeros(*tokens.shape, 64)
        logits[..., 0] = self.boost
        return logits


def load(path, device):
    return Constant(float(path.read_text()))
"""
TRAIN = """\
import os
import random
import time

from workload.checkpoint import publish

BOOST = 1.0  # logit of token 0
SLEEP = 0.0

random.seed(int(os.environ["SEED"]))
publish(lambda path: path.write_text(str(BOOST + random.gauss(0, 0.001))))
time.sleep(SLEEP)
"""


def git(root: Path, *arguments: str) -> str:
    """One git command of the user's."""
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def make_repository(root: Path, *, model: str = MODEL, train: str = TRAIN) -> Path:
    """A user's repository with a tiny workload."""
    for path, content in workload_files(model=model, train=train).items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    (root / "program.md").write_text("Lower is better.\n")
    (root / ".gitignore").write_text("/.autoresearch/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "user")
    git(root, "config", "user.email", "user@example.org")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "start")
    return root


def workload_files(*, model: str = MODEL, train: str = TRAIN) -> dict[str, bytes]:
    """The same as a candidate's files."""
    texts = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": model, "train.py": train}
    return {f"workload/{name}": text.encode() for name, text in texts.items()}


def boost(value: float, *, before: float = 1.0, sleep: float = 0.0, pause: float = 0.0) -> Proposal:
    """A better or worse constant (the best one is near 0) that trains or answers for a while."""
    edits = [Replace(path="workload/train.py", old=f"BOOST = {before}", new=f"BOOST = {value}")]
    if sleep:
        edits.append(Replace(path="workload/train.py", old="SLEEP = 0.0", new=f"SLEEP = {sleep}"))
    if pause:
        edits.append(Replace(path="workload/model.py", old="PAUSE = 0.0", new=f"PAUSE = {pause}"))
    return Proposal(hypothesis=f"boost {value}", edits=tuple(edits), proposer="scripted")
