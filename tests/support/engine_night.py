"""A whole laboratory on a tiny workload at any engine's socket, in this process or in one of its own.

    python tests/support/engine_night.py SITE.json SLEEP VALUES...

runs one experiment for each value and says on stdout what it does, one JSON list a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import structlog

from locked_eval.preparation.index import IndexBuilder
from runner import config as settings
from runner.campaign import night
from runner.corpus.redaction import Redactor
from runner.edits.contamination import SealedText
from runner.evaluation.audit import Evaluation
from runner.evaluation.trial import Laboratory
from runner.records import Experiment, Proposal, Replace
from runner.sandbox import Engine, connect, remove_orphans
from runner.sandbox.session import Mounts
from runner.storage.ledger import Ledger
from runner.storage.repository import Repository
from tests.support.fake_proposers import ScriptedProposer
from tests.support.publishing import CHECKPOINT

ROOT = Path(__file__).resolve().parents[2]

MODEL = """\
import time

import torch

PAUSE = 0.0


class Constant(torch.nn.Module):
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

BOOST = 1.0
SLEEP = 0.0

random.seed(int(os.environ["SEED"]))
publish(lambda path: path.write_text(str(BOOST + random.gauss(0, 0.001))))
time.sleep(SLEEP)
"""


def idea(boost: float, *, before: float = 1.0, sleep: float = 0.0, pause: float = 0.0) -> Proposal:
    """A better or worse constant (the best one is near 0) that trains or answers for a while."""
    edits = [Replace(path="workload/train.py", old=f"BOOST = {before}", new=f"BOOST = {boost}")]
    if sleep:
        edits.append(Replace(path="workload/train.py", old="SLEEP = 0.0", new=f"SLEEP = {sleep}"))
    if pause:
        edits.append(Replace(path="workload/model.py", old="PAUSE = 0.0", new=f"PAUSE = {pause}"))
    return Proposal(hypothesis=f"boost {boost}", edits=tuple(edits), proposer="scripted")


@dataclass
class Operator:
    """An observer that writes down what it is told, and acts on it: once for each thing it waits for."""

    told: list[list[object]] = field(default_factory=list)
    acts: list[tuple[str, Callable[[], object], bool]] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)

    def when(self, words: str, act: Callable[[], object], *, at_once: bool = False) -> None:
        """Do this when something that is told holds these words: on another thread, unless `at_once`."""
        self.acts.append((words, act, at_once))

    def hear(self, *facts: object) -> None:
        """Take one fact."""
        self.told.append(list(facts))
        sentence = " ".join(map(str, facts))
        for one in [one for one in self.acts if one[0] in sentence]:
            self.acts.remove(one)
            if one[2]:
                one[1]()
            else:
                self.threads.append(Thread(target=one[1]))
                self.threads[-1].start()

    def notes(self, words: str) -> int:
        """How many notes hold these words."""
        return sum(fact[0] == "note" and words in str(fact[1]) for fact in self.told)

    def note(self, message: str) -> None:
        self.hear("note", message)

    def begin(self, tag: str, done: int, target: int, ends_at: float | None) -> None:
        self.hear("begin", done, target)

    def phase(self, number: int, name: str, seconds: float | None) -> None:
        self.hear("phase", number, name)

    def line(self, text: str) -> None:
        """Ignore."""

    def closed(self, experiment: Experiment, best_bpb: float | None) -> None:
        self.hear("closed", experiment.number, str(experiment.verdict))


@dataclass(frozen=True, kw_only=True)
class Site:
    """All that a controller process must know; travels as JSON."""

    socket: str
    repository: str
    data: str
    locked: str
    base_image: str
    settings: dict[str, Any]
    request_seconds: float = 20.0
    quick_seconds: float = 2.0

    def connect(self) -> Engine:
        """The engine, with short limits."""
        return connect(self.socket, request_seconds=self.request_seconds, quick_seconds=self.quick_seconds)

    @contextmanager
    def laboratory(self, observer: Operator):
        """The laboratory of this site."""
        data, root = Path(self.data), Path(self.repository)
        train = {path.name: path for path in (data / "train").iterdir()}
        ledger = Ledger(root / ".autoresearch" / "ledger.db")
        config = settings.load(ROOT, {"profile": "cpu", "tag": "test", "max_disturbance": 1}, environ={})
        with ledger:
            engine = self.connect()
            yield Laboratory(
                config=config.model_copy(update=self.settings),
                engine=engine,
                repository=Repository(root),
                ledger=ledger,
                observer=observer,
                mounts=Mounts(
                    locked=Path(self.locked), train=lambda _: train, val=data / "val", test=data / "test"
                ),
                evaluation=Evaluation(
                    val_rows=np.load(data / "val" / "rows.npy"),
                    test_rows=np.load(data / "test" / "rows.npy"),
                    token_bytes=np.array([2] * 63 + [0], dtype=np.uint16),
                    train_text=np.fromfile(data / "train" / "shard-00.bin", "<u2"),
                ),
                sealed_text=SealedText(
                    validation=np.array([], np.uint64), test=np.array([], np.uint64), tokens=[]
                ),
                redactor=Redactor(index=IndexBuilder(0).finish(), tokens=[]),
                scratch=root / ".autoresearch" / "audits",
                claims=root / ".autoresearch" / "claims",
                base_image=self.base_image,
                conditions={"data": "d" * 64, "evaluation": "e" * 64, "train_seconds": "3", "base_image": "cpu-0"},
            )
            engine.client.close()

    @contextmanager
    def controller(self, sleep: float, *values: float):
        """A controller in a process of its own, killed at the end; each idea trains for `sleep` seconds."""
        path = Path(self.repository).with_name("site.json")
        path.write_text(json.dumps(asdict(self)))
        with subprocess.Popen(
            [sys.executable, __file__, path, str(sleep), *map(str, values)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def finish(self, sleep: float, *values: float) -> list[list[Any]]:
        """All that one controller says, from its start to the end of its night."""
        with self.controller(sleep, *values) as controller:
            told = [json.loads(line) for line in controller.stdout]
            assert controller.wait(60) == 0, told
        return told


def make_repository(root: Path) -> Path:
    """A user's repository with the tiny workload."""
    (root / "workload").mkdir(parents=True)
    tree = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": MODEL, "train.py": TRAIN}
    for name, text in tree.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    (root / ".gitignore").write_text("/.autoresearch/\n")
    for arguments in (
        ["init", "-q", "-b", "main"],
        ["config", "user.name", "user"],
        ["config", "user.email", "user@example.org"],
        ["add", "-A"],
        ["commit", "-qm", "start"],
    ):
        subprocess.run(["git", *arguments], cwd=root, check=True)
    return root


def run(lab: Laboratory, script: Iterable[Any], stop: night.StopSwitch | None = None):
    """A night over a script; returns why it ended, its experiments, and the proposer."""
    script = list(script)
    proposer = ScriptedProposer(script, by_number=True)
    reason = night.run(lab, proposer, stop or night.StopSwitch(), more=len(script))
    return reason, lab.ledger.experiments("test"), proposer


class Speaker(Operator):
    """Says everything on stdout."""

    def hear(self, *facts: object) -> None:
        print(json.dumps(facts), flush=True)


def main() -> None:
    """One controller, from its first look for what an earlier one left, to the end of its night."""
    site = Site(**json.loads(Path(sys.argv[1]).read_text()))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    ideas = [idea(float(value), sleep=float(sys.argv[2])) for value in sys.argv[3:]]
    with site.laboratory(Speaker()) as lab:
        print(json.dumps(["orphans", remove_orphans(lab.engine, lab.ledger.controller)]), flush=True)
        begun = len(lab.ledger.experiments("test")) - 1  # an interrupted one is finished without being counted
        night.run(lab, ScriptedProposer(ideas, by_number=True), night.StopSwitch(), more=len(ideas) - begun)


if __name__ == "__main__":
    main()
