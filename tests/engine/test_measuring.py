"""One training, measured: what disturbs it, and what of its text may be seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

from locked_eval.preparation.index import IndexBuilder
from runner.corpus.redaction import WITHHELD, Redactor
from runner.evaluation import audit, outcome
from runner.proposers.researcher.prompt import show_task
from runner.records import AuditPolicy, Outcome, Phase, ProposalRequest, RunEnd
from runner.sandbox import core_meter, responder
from runner.sandbox.reservation import choose_cores
from tests.support.constant_workload import MODEL, TRAIN, workload_files
from tests.support.machine import changed, examine_once, measure_once
from tests.support.silent_observer import SilentObserver

pytestmark = pytest.mark.docker


def test_a_training_that_other_programs_disturb_is_repeated_and_the_last_attempt_counts(controller):
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        os.sched_setaffinity(busy.pid, choose_cores(controller.config))
        disturbed = changed(controller, max_disturbance=0.01)
        made, runs = measure_once(disturbed, workload_files(train=TRAIN.replace("SLEEP = 0.0", "SLEEP = 0.3")))
    finally:
        busy.kill()
        busy.wait()
    assert made.outcome is Outcome.SCORED
    assert [run.phase for run in runs] == [Phase.TRAIN, Phase.TRAIN, Phase.TRAIN, Phase.SCORE]
    assert all(run.others_cpu_seconds > 0.05 for run in runs[:3])


LOAD = "def load(path, device):\n"
WORKING = MODEL.replace(LOAD, f"{LOAD}    while time.process_time() < STARTED + 1.2:\n        pass\n").replace(
    "PAUSE = 0.0\n", "PAUSE = 0.0\nSTARTED = time.process_time()\n"
)
"""Works for 1.2 seconds on a core of its own, in scoring and in each container of an audit."""


NUM_HOGS = 3
"""One alone may get less than its share of a core in so short a time."""


class Hogging(SilentObserver):
    """Keeps a core busy from the first time that a phase begins until a trial is repeated."""

    def __init__(self, phase, core):
        self.wanted, self.core, self.hogs, self.notes = phase, core, [], []

    def phase(self, number, name, seconds):
        if name == self.wanted and not self.hogs:
            for _ in range(NUM_HOGS):
                self.hogs.append(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
                os.sched_setaffinity(self.hogs[-1].pid, {self.core})

    def note(self, message):
        self.notes.append(message)
        responder.STRETCH = core_meter.STRETCH
        self.close()

    def close(self):
        for hog in self.hogs:
            hog.kill()
            hog.wait()


@pytest.fixture
def hogged(controller, monkeypatch):
    """Measure a program that is audited, while another one works on its core in one of the phases."""
    monkeypatch.setattr(outcome, "BUSY_SHARE", 0.1)

    def measure(phase):
        (core,) = choose_cores(controller.config)
        with closing(Hogging(phase, core)) as observer:
            made = examine_once(
                changed(controller, observer=observer, score_seconds=2.0),
                workload_files(model=WORKING),
                champion=None,
                policy=AuditPolicy(audit=True),
                request={"seed": 1},
            )
            assert observer.hogs
        return made, observer.notes

    return measure


@pytest.mark.parametrize("phase", ["score", "audit"])
def test_an_answer_has_its_time_limit_without_what_other_programs_used(hogged, monkeypatch, phase):
    monkeypatch.setattr(audit, "SLOWDOWN", 1.0)
    made, notes = hogged(phase)
    assert (made.outcome, made.reason) == (Outcome.SCORED, None)
    ended = made.runs[-1] if phase == "audit" else made.runs[1]
    assert notes == [] and ended.wall_seconds > 2.0 and ended.others_cpu_seconds > 0.8


@pytest.mark.parametrize("phase", ["score", "audit"])
def test_a_time_limit_that_is_missed_on_a_busy_machine_is_no_verdict(hogged, monkeypatch, phase):
    monkeypatch.setattr(audit, "SLOWDOWN", 1.0)
    monkeypatch.setattr(audit, "MARGIN_SECONDS", 0.5)
    # Until it is repeated: else it takes four programs, and four times as long.
    monkeypatch.setattr(responder, "STRETCH", 1.0)
    made, notes = hogged(phase)
    assert (made.outcome, made.reason) == (Outcome.SCORED, None), "measured again, on a quiet machine"
    doing = {"score": "scoring", "audit": "the audit"}[phase]
    assert re.match(rf"experiment 1: {doing} took longer than .* s: the machine is busy \(load", notes[0])


FORWARD = "    def forward(self, tokens):  # (B, T) -> (B, T, V)\n"
HUNGRY = MODEL.replace(FORWARD, f"{FORWARD}        used = bytearray(tokens.shape[0] * 100_000_000)\n")
"""Needs 100 MB for each row of a batch: the kernel kills it."""
REFUSED = MODEL.replace(
    FORWARD, f"{FORWARD}        if len(tokens) > 4: raise torch.OutOfMemoryError('CUDA out of memory')\n"
)
"""Has a device with room for four rows."""


@pytest.mark.parametrize("model", [HUNGRY, REFUSED])
def test_a_scoring_that_runs_out_of_memory_is_repeated_with_half_the_rows(controller, model):
    assert model != MODEL
    made = examine_once(
        changed(controller, score_batch_rows=8, memory_bytes=600 * 2**20),
        workload_files(model=model),
        champion=None,
        policy=AuditPolicy(audit=True, seal_below_bpb=float("inf")),
        request={"seed": 1},
    )
    assert [(run.phase, run.end) for run in made.runs] == [
        (Phase.TRAIN, RunEnd.FINISHED),
        (Phase.SCORE, RunEnd.OUT_OF_MEMORY),
        (Phase.SCORE, RunEnd.FINISHED),
        (Phase.AUDIT, RunEnd.FINISHED),
        (Phase.TEST, RunEnd.FINISHED),
    ]
    assert made.audited and made.sealed


def test_a_candidate_that_sleeps_does_not_disturb_itself(controller):
    quiet = changed(controller, max_disturbance=1.3)
    made, runs = measure_once(quiet, workload_files(train="import time\ntime.sleep(1)\n" + TRAIN))
    assert made.outcome is Outcome.SCORED
    assert [run.phase for run in runs] == [Phase.TRAIN, Phase.SCORE]
    assert runs[0].cpu_seconds < 0.9 < runs[0].wall_seconds


class SeenLines(SilentObserver):
    """Remembers the lines of the training."""

    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


WORDS = [
    f"{first}{second} "
    for first in ("ba", "do", "kin", "lu", "me", "nor", "pa", "ru")
    for second in ("fa", "ge", "hil", "jo", "ka", "lest", "mo", "nu")
]
"""What the tokens of the tiny data set stand for."""


TELLS = f"""\
import base64
import os
from pathlib import Path

import numpy as np

WORDS = {WORDS!r}
ids = np.fromfile(Path(os.environ["DATA_DIR"]) / "shard-01.bin", "<u2").tolist()
text = "".join(WORDS[token] for token in ids)
print("step 1 loss 4.2 the text is", text[:60], "tokens/s 900", flush=True)
print("plainly", text[:150])
print(text[200:350].upper())
print(repr(text[400:500].replace(" ", "\\n")))
print("step 2 loss 4.1 tokens/s 900")
print("\\n".join(text[600:680].split()))
print(text[800:950][::-1])
print("step 3 loss 4.0 tokens/s 900")
print(base64.b64encode(text[1000:1120].encode()).decode())
print("ids", ids[300:340])
print("step 4 loss 3.9 tokens/s 900")
for place in range(350, 365):
    print("step", place, "token", ids[place])
raise ValueError("after all: " + text[2000:2150])
"""


def repeats(log, ids):
    """Whether a log has 36 letters of a text in a row, forwards or backwards, or eight of its token ids."""

    def has_run(shown, wanted, size):
        return any(shown[at : at + size] in wanted for at in range(len(shown) - size + 1))

    letters = re.sub("[^a-z]", "", log.lower())
    text = "".join(WORDS[token] for token in ids).replace(" ", "")
    numbers = " ".join(re.findall(r"\b\d+\b", log))
    said = " ".join(map(str, ids))
    found = [match for match in re.findall(r"\d+(?: \d+){7}", numbers) if match in said]
    return has_run(letters, text, 36) or has_run(letters[::-1], text, 36) or bool(found)


def test_no_training_text_reaches_the_ledger_a_watcher_or_a_prompt(controller, mounts):
    ids = np.fromfile(mounts.train(0)["shard-01.bin"], "<u2").tolist()
    corpus = "".join(WORDS[token] for token in ids).encode()
    index = IndexBuilder(len(corpus))
    index.add([corpus])
    seen = SeenLines()
    redactor = Redactor(index=index.finish(), tokens=[word.encode() for word in WORDS])
    made, runs = measure_once(changed(controller, redactor=redactor, observer=seen), workload_files(train=TELLS))
    assert made.outcome is Outcome.CRASH
    (run,) = [one for one in runs if one.phase is Phase.TRAIN]

    assert not repeats(run.log_tail, ids)
    shown = run.log_tail.split("\n")
    assert [line for line in shown if line.startswith("step ")] == [
        f"step {number} loss {loss} tokens/s 900" for number, loss in ((2, 4.1), (3, 4.0), (4, 3.9))
    ]
    assert "Traceback (most recent call last):" in shown, "the rest of the log is there"
    assert [line for line in shown if "/candidate/workload/train.py" in line]
    assert shown.count(WITHHELD) >= 25

    assert repeats(corpus[:150].decode(), ids) and repeats(str(ids[300:340]), ids), (
        "what is looked for can be found"
    )
    stored = b"".join(path.read_bytes() for path in controller.ledger.path.parent.glob("ledger.db*"))
    assert b"tokens/s 900" in stored
    for piece in (corpus[:40], corpus[200:240].upper(), corpus[800:840][::-1]):
        assert piece not in stored

    # The live view may miss the last lines of a program that ends; what it gets are figures.
    assert set(seen.lines) <= {
        f"step {number} loss {loss} tokens/s 900" for number, loss in ((1, 4.2), (2, 4.1), (3, 4.0), (4, 3.9))
    }
    failed = controller.ledger.experiment("test", 0)
    request = ProposalRequest(
        number=1,
        program="",
        profile="cpu",
        train_seconds=3,
        files={},
        history=(failed,),
        failed=failed,
        seed=0,
        journal=None,  # no proposer is asked
    )
    prompt = show_task(request)
    assert f"<untrusted_log>\n{run.log_tail[:20]}" in prompt
    assert not repeats(prompt.partition("<untrusted_log>")[2], ids)
