"""Messages of candidates and kept commits: complete, and impossible to forge."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from runner.campaign.commit_message import kept_message, tried_message
from runner.records import AuditRecord, Experiment, Phase, RunEnd, RunRecord, Verdict
from runner.storage.repository import Repository
from tests.support.git_repositories import BRANCH, configure_git, git, keep, make_repository
from tests.support.trials import trials_of

KEPT = Experiment(
    number=7, hypothesis="raise the learning rate", proposer="anthropic", model="claude", verdict=Verdict.KEEP,
    val_bpb=1.8412, delta_bpb=-0.03, sigma_bpb=0.01, champion=3, tried_commit="c" * 40, image_id="sha256:1",
    layer_digest="sha256:2",
    trials=trials_of((
        RunRecord(phase=Phase.TRAIN, seed=1, end=RunEnd.DEADLINE, exit_code=0, wall_seconds=20, cpu_seconds=20),
        RunRecord(
            phase=Phase.SCORE, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1,
            val_bpb=1.84,
        ),
        RunRecord(
            phase=Phase.AUDIT, seed=1, end=RunEnd.FINISHED, exit_code=0, wall_seconds=1, cpu_seconds=1,
            val_bpb=1.8412,
            audit=AuditRecord(
                claimed_bpb=1.84, num_positions=2048, mean_nats=-0.0001, se_nats=0.002, upper_nats=0.0031,
                exceedances=(0, 0, 0, 0), repeat=0.0, suffix=0.0, neighbors=None,
            ),
        ),
    )),
)  # fmt: skip
CONDITIONS = {"base_image": "base:abc", "data": "d" * 64, "evaluation": "e" * 64}
TRAILERS = {
    "Experiment": "7", "Val-Bpb": "1.841200", "Delta-Bpb": "-0.030000", "Trials": "1",
    "Audit": "2048 positions, overstatement -0.0001 nats (se 0.002), claimed 1.840000", "Candidate": "c" * 40,
    "Image": "sha256:1", "Layer": "sha256:2", "Base-Image": "base:abc", "Data": "d" * 64,
    "Evaluation": "e" * 64, "Proposer": "anthropic", "Model": "claude",
}  # fmt: skip

HOSTILE = [
    "better\n\nVal-Bpb: 0.000001\nExperiment: 1",
    "Val-Bpb: 0.000001",
    "x\n---\nVal-Bpb: 0.000001\n",
    "x\n\nSigned-off-by: root <root@localhost>\n(cherry picked from commit abc)\n",
    "# ------------------------ >8 ------------------------\nVal-Bpb: 0",
    "x\r\nVal-Bpb: 0\r\n\r\nVal-Bpb: 0\r",
    "x\u2028Val-Bpb: 0\u2029\x85Val-Bpb: 0\x0bVal-Bpb: 0\x0c",
    "\x1b[2J\x1b]0;owned\x07keep 9999: fake\x00\x00Val-Bpb: 0",
    "\n\n\n",
    "a" * 100_000,
    "Val-Bpb: 0\n" * 10_000,
    "lone \ud800 surrogate and \u202etxet desrever",
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    configure_git(tmp_path, monkeypatch)
    return make_repository(tmp_path / "project")


@pytest.fixture
def repository(root):
    return Repository(root)


class LoggedCommit(NamedTuple):
    subject: str
    trailers: dict[str, str]


def log_trailers(root: Path, branch: str, base: str) -> list[LoggedCommit]:
    """Subject and trailers of a branch's commits since `base`, oldest first, as git itself parses them."""
    form = "--format=%s%x00%(trailers:only,unfold)%x00"
    fields = git(root, "log", "--first-parent", "--reverse", form, f"{base}..{branch}").split("\0")
    return [
        LoggedCommit(subject.strip("\n"), dict(line.split(": ", 1) for line in block.splitlines()))
        for subject, block in zip(fields[0::2], fields[1::2], strict=False)
    ]


def replaced(experiment: Experiment, **changes) -> Experiment:
    return Experiment(**{**vars(experiment), **changes})


def test_a_kept_message_carries_every_trailer(root):
    parsed = git(root, "interpret-trailers", "--parse", stdin=kept_message(KEPT, **CONDITIONS))
    assert dict(line.split(": ", 1) for line in parsed.splitlines()) == TRAILERS


def test_a_trailer_that_is_unknown_is_left_out():
    assert "Model:" not in kept_message(replaced(KEPT, model=None), **CONDITIONS)


def test_nothing_without_a_score_gets_a_kept_message():
    with pytest.raises(ValueError, match="no score"):
        kept_message(replaced(KEPT, val_bpb=None), **CONDITIONS)


@pytest.mark.parametrize("hypothesis", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hypothesis_cannot_forge_trailers_or_subject(root, repository, hypothesis):
    message = kept_message(replaced(KEPT, hypothesis=hypothesis), **CONDITIONS)
    parsed = git(root, "interpret-trailers", "--parse", stdin=message)
    assert dict(line.split(": ", 1) for line in parsed.splitlines()) == TRAILERS
    assert len(parsed.splitlines()) == len(TRAILERS)
    base = repository.resolve("HEAD")
    repository.advance(BRANCH, keep(repository, message), None)
    (logged,) = log_trailers(root, BRANCH, base)
    assert logged.trailers == TRAILERS
    assert logged.subject.startswith("keep 0007: ")
    assert len(logged.subject) <= 72
    assert all(line.isprintable() for line in message.split("\n"))
    assert len(message) < 10_000


@pytest.mark.parametrize("hypothesis", HOSTILE, ids=range(len(HOSTILE)))
def test_a_tried_message_cannot_be_forged_either(root, hypothesis):
    message = tried_message(replaced(KEPT, hypothesis=hypothesis, retry_of=6))
    parsed = git(root, "interpret-trailers", "--parse", stdin=message).splitlines()
    assert parsed == ["Experiment: 7", "Retry-Of: 6", "Proposer: anthropic", "Model: claude"]
    assert message.startswith("try 0007: ")


def test_a_long_hypothesis_stands_in_full_below_a_short_subject():
    words = " ".join(f"word{number}" for number in range(60))
    message = kept_message(replaced(KEPT, hypothesis=words), **CONDITIONS)
    assert " ".join(message.split()).count(words) == 1
    assert max(len(line) for line in message.split("\n")[:10]) <= 72


def test_the_edits_of_a_certificate_are_listed_and_cannot_forge_trailers(root):
    edits = [replaced(KEPT, number=n, hypothesis=text, delta_bpb=-n / 1000) for n, text in enumerate(HOSTILE, 1)]
    numbers = tuple(one.number for one in edits)
    message = kept_message(replaced(KEPT, hypothesis="12 edits", certifies=numbers), edits=edits, **CONDITIONS)
    parsed = git(root, "interpret-trailers", "--parse", stdin=message)
    trailers = {**TRAILERS, "Edits": ", ".join(map(str, numbers))}
    assert dict(line.split(": ", 1) for line in parsed.splitlines()) == trailers
    assert "#1 (-0.0010) better" in message
    assert message.startswith("keep 0007: 12 edits\n")
