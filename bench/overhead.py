"""Cost of safety: a whole experiment around a training that only waits, compared with the bare program.

    python bench/overhead.py [--experiments 3] [--train-seconds 10]

The bare program is the same `workload/train.py` started by hand on the host. The floor is the unavoidable cost of
any sandbox: one container that imports torch is created, started, awaited and removed. An experiment is the one of
a night: commit, image, two containers, training, scoring of the real validation rows by a model that does nothing,
verdict. Discarded experiments have no audit, like most of a night.

Needs the engine and the prepared data of the cpu profile (`make prepare ARGS="--profile cpu"`), as root or in the
group docker. All figures come from one run on one machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.clone import make_repository
from runner import config
from runner.campaign import night, setup
from runner.records import Phase, Proposal, Replace
from runner.sandbox.containers import PYTHON
from runner.storage.ledger import Ledger
from runner.storage.lock import exclusive
from runner.storage.paths import StatePaths

CHECKPOINT = (Path(__file__).resolve().parents[1] / "workload" / "checkpoint.py").read_text("utf-8")
MODEL = """\
import torch


class Constant(torch.nn.Module):
    def __init__(self, vocab_size):
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, tokens):  # (B, T) -> (B, T, V)
        return torch.zeros(1, 1, self.vocab_size).expand(*tokens.shape, -1)


def load(path, device):
    return Constant(int(path.read_text()))
"""
TRAIN = """\
import json
import os
import time
from pathlib import Path

NUMBER = 0
time.sleep({seconds})
try:
    from workload.checkpoint import publish
except ImportError:  # bare, on a host
    pass
else:
    meta = json.loads((Path(os.environ["DATA_DIR"]) / "meta.json").read_text())
    publish(lambda path: path.write_text(str(meta["vocab_size"])))
"""


class Stopwatch:
    """An observer that records when each phase of each experiment began."""

    def __init__(self):
        self.laps = []

    def note(self, message):
        print(f"  {message}", file=sys.stderr)

    def begin(self, tag, done, target, ends_at):
        pass

    def phase(self, number, name, seconds):
        self.laps.append((number, name, time.monotonic()))

    def line(self, text):
        pass

    def opened(self, experiment):
        pass

    def closed(self, experiment, best_bpb):
        self.laps.append((experiment.number, "closed", time.monotonic()))


class Numbers:
    """A proposer of edits that change nothing."""

    name, model, prefetches = "bench", None, False

    def propose(self, request):
        edit = Replace(path="workload/train.py", old="NUMBER = 0", new=f"NUMBER = {request.number}")
        return Proposal(hypothesis=f"number {request.number}", edits=(edit,), proposer=self.name)


def repository(root, seconds):
    """Make a repository with the program that waits."""
    files = {
        "workload/__init__.py": "",
        "workload/checkpoint.py": CHECKPOINT,
        "workload/model.py": MODEL,
        "workload/train.py": TRAIN.format(seconds=seconds),
        "program.md": "Wait.\n",
    }
    return make_repository(root, files)


def bare_seconds(root):
    """Time the same program, started by hand."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-I", "-S", str(root / "workload" / "train.py")], check=True)
    return time.monotonic() - began


def floor_seconds(evaluator):
    """Time a container with the engine's default limits that imports torch."""
    api = evaluator.engine.client.api
    began = time.monotonic()
    host = api.create_host_config(network_mode="none")
    container = api.create_container(
        evaluator.base_image,
        [PYTHON, "-I", "-c", "import torch"],
        labels=evaluator.owner(0).labels("bench"),
        host_config=host,
    )
    api.start(container["Id"])
    api.wait(container["Id"])
    api.remove_container(container["Id"])
    return time.monotonic() - began


def main():
    """Run the experiments and print the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--experiments", type=int, default=3)
    parser.add_argument("--train-seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        git = repository(root, arguments.train_seconds)
        Path(folder).chmod(0o755)  # uid 10001 must reach what is mounted
        os.chdir(root)
        watch = Stopwatch()
        settings = config.load(
            root,
            {
                "profile": "cpu",
                "tag": "bench",
                "train_seconds": arguments.train_seconds + 20,
                "baseline_runs": 2,
                "audit_discards": 0.0,
                "max_disturbance": 1.0,
            },
            environ={},
        )
        paths = StatePaths.of(root)
        with Ledger(paths.ledger) as ledger, exclusive(paths.root):
            prepared = setup.prepare(settings, ledger=ledger, paths=paths, observer=watch)
            controller = setup.open_controller(
                settings, prepared, repository=git, ledger=ledger, paths=paths, observer=watch
            )
            night.run(controller, Numbers(), night.StopSwitch(), more=arguments.experiments)
            bare = statistics.median(bare_seconds(root) for _ in range(3))
            floor = statistics.median(floor_seconds(controller.evaluator) for _ in range(3))
            report(ledger.experiments("bench"), watch, bare, floor)
            from runner.sandbox import images

            images.remove_images(controller.evaluator.engine.client, {"controller": ledger.controller})
        return 0


def report(experiments, watch, bare, floor):
    """Print medians over the experiments, by phase."""
    experiments = [one for one in experiments if one.number and one.val_bpb is not None]
    assert experiments, "no experiment was scored"
    phases, wholes, scoring, training = {}, [], [], []
    for one in experiments:
        laps = [(name, when) for number, name, when in watch.laps if number == one.number]
        wholes.append(laps[-1][1] - laps[0][1])
        for phase, seconds in ((Phase.TRAIN, training), (Phase.SCORE, scoring)):
            seconds.append(sum(run.wall_seconds or 0 for run in one.runs if run.phase is phase))
        for (name, begin), (_, end) in pairwise(laps):
            phases.setdefault(name, []).append(end - begin)
    whole, score = statistics.median(wholes), statistics.median(scoring)
    rests = [total - sum(clocks) for total, *clocks in zip(wholes, training, scoring, strict=True)]
    overhead = statistics.median(rests)
    print(f"bare process                     {bare:7.2f} s")
    print(f"floor (container, import torch)  {floor:7.2f} s")
    print(f"whole experiment                 {whole:7.2f} s   {whole / bare:.2f} × bare   median of {len(wholes)}")
    for name, seconds in phases.items():
        print(f"    {name:28s} {statistics.median(seconds):7.2f} s")
    print(f"training, as PID 1 timed it      {statistics.median(training):7.2f} s")
    print(f"scoring, as PID 1 timed it       {score:7.2f} s")
    print(f"overhead                         {overhead:7.2f} s   {overhead / floor:.2f} × floor   (target: 3 s)")


if __name__ == "__main__":
    sys.exit(main())
