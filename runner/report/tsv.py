"""`results.tsv`: the night in the five columns of karpathy/autoresearch.

`commit`, `val_bpb`, `memory_gb`, `status`, `description`, tab separated, one line per closed experiment.
Two differences: a crash has an empty score, never 0.000000, which would be the best one; and `memory_gb`
is empty, because nobody but the candidate could say what it used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from runner.records import Experiment, Verdict
from runner.untrusted import one_line

COLUMNS = ("commit", "val_bpb", "memory_gb", "status", "description")
SHORT_ID_CHARS = 7
DESCRIPTION_CHARS = 300

_FORMULA = ("=", "+", "-", "@")


def results_tsv(experiments: Sequence[Experiment]) -> str:
    """The table as text, header included; the caller writes it atomically.

    The score of an invalid experiment is left out: it is a claim that nobody believes.
    """
    rows = [COLUMNS, *(_row(experiment) for experiment in experiments if experiment.verdict is not None)]
    return "".join("\t".join(row) + "\n" for row in rows)


def _row(experiment: Experiment) -> tuple[str, str, str, str, str]:
    commit = experiment.kept_commit or experiment.tried_commit or ""
    scored = experiment.verdict in (Verdict.KEEP, Verdict.DISCARD)
    value = experiment.val_bpb if scored else None
    return (
        commit[:SHORT_ID_CHARS],
        "" if value is None or not math.isfinite(value) else f"{value:.6f}",
        "",
        str(experiment.verdict),
        _description(experiment.hypothesis),
    )


def _description(hypothesis: str) -> str:
    """One line that no reader of the file takes for anything but text.

    A double quote at the start makes csv readers swallow the following rows, and `=`, `+`, `-` or `@`
    makes a spreadsheet evaluate the cell; the apostrophe is the spreadsheet's own mark for text.
    """
    text = one_line(hypothesis, DESCRIPTION_CHARS).replace('"', "'")
    return f"'{text}" if text.startswith(_FORMULA) else text
