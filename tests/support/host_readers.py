"""Every function of the host that reads text of a candidate or a model, called with one text in every place."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
from rich.console import Console

from locked_eval.preparation.index import IndexBuilder
from runner import edits
from runner.campaign.commit_message import kept_message, tried_message
from runner.cli.display import verdict_line
from runner.cli.workspace import as_json
from runner.corpus.redaction import Redactor
from runner.edits import contamination
from runner.edits.contamination import SealedText
from runner.evaluation.loss_monitor import LossMonitor
from runner.proposers import constants, replay
from runner.proposers.researcher import digest, duplicates, experiments_tool, plateau, prompt, submit_tool
from runner.proposers.researcher.editor_tool import ScratchCopy
from runner.records import Experiment, Figures, Outcome, Patch, Phase, ProposalRequest, Replace, Verdict, Write
from runner.report import explain, findings, notes, plot, summary, table, transcript
from runner.sandbox.supervision import Reports, State, record
from runner.untrusted import clean, progress, tokens_per_second, training_loss
from tests.support.trials import failed, scored

PATH = "workload/odd.py"
BASE = {"workload/__init__.py": b"", "workload/model.py": b"WIDTH = 64\n", "workload/train.py": b"RATE = 0.02\n"}
SEALED = SealedText(validation=np.array([1], np.uint64), test=np.array([2], np.uint64), tokens=[b"a", b"b"])
REDACTOR = Redactor(index=IndexBuilder(0).finish(), tokens=[b"a", b"b"])
FIGURES = Figures(
    trials=(1,), pool=(2,), delta_bpb=-0.001, se_bpb=0.001, sigma_bpb=0.001, better=0.7, effect_bpb=-0.002,
    low_bpb=-0.002, high_bpb=0.001,
)  # fmt: skip


def read_everywhere(data):
    """Show a file to all that read one; whatever it is, each has an answer."""
    text = data.decode("utf-8", "surrogateescape")
    after = {**BASE, PATH: data}
    edits.check_tree(after)
    edits.count_logic(after)
    edits.fingerprint(after)
    contamination.find(BASE, after, SEALED)
    prompt.show_files(after)
    for constant in constants.find(after, "cpu"):
        for factor in (0.25, 0.99, 1.5, 4.0):
            literal = constants.scaled(constant, factor)
            assert literal != constant.literal
            constants.replaced(after, constant, literal)
    read_log(text)
    replay.split(text)
    edits.apply(BASE, (Patch(text=text),))
    edits.apply({**BASE, PATH: b"old"}, (Replace(path=PATH, old="old", new=text),))
    bench = ScratchCopy(after)
    for command in ({"command": "view"}, {"command": "create", "file_text": text},
                    {"command": "insert", "insert_line": 0, "insert_text": text},
                    {"command": "str_replace", "old_str": text, "new_str": "x = 1\n"}):  # fmt: skip
        bench.edit({"path": PATH, **command})
    diff = edits.diff(BASE, after)
    edits.diff(after, BASE)
    read_ledger(diff, text, after)
    applied = edits.apply(BASE, (Write(path=PATH, content=text),))
    if not isinstance(applied, edits.Refusal):
        assert edits.apply(BASE, (Patch(text=edits.diff(BASE, applied)),)) == applied
        other = {**BASE, "workload/train.py": b"RATE = 0.04\n"}
        assert not isinstance(edits.carry_over(other, base=BASE, changed=applied), edits.Refusal)
        bench = ScratchCopy(BASE)
        bench.edit({"command": "create", "path": PATH, "file_text": text})
        assert edits.apply(BASE, bench.changes()) == applied


def read_log(text):
    """What is read of a running training and of its log, and what PID 1 would make of such a line."""
    monitor, reports = LossMonitor(train_seconds=1.0, calibration=None, early_stop_holdout=0.0), Reports()
    monitor.start()
    reports.feed(text.encode("utf-8", "replace") + b"\n")
    record(Phase.TRAIN, 1, State(exit_code=0), reports, text)
    shown = clean(text, 20)
    REDACTOR.redact(shown)
    tokens_per_second(shown)
    for line in shown.split("\n"):
        progress(line)
        training_loss(line)
        monitor.hear(line)
    monitor.gives_up()


def read_ledger(diff, text, after):
    """What a restart and a report read of an experiment that had the text in every place."""
    common = {
        "hypothesis": text,
        "proposer": "p",
        "category": text,
        "reason": text,
        "champion": 0,
        "log_tail": text,
    }
    first = Experiment(number=0, hypothesis="baseline", proposer="p", verdict=Verdict.KEEP, val_bpb=2.0)
    some = [
        Experiment(number=number, diff=diff, verdict=verdict, val_bpb=1.9, figures=FIGURES, **common)
        for number, verdict in enumerate((Verdict.DISCARD, Verdict.CRASH, Verdict.INFRA, Verdict.DISCARD), 1)
    ]
    told = [first, *some]
    digest.digest(told)
    duplicates.repeats(BASE, after, told)
    experiments_tool.read({"numbers": [1, 2]}, told)
    experiments_tool.read({"status": "any", "file": text, "category": text}, told)
    tried_message(some[0])
    kept_message(some[0], edits=some)
    read_in_the_morning([replace(first, trials=(scored(2.0),)), *some])
    tries = ProposalRequest(
        number=5, program=text, profile="cpu", train_seconds=1, files=after, history=tuple(told), running=some[0],
        failed=some[1], seed=1, journal=None,
    )  # fmt: skip
    prompt.opening(tries, plateau.plateau(told, 2))


def read_in_the_morning(experiments):
    """What people are shown; the picture is a test of its own, since it takes half a second."""
    whole = [replace(one, trials=(failed(Outcome.CRASH, reason=one.reason),)) for one in experiments[1:]]
    experiments = [experiments[0], *whole]
    for one in experiments:
        explain.explain(one)
        verdict_line(one)
        json.dumps(as_json(one, full=True))
    table.plain_lines(experiments)
    table.results_tsv(experiments)
    with Console(file=io.StringIO(), width=60, force_terminal=True) as console:
        console.print(table.table(experiments, 60))
    summary.summary_text(experiments)
    findings.findings_tsv(findings.find(experiments))
    notes.certificate_line(notes.certificates(experiments))


def draw(text, path):
    """The picture of a campaign with this text at each keep."""
    keeps = [
        Experiment(number=number, hypothesis=text, proposer="p", verdict=Verdict.KEEP, val_bpb=2.0 - number / 100,
                   figures=None if number == 0 else FIGURES, champion=None if number == 0 else number - 1,
                   kept_commit="c", trials=(scored(2.0 - number / 100),))
        for number in range(3)
    ]  # fmt: skip
    plot.progress_png(keeps, path, text)


def read_answer(value):
    """What a model's answer goes through: calls of the tools with any JSON, and their record."""
    ScratchCopy(BASE).edit(value)
    ScratchCopy(BASE).delete(value)
    submit_tool.read(value)
    experiments_tool.read(value, [Experiment(number=0, hypothesis="h", proposer="p", verdict=Verdict.KEEP)])
    for full in (False, True):
        transcript.transcript(value, full=full)
        exchange = {"thinking": value, "text": value, "stop": value, "calls": [{"name": value, "input": value}],
                    "results": [{"text": value, "is_error": value}], "words": value, "usage": value}  # fmt: skip
        transcript.transcript(
            {"model": value, "opening": {"system": value, "material": value}, "exchanges": [exchange],
             "outcome": value}, full=full
        )  # fmt: skip
