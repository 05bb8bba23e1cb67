"""A user's clone, the commands that are typed in it, and what a test reads of it afterwards.

Its model is a unigram table: a night of it takes seconds, on a corpus that is prepared like every other one.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import docker

from runner.storage.ledger import Ledger
from tests.support.publishing import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]
COMMAND = Path(__file__).with_name("typed_command.py")
START_SECONDS = 240
"""Longest wait for what comes within seconds on a quiet machine."""

MODEL = """\
import json

import torch


class Unigram(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, tokens):  # (B, T) -> (B, T, V)
        return self.logits.expand(*tokens.shape, -1)


def load(path, device):
    return Unigram(torch.tensor(json.loads(path.read_text()))).to(device)
"""
TRAIN = """\
import json
import os
import time
from pathlib import Path

import numpy as np

from workload.checkpoint import publish

SMOOTHING = 300.0  # counts added to every token
PAUSE_SECONDS = 0.5  # stands for the time that training takes

data = Path(os.environ["DATA_DIR"])
size = json.loads((data / "meta.json").read_text())["vocab_size"]
tokens = np.concatenate([np.fromfile(path, "<u2") for path in sorted(data.glob("shard-*.bin"))])
counts = np.bincount(tokens, minlength=size) + SMOOTHING
jitter = 1 + 1e-6 * (int(os.environ["SEED"]) % 1000)
logits = np.log(counts * jitter / counts.sum()).tolist()
print("step 1 loss 5.0 tokens/s 1000", flush=True)
time.sleep(PAUSE_SECONDS)
publish(lambda path: path.write_text(json.dumps(logits)))
"""
OURS = ("ANTHROPIC_", "AUTORESEARCH_")
SETTINGS = {
    "PROFILE": "cpu",
    "VOCAB_SIZE": "512",
    "CONTEXT_LENGTH": "64",
    "TRAIN_SECONDS": "5",
    "BASELINE_RUNS": "2",
    "CERTIFY": "each",
    "MIN_PAIRS": "1",
    "MAX_PAIRS": "1",
    "CONTROL_INTERVAL": "0",
    "NOISE_PRIOR_BPB": "0.0005",
    "MAX_DISTURBANCE": "1",  # tests share their core
}


def write_corpus(folder):
    """200 documents of random words: no two share 13 of them."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    folder.mkdir()
    for number in range(200):
        text = " ".join(rng.choices(words, weights=[1 / (rank + 1) for rank in range(3000)], k=900))
        (folder / f"{number:03d}.txt").write_text(text)
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def write_patches(folder):
    """One that helps, one that harms."""
    folder.mkdir()
    for name, value in (("1-less.patch", "1.0"), ("2-more.patch", "90000.0")):
        before = "300.0" if name.startswith("1") else "1.0"
        (folder / name).write_text(
            f"Smoothing {value}\n\n--- a/workload/train.py\n+++ b/workload/train.py\n@@ -10 +10 @@\n"
            f"-SMOOTHING = {before}  # counts added to every token\n"
            f"+SMOOTHING = {value}  # counts added to every token\n"
        )
    return str(folder)


@dataclass(frozen=True)
class Clone:
    """A user's repository. `clone("status", "--json")` types a command in it and waits for its end."""

    root: Path
    corpus: Path
    image_id: str | None  # None: the command itself, on the real torch
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def make(cls, root, corpus, image_id):
        """A repository with the tiny workload, and nothing of ours in it yet."""
        (root / "workload").mkdir(parents=True)
        tree = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": MODEL, "train.py": TRAIN}
        for name, text in tree.items():
            (root / "workload" / name).write_text(text)
        (root / "program.md").write_text("Lower is better.\n")
        (root / ".gitignore").write_text("/.autoresearch/\n")
        subprocess.run(["git", "init", "-q", "-b", "main", "."], cwd=root, check=True)
        environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("ANTHROPIC_", "AUTORES"))
            },
            **{f"AUTORESEARCH_{name}": value for name, value in SETTINGS.items()},
            "AUTORESEARCH_SOURCE": str(corpus),
            "PYTHONPATH": str(ROOT),
        }
        clone = cls(root, corpus, image_id, environment)
        clone.commit("start")
        return clone

    def commit(self, message):
        """A commit of the user's."""
        user = ["-c", "user.name=u", "-c", "user.email=u@example.org"]
        subprocess.run(["git", "add", "-A"], cwd=self.root, check=True)
        subprocess.run(["git", *user, "commit", "-qm", message], cwd=self.root, check=True)

    @property
    def state(self):
        """Everything of ours."""
        return self.root / ".autoresearch"

    def command(self, *arguments):
        """The command line of a command."""
        program = ["-m", "runner"] if self.image_id is None else [str(COMMAND), self.image_id]
        return [sys.executable, *program, *arguments]

    def __call__(self, *arguments, check=True, **extra):
        return subprocess.run(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **extra},
            capture_output=True,
            text=True,
            check=check,
            timeout=280,
        )

    def start(self, *arguments, **extra):
        """Start a command without waiting for it."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.root,
            env={**self.environment, **extra},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @contextlib.contextmanager
    def ledger(self):
        """The ledger, as it is now."""
        with Ledger(self.state / "ledger.db") as ledger:
            yield ledger

    def experiments(self):
        """Every experiment so far."""
        with self.ledger() as ledger:
            return ledger.experiments("night")

    def containers(self, engine):
        """Containers of this clone's controller."""
        if not (self.state / "ledger.db").exists():
            return []
        with self.ledger() as ledger:
            label = f"org.autoresearch.controller={ledger.controller}"
        return engine.client.api.containers(all=True, filters={"label": label})

    def wait_for_open_trial(self, experiment, process):
        """Wait until the ledger says that a trial of this experiment runs."""

        def opened():
            if not (self.state / "ledger.db").exists():
                return None
            with self.ledger() as ledger:
                wanted = "SELECT 1 FROM trials WHERE experiment = ? AND outcome IS NULL"
                return ledger.database.read(wanted, experiment)

        _await(opened, process, f"experiment {experiment} never started")

    def wait_for_training(self, engine, process):
        """Wait until a candidate's clock runs; returns its container."""

        def training():
            for one in self.containers(engine):
                with contextlib.suppress(docker.errors.APIError):
                    if b'"started"' in engine.client.api.logs(one["Id"], stdout=False):
                        return one["Id"]
            return None

        return _await(training, process, "nothing trained")


def _await(found, process, otherwise):
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        if answer := found():
            return answer
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"{otherwise}: {process.communicate()}")
