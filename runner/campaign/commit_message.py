"""Commit messages of candidates and of kept improvements.

The hypothesis is a model's text. It is indented in the middle of the message, and the subject holds one cleaned
line
of it, so it cannot forge a subject, a trailer, a `---` divider or a scissors line: git recognizes all of these
only at the start of a line. The last paragraph is ours.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

from runner.records import AuditRecord, Experiment
from runner.untrusted import clean, cut, one_line

SUBJECT_CHARS = 72
BODY_CHARS = 72
BODY_LINES = 60
INDENT = "    "


def kept_message(
    experiment: Experiment,
    *,
    edits: Sequence[Experiment] = (),
    base_image: str | None = None,
    data: str | None = None,
    evaluation: str | None = None,
) -> str:
    """The message of a kept commit; every number in it can be found in the ledger.

    Args:
        experiment: a kept experiment.
        edits: those that it certifies; a single one gives the message its subject, several are listed.
        base_image: name of the base image; one that does not change when the same inputs are built again.
        data: hash of the prepared data's manifest.
        evaluation: hash of the locked evaluation.

    Raises:
        ValueError: the experiment has no score.
    """
    if experiment.val_bpb is None or not math.isfinite(experiment.val_bpb):
        raise ValueError(f"experiment {experiment.number} has no score, so it cannot be kept")
    audits = [trial.audit for trial in experiment.trials if trial.audited and trial.audit is not None]
    trailers = {
        "Experiment": str(experiment.number),
        "Edits": ", ".join(map(str, experiment.certifies)) or None,
        "Val-Bpb": f"{experiment.val_bpb:.6f}",
        "Delta-Bpb": None if experiment.delta_bpb is None else f"{experiment.delta_bpb:+.6f}",
        "Trials": str(len(audits)) if audits else None,
        "Audit": _audited(audits[-1]) if audits else None,
        "Candidate": experiment.tried_commit,
        "Image": experiment.image_id,
        "Layer": experiment.layer_digest,
        "Base-Image": base_image,
        "Data": data,
        "Evaluation": evaluation,
        "Proposer": ", ".join(dict.fromkeys(one.proposer for one in edits)) or experiment.proposer,
        "Model": ", ".join(dict.fromkeys(one.model for one in edits if one.model)) or experiment.model,
    }
    ideas = [f"#{one.number} ({one.delta_bpb or 0.0:+.4f}) {one_line(one.hypothesis)}" for one in edits]
    text = "\n".join(ideas) if len(edits) > 1 else experiment.hypothesis
    return _message("keep", experiment, text, _outcome(experiment), trailers)


def tried_message(experiment: Experiment) -> str:
    """The message of a candidate's commit, written before anything is known about its worth."""
    trailers = {
        "Experiment": str(experiment.number),
        "Retry-Of": None if experiment.retry_of is None else str(experiment.retry_of),
        "Proposer": experiment.proposer,
        "Model": experiment.model,
    }
    return _message("try", experiment, experiment.hypothesis, None, trailers)


def _audited(audit: AuditRecord) -> str:
    return (
        f"{audit.num_positions} positions, overstatement {audit.mean_nats:+.2g} nats (se {audit.se_nats:.2g}), "
        f"claimed {audit.claimed_bpb:.6f}"
    )


def _outcome(experiment: Experiment) -> str:
    score = f"val_bpb {experiment.val_bpb:.6f}"
    if experiment.delta_bpb is None:
        return f"{score}."
    against = "the champion" if experiment.champion is None else f"experiment {experiment.champion}"
    noise = "" if experiment.sigma_bpb is None else f"; noise sigma {experiment.sigma_bpb:.6f}"
    return f"{score}, {experiment.delta_bpb:+.6f} against {against}{noise}."


def _message(
    word: str, experiment: Experiment, text: str, outcome: str | None, trailers: Mapping[str, str | None]
) -> str:
    subject = f"{word} {experiment.number:04d}: {one_line(experiment.hypothesis) or 'no hypothesis'}"
    paragraphs = [cut(subject, SUBJECT_CHARS), _quoted(text)]
    if outcome is not None:
        paragraphs.append(outcome)
    paragraphs.append(
        "\n".join(f"{key}: {one_line(value)}" for key, value in trailers.items() if value is not None)
    )
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _quoted(hypothesis: str) -> str:
    """Hypotheses wrapped and indented; blank lines are dropped, so it stays one paragraph."""
    text = clean(hypothesis, max_lines=BODY_LINES, max_chars_per_line=BODY_LINES * BODY_CHARS)
    wrapped = [part for line in text.split("\n") for part in textwrap.wrap(line, BODY_CHARS - len(INDENT))]
    if len(wrapped) > BODY_LINES:
        wrapped = [*wrapped[:BODY_LINES], "…"]
    return "\n".join(INDENT + line for line in wrapped)
