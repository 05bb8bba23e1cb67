"""Twenty edits that change nothing and three that help, through the whole pipeline with real CPU runs.

    python bench/nulls.py [--nulls 20] [--train-seconds 20]

The repository is a copy of this one with three handicaps planted in its workload; three of the edits remove one
each. Of the edits that change nothing, half are comments and half only shift the seed. Those kept by luck show how
honest the rule is on this machine, and helpful ones that are not kept show how much it misses. Every edit is
proposed against the champion, in an order drawn with a fixed seed. Takes about half an hour on a quiet machine.

Needs the engine and the prepared data of the cpu profile (`make prepare ARGS="--profile cpu"`), as root or in the
group docker.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.clone import make_repository
from runner import config
from runner.campaign import night, setup
from runner.records import NoProposal, Proposal, Replace, Verdict
from runner.report.explain import explain
from runner.sandbox import images
from runner.storage.ledger import Ledger
from runner.storage.lock import exclusive
from runner.storage.paths import StatePaths

ROOT = Path(__file__).resolve().parents[1]
HANDICAPS = {
    "workload/optim.py": (
        ("HEAD_LEARNING_RATE = 0.004", "HEAD_LEARNING_RATE = 0.0002"),
        ("NEWTON_SCHULZ_STEPS = 5", "NEWTON_SCHULZ_STEPS = 60"),
    ),
    "workload/train.py": (("model.zero_grad()", "model.zero_grad()\n        time.sleep(0.15)"),),
}
STACKS = 2
"""Extra experiments for combined near misses."""
SEED_LINE = 'seed=int(os.environ["SEED"])'


class Watch:
    """An observer that prints events."""

    def note(self, message):
        print(f"  {message}", file=sys.stderr, flush=True)

    def begin(self, tag, done, target, ends_at):
        pass

    def phase(self, number, name, seconds):
        pass

    def line(self, text):
        pass

    def opened(self, experiment):
        pass

    def closed(self, experiment, best_bpb):
        trials = 0 if experiment.figures is None else len(experiment.figures.trials)
        print(
            f"{experiment.number:3d}  {experiment.verdict:8s} {trials} trials  {experiment.hypothesis:40s} "
            f"{explain(experiment)}",
            flush=True,
        )


class Edits:
    """A proposer of a list of edits, one after the other."""

    name, model, prefetches = "bench", None, False

    def __init__(self, edits):
        self.edits = edits

    def propose(self, request):
        asked = sum(one.proposer == self.name for one in request.history)
        if asked >= len(self.edits):
            return NoProposal(reason="no more edits", exhausted=True, proposer=self.name)
        hypothesis, make = self.edits[asked]
        return Proposal(hypothesis=hypothesis, edits=(make(request.files),), proposer=self.name)


def comment(number):
    """Make an edit that adds a comment."""

    def make(files):
        first = files["workload/model.py"].decode().partition("\n")[0]
        return Replace(path="workload/model.py", old=first, new=f"# note {number}\n{first}")

    return f"null: comment {number}", make


def seed(number):
    """Make an edit that shifts the seed."""

    def make(files):
        lines = files["workload/train.py"].decode().splitlines()
        before = next(line for line in lines if line.strip().startswith(SEED_LINE))
        after = f"{before[: before.index(SEED_LINE)]}{SEED_LINE} + {number},"
        return Replace(path="workload/train.py", old=before, new=after)

    return f"null: seed + {number}", make


def helpful(path, good, bad):
    """Make an edit that removes a handicap."""
    return f"helps: {good}", lambda files: Replace(path=path, old=bad, new=good)


def repository(root):
    """Make a repository with this one's workload and the handicaps."""
    listed = subprocess.run(
        ["git", "ls-files", "workload", "program.md"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    files = {name: (ROOT / name).read_text() for name in listed.stdout.split()}
    for name, changes in HANDICAPS.items():
        for good, bad in changes:
            assert files[name].count(good) == 1, good
            files[name] = files[name].replace(good, bad)
    return make_repository(root, files)


def main():
    """Run the campaign and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nulls", type=int, default=20)
    parser.add_argument("--train-seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    edits = [helpful(path, good, bad) for path, changes in HANDICAPS.items() for good, bad in changes]
    edits += [(comment if number % 2 else seed)(number) for number in range(1, arguments.nulls + 1)]
    random.Random(0).shuffle(edits)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        git = repository(root)
        Path(folder).chmod(0o755)  # uid 10001 must reach what is mounted
        os.chdir(root)
        watch = Watch()
        settings = config.load(
            root,
            {
                "profile": "cpu",
                "tag": "bench",
                "train_seconds": arguments.train_seconds,
                "experiments": len(edits) + STACKS,
            },
            environ={},
        )
        paths = StatePaths.of(root)
        with Ledger(paths.ledger) as ledger, exclusive(paths.root):
            prepared = setup.prepare(settings, ledger=ledger, paths=paths, observer=watch)
            controller = setup.open_controller(
                settings, prepared, repository=git, ledger=ledger, paths=paths, observer=watch
            )
            try:
                night.run(controller, Edits(edits), night.StopSwitch())
            finally:
                report(ledger.experiments("bench"), time.monotonic() - began)
                images.remove_images(controller.evaluator.engine.client, {"controller": ledger.controller})
    return 0


def report(experiments, seconds):
    """Print how many edits of each kind were kept."""
    print()
    for word in ("helps", "null", "stack"):
        some = [one for one in experiments if one.hypothesis.startswith(word) or one.proposer == word]
        kept = [one for one in some if one.verdict is Verdict.KEEP]
        trials = sum(len(one.figures.trials) for one in some if one.figures is not None)
        print(f"{word:6s} {len(kept)} of {len(some)} kept, {trials / max(len(some), 1):.2f} trials each")
    trained = sum(run.phase == "train" for one in experiments for run in (*one.runs, *one.controls))
    print(f"{trained} trainings in {seconds / 60:.0f} minutes")


if __name__ == "__main__":
    sys.exit(main())
