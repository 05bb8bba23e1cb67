"""Twenty edits that change nothing, three that help and five that help a little, through the whole pipeline.

    python bench/nulls.py [--order 0] [--nulls 20] [--train-seconds 20]

The repository is a copy of this one with handicaps planted in its workload: three large ones, and five that cost
`SMALL_SHARE` of the training time each, meant to be half to one σ on the CPU profile. Each edit that helps removes
one. Of the edits that change nothing, half are comments and half shift the seed, so that what programs have in
common under one seed does not help to judge them. All are proposed on the tip, in an order drawn with `--order`,
which also names the campaign and so draws its seeds.

Bars: at most one null is certified, all three large ones are, and most of the small ones, in at least two of three
orders. Takes about half an hour on a quiet machine.

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
        ("in POLAR_EXPRESS:", "in POLAR_EXPRESS * 12:"),
    ),
    "workload/train.py": (("self.model.zero_grad()", "self.model.zero_grad()\n        time.sleep(0.15)"),),
}
SMALLS, SMALL_SHARE = 5, 0.04
START = "    keep_freed_memory()\n    trainer"
"""Where a small handicap waits before the training."""
MOST_NULLS = 1
SEED = 'int(os.environ["SEED"])'


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
        print(
            f"{experiment.number:3d}  {experiment.verdict:8s} {experiment.hypothesis[:40]:40s} "
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

    def make(_files):
        return Replace(path="workload/train.py", old=SEED, new=f"{SEED} + {number}")

    return f"null: seed + {number}", make


def helpful(path, good, bad):
    """Make an edit that removes a handicap."""
    return f"helps: {good}", lambda files: Replace(path=path, old=bad, new=good)


def waiting(number):
    """The line of a small handicap."""
    return f'    time.sleep({SMALL_SHARE} * float(os.environ["DEADLINE_SECONDS"]))  # {number}\n'


def small(number):
    """Make an edit that removes a small handicap."""
    return f"small: {number}", lambda files: Replace(path="workload/train.py", old=waiting(number), new="")


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
    train = files["workload/train.py"]
    assert train.count(START) == 1
    waits = "".join(waiting(number) for number in range(1, SMALLS + 1))
    files["workload/train.py"] = train.replace(START, START.replace("    trainer", f"{waits}    trainer"))
    return make_repository(root, files)


def main():
    """Run the campaign and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--order", type=int, default=0)
    parser.add_argument("--nulls", type=int, default=20)
    parser.add_argument("--train-seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    edits = [helpful(path, good, bad) for path, changes in HANDICAPS.items() for good, bad in changes]
    edits += [(comment if number % 2 else seed)(number) for number in range(1, arguments.nulls + 1)]
    edits += [small(number) for number in range(1, SMALLS + 1)]
    random.Random(arguments.order).shuffle(edits)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        git = repository(root)
        Path(folder).chmod(0o755)  # uid 10001 must reach what is mounted
        os.chdir(root)
        watch, tag = Watch(), f"bench{arguments.order}"
        settings = config.load(
            root,
            {
                "profile": "cpu",
                "tag": tag,
                "train_seconds": arguments.train_seconds,
                "experiments": len(edits),
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
                report(ledger.experiments(tag), time.monotonic() - began)
                images.remove_images(controller.evaluator.engine.client, {"controller": ledger.controller})
    return 0


def report(experiments, seconds):
    """Print how many edits of each kind were accepted and certified, and the bars."""
    certified = {number for one in experiments if one.verdict is Verdict.KEEP for number in one.certifies}
    print()
    shares = {}
    for word in ("helps", "null", "small"):
        some = [one for one in experiments if one.is_idea and one.hypothesis.startswith(word)]
        accepted = sum(one.verdict is Verdict.ACCEPT for one in some)
        proven = sum(one.number in certified for one in some)
        shares[word] = proven, len(some)
        print(f"{word:6s} {len(some)} tried, {accepted} accepted, {proven} certified")
    tests = [one for one in experiments if one.is_certificate]
    kept = [one for one in tests if one.verdict is Verdict.KEEP]
    gain = -sum(one.delta_bpb or 0.0 for one in kept)
    print(
        f"{len(tests)} certificates, {len(kept)} passed, better by {gain:.4f} bpb; noise {sigma_of(experiments)}"
    )
    trials = sum(len(one.trials) + len(one.control_trials) for one in experiments)
    print(f"{trials} trials in {seconds / 60:.0f} minutes")
    for bar, met in (
        (f"at most {MOST_NULLS} null certified", shares["null"][0] <= MOST_NULLS),
        ("all that help certified", shares["helps"][0] == shares["helps"][1] > 0),
        ("most small ones certified", 2 * shares["small"][0] > shares["small"][1]),
    ):
        print(f"{bar}: {'met' if met else 'NOT MET'}")


def sigma_of(experiments):
    """The last estimate of the noise, in words."""
    known = [one.sigma_bpb for one in experiments if one.sigma_bpb is not None]
    return f"{known[-1]:.4f} bpb" if known else "unknown"


if __name__ == "__main__":
    sys.exit(main())
