"""A night in a process that can be killed: real ledger, real git, real campaign, audit and judge.

Containers and images are scripted: the model is one number, the logit of token 0, and its training, claims and
audited logits are computed here.

Reads JSON lines on stdin, `{"root": FOLDER, "item": {"step": "trial_opened", "side": "after", "occurrence": 2}}`,
and runs the night of that folder, or goes on with it, in a process of its own. It kills itself with SIGKILL where
the item says: at an occurrence of a crash point, or, as `{"reach": 7}`, at the seventh point of any kind. An empty
item runs to the end. Answers each with a line that tells how it ended. Beside the folder lie the points that were
reached (`reached`) and what the process wrote to stderr (`errors`).
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import json
import os
import re
import signal
import sys
import traceback
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from locked_eval.preparation.index import IndexBuilder
from runner import config, failpoints
from runner.campaign import measurement, setup
from runner.campaign import night as campaign
from runner.corpus.redaction import Redactor
from runner.errors import EngineError
from runner.evaluation import audit, evaluator, smoke_test, trial
from runner.evaluation.evaluator import EvaluationRows
from runner.records import NoProposal, Phase, Proposal, Replace, RunEnd, RunRecord, Usage, Write
from runner.sandbox import images as image
from runner.storage import pinned_evaluation
from runner.storage.ledger import Ledger
from runner.storage.lock import exclusive
from runner.storage.paths import StatePaths
from runner.storage.repository import Repository
from tests.support.scripted_controller import make_controller

TAG = "test"
VOCAB_SIZE, CONTEXT, ROWS = 64, 16, 10
TRAIN = "BOOST = 1.0\n"

SCRIPT = {
    1: "3.0",  # worse
    2: "0.5",  # better, and certified
    3: "'crash'",
    5: "outside",  # an edit that is refused
    6: "'crash again'",
    7: "777.0",  # the infrastructure fails, twice in the same way
    8: "lucky",  # better under the exploration seed alone: its certificate rolls it back
    9: "3.0",
    10: "0.3",
    11: "0.2",  # better twice, and certified together
}
"""The ideas, certificates not counted; 4 retries the crash of 3 and crashes, that of 6 is given up."""
AHEAD = {1: "file", 2: "0.5", 3: "file", 4: "file", 5: "0.0", 6: "file"}
"""What a proposer that thinks ahead proposes: files that change nothing, and what is better."""
EARLY = {1: "3.0", 2: "888.0", 3: "0.5"}
"""A night in which the second idea is found unpromising while it trains."""
LUCK = 0.5
REPAIRS = {"boost 'crash'": "'crash too'", "boost 'crash again'": None}
"""What is said to the hypothesis of a crash; None: it cannot be repaired."""
SET_CHILD_SUBREAPER = 36
COST_USD = 0.25
"""Of one answer."""


class Paid:
    """A proposer whose every answer costs money, and is never asked for twice.

    Args:
        script: what it proposes by number.
        prefetches: it is asked while the last idea is measured.
    """

    name, model = "scripted", "m"

    def __init__(self, script=SCRIPT, prefetches=False):
        self.script, self.prefetches = script, prefetches

    def propose(self, request):
        failed = None if request.failed is None else request.failed.hypothesis
        answer = request.journal.recall(1, f"{request.number} {failed}")
        if answer is None:
            usage = Usage(
                model="m", request_id=None, input_tokens=1, output_tokens=1, cache_read_tokens=0,
                cache_write_tokens=0, cost_usd=COST_USD,
            )  # fmt: skip
            booking = request.journal.open_answer(1, f"{request.number} {failed}", usage)
            others = (*request.history, request.running)
            idea = request.number - sum(one is not None and one.is_certificate for one in others)
            answer = REPAIRS[failed] if failed in REPAIRS else self.script[idea]
            request.journal.close_answer(booking, usage, answer or "nothing")
        assert request.journal.check(request.files) == "", "nothing is run: the engine is scripted"
        if answer is None or answer == "nothing":
            return NoProposal(reason="cannot be mended", exhausted=False, proposer=self.name)
        before = re.search(rb"BOOST = .*", request.files["workload/train.py"])[0].decode()
        edit = Replace(path="workload/train.py", old=before, new=f"BOOST = {answer}")
        if answer == "file":
            edit = Write(path=f"workload/n{request.number}.py", content="")
        if answer == "lucky":
            edit = Write(path="workload/lucky.py", content=f"LUCKY_SEED = {exploration_seed(request.history)}\n")
        if answer == "outside":
            edit = Write(path="runner/x.py", content="")
        return Proposal(hypothesis=f"boost {answer}", edits=(edit,), proposer=self.name)


def exploration_seed(history):
    """The seed under which ideas are tried: of the first trial of baseline or last certificate."""
    return next(one for one in reversed(history) if one.number == 0 or one.is_certificate).trials[0].seed


class ScriptedSession:
    """What a session says of a program whose model is one logit."""

    def __init__(self, program, evaluation):
        self.boost = re.search(r"BOOST = (.*)", program)[1]
        self.lucky_seeds = set(map(int, re.findall(r"LUCKY_SEED = (.*)", program)))
        self.evaluation = evaluation

    def train(self, seed, on_line, on_start, on_end, gives_up):
        on_start()
        on_end()
        if self.boost == "777.0":
            raise EngineError(f"run {seed} was lost by the scripted engine", fault="lost")
        if self.boost == "888.0":
            return _run(Phase.TRAIN, seed, RunEnd.STOPPED, None)
        crashed = self.boost.startswith("'")
        return _run(Phase.TRAIN, seed, RunEnd.FAILED if crashed else RunEnd.FINISHED, int(crashed))

    def score(self, seed, batch_rows):
        return _run(Phase.SCORE, seed), self._claims(self.evaluation.val_targets, seed)

    def score_test(self, seed, batch_rows, max_bytes):
        return _run(Phase.TEST, seed), self._claims(self.evaluation.test_targets, seed)

    def auditor(self, rows, *, batch_rows, limit_seconds, max_bytes):
        assert any(rows.iterdir()), "the rows are there before a container sees them"
        num_logits = max_bytes // (4 * VOCAB_SIZE)

        def go(seed):
            return _run(Phase.AUDIT, seed), np.tile(self._logits(seed), (num_logits, 1)).tobytes()

        return nullcontext(SimpleNamespace(go=go))

    def _logits(self, seed):
        logits = np.zeros(VOCAB_SIZE, "<f4")
        logits[0] = float(self.boost) - LUCK * (seed in self.lucky_seeds) + seed % 1000 * 1e-6
        return logits

    def _claims(self, targets, seed):
        logits = self._logits(seed)
        return (logits - np.log(np.exp(logits.astype(float)).sum()))[targets].astype("<f4").tobytes()


def _run(phase, seed, end=RunEnd.FINISHED, exit_code=0):
    return RunRecord(phase=phase, seed=seed, end=end, exit_code=exit_code, wall_seconds=1.0, cpu_seconds=1.0)


class ScriptedImages:
    """An engine's images, which survive the controller."""

    def __init__(self, folder):
        self.folder = folder

    def build(self, client, *, base_id, files, labels, tag=None):
        digest = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        self.folder.mkdir(exist_ok=True)
        with failpoints.around(failpoints.Step.IMAGE_BUILT):
            (self.folder / digest).write_bytes(b"".join(data for _, data in sorted(files.items())))
            (self.folder / f"commit-{labels['commit']}").write_text(digest)
        return image.Image(id=digest, base_id=base_id, layer_digest=digest, layers=(base_id, digest))

    def find(self, client, *, base_id, campaign, commit):
        named = self.folder / f"commit-{commit}"
        if not named.exists():
            return None
        digest = named.read_text()
        return image.Image(id=digest, base_id=base_id, layer_digest=digest, layers=(base_id, digest))


def script_containers(folder, rows):
    """Put scripts in the place of images, containers and waits.

    Args:
        folder: of the images.
    """
    images = ScriptedImages(folder)

    @contextmanager
    def open_session(engine, *, image_id, **_):
        yield ScriptedSession((folder / image_id).read_text(), rows)

    image.build_candidate, image.find_candidate = images.build, images.find
    trial.open_session = open_session
    measurement.check_engine_identity = evaluator.await_engine = campaign.await_engine = lambda *_, **__: None
    evaluator.remove_orphans = lambda *_: 0
    smoke_test.check = lambda *_: ""
    measurement.FAULT_PAUSE_SECONDS = audit.PAUSE_SECONDS = 0


def scripted_controller(chosen, ledger, repository, paths, rows, observer=None):
    """The controller of a scripted night."""
    return make_controller(
        chosen,
        ledger,
        repository,
        conditions={
            "data": "d",
            "evaluation": "e",
            "base_image": "b",
            "train_seconds": f"{chosen.train_seconds:g}",
        },
        redactor=Redactor(index=IndexBuilder(0).finish(), tokens=[]),
        rows=rows,
        scratch=paths.audits,
        claims=paths.claims(chosen.tag),
        base=SimpleNamespace(id="base"),
        observer=observer,
    )


def evaluation():
    """Random text, the same in every process."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, VOCAB_SIZE - 1, (2, ROWS, CONTEXT + 1)).astype(np.uint16)
    return EvaluationRows(
        val_rows=rows[0],
        test_rows=rows[1],
        token_bytes=np.array([2] * (VOCAB_SIZE - 1) + [0], dtype=np.uint16),
        train_text=rng.integers(0, VOCAB_SIZE, 2500).astype(np.uint16),
    )


def night(root):
    """Run the night to its end, or go on with it; a file beside the folder chooses another one than the first."""
    ahead = root.with_name("ahead").exists()
    script = AHEAD if ahead else EARLY if root.with_name("early").exists() else SCRIPT
    os.urandom = bytes  # the campaign's seed: zero
    known = evaluation()
    script_containers(root / "images", known)
    state = root / ".autoresearch"
    chosen = config.load(
        root, {"profile": "cpu", "tag": TAG, "max_disturbance": 1, "audit_discards": 0}, environ={}
    )
    changes = {
        "vocab_size": VOCAB_SIZE, "context_length": CONTEXT, "baseline_runs": 2, "noise_prior_bpb": 1e-4,
        "control_interval": 1, "certify_sigmas": 0.5, "certify_trials": 2,
    }  # fmt: skip
    with Ledger(state / "ledger.db") as ledger, exclusive(state):
        setup.remove_leftovers(StatePaths(state))
        pinned_evaluation.pin(state)
        rows = ledger.experiments(TAG)
        done = sum(one.is_idea and one.verdict is not None for one in rows)
        controller = scripted_controller(
            chosen.model_copy(update={**changes, "experiments": max(script) - done}),
            ledger,
            Repository(root),
            StatePaths(state),
            known,
        )
        campaign.run(controller, Paid(script, ahead), campaign.StopSwitch())


def arm(item, log):
    """Die where `item` says; write down every point before it is passed."""
    seen = []

    def on_reach(step, side):
        seen.append((step, side))
        os.write(log, f"{step} {side}\n".encode())
        at_point = (step, side) == (item.get("step"), item.get("side"))
        if (at_point and seen.count((step, side)) == item.get("occurrence", 1)) or len(seen) == item.get("reach"):
            os.kill(os.getpid(), signal.SIGKILL)

    failpoints.on_reach = on_reach


def import_what_nights_import_late():
    """Once, before a process is forked for each night; what is frozen stays shared between them."""
    for module in ("git", "scipy.special"):
        import_module(module)
    gc.freeze()


def main():
    """Run one night for every line of stdin.

    A night that was killed is over once its git processes are: each of them comes to its end, and the youngest may
    hold what its parent held, until it runs git.
    """
    import_what_nights_import_late()
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1)
    for line in sys.stdin:
        asked = json.loads(line)
        root = Path(asked["root"])
        log = os.open(root.with_name("reached"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        child = os.fork()
        if child == 0:
            errors = os.open(root.with_name("errors"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            arm(asked["item"], log)
            try:
                night(root)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        with suppress(ChildProcessError):
            while True:
                os.wait()
        os.close(log)
        print(json.dumps({"end": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
