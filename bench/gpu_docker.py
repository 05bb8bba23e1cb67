"""One trial of the GPU proof in containers: the sandbox, the trial and the scrub as a night uses them."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import structlog

from bench.gpu_bare import ROOT
from locked_eval.preparation.index import IndexBuilder
from runner.cli.options import resolve_config
from runner.corpus.redaction import Redactor
from runner.errors import AutoresearchError
from runner.evaluation.evaluator import EvaluationRows, Evaluator, Program, TrialRequest
from runner.evaluation.trial import open_trial
from runner.records import AuditPolicy, RunRecord
from runner.sandbox import Engine, connect, images, remove_orphans
from runner.sandbox.images.base import BaseImage
from runner.sandbox.reservation import Claimant, reserve
from runner.sandbox.session import Mounts
from runner.storage import pinned_evaluation

CONTROLLER = "gpu-proof"
SHORTEST = 60.0
"""Seconds that must be left of the proof for a trial in containers."""


class _Silent:
    """Receives progress, and drops it."""

    def __getattr__(self, _name):
        return lambda *_arguments: None


def one_trial(proof) -> dict[str, object]:
    """Train, score and audit in containers; says why not where that is impossible.

    Args:
        proof: a `bench.gpu_proof.Proof`.
    """
    try:
        engine = connect()
    except AutoresearchError as error:
        return {"not_run": error.message}
    with closing(engine.client):
        base = images.find_base(engine.client, proof.device)
        if base is None:
            return {"not_run": f"there is no base image: autoresearch prepare --profile {proof.device}"}
        if proof.left < SHORTEST + proof.short_seconds + 1.5 * proof.compile_seconds:
            return {"not_run": "there was no time left"}
        try:
            return _trial(proof, engine, base)
        except AutoresearchError as error:
            return {"failed": f"{error.message} ({error.remedy})"}
        finally:
            remove_orphans(engine, CONTROLLER)
            images.remove_images(engine.client, {"controller": CONTROLLER})


def _trial(proof, engine: Engine, base: str) -> dict[str, object]:
    seconds = proof.short_seconds + 1.5 * proof.compile_seconds
    config = resolve_config(
        ROOT, lambda _: None, profile=proof.device, tag="gpu-proof", train_seconds=seconds, max_disturbance=1.0
    )
    locked, _ = pinned_evaluation.pin(proof.bare.folder / "state")
    rows = np.load(proof.bare.folder / "rows" / "rows.npy")
    train = {path.name: path for path in (proof.bare.folder / "data").iterdir()}
    files = {
        path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted((ROOT / "workload").rglob("*.py"))
    }
    _let_read(proof.bare.folder)
    with ExitStack() as stack:
        claimant = Claimant(controller=CONTROLLER, campaign=config.tag, folder=ROOT)
        reserved = stack.enter_context(reserve(engine, config, claimant))
        folder = proof.bare.folder
        evaluator = Evaluator(
            config=reserved,
            engine=engine,
            controller=CONTROLLER,
            mounts=Mounts(locked=locked, train=lambda _: train, val=folder / "rows", test=folder / "rows"),
            rows=EvaluationRows(
                val_rows=rows,
                test_rows=rows,
                token_bytes=proof.bare.token_bytes(),
                train_text=proof.bare.train_text(),
            ),
            redactor=Redactor(index=IndexBuilder(0).finish(), tokens=[]),
            scratch=folder / "audits",
            claims=folder / "claims",
            base=BaseImage(base, lambda: base),
            observer=_Silent(),
        )
        program = Program(number=0, files=files, commit="gpu-proof")
        runs: list[RunRecord] = []
        events = stack.enter_context(structlog.testing.capture_logs())
        image = evaluator.ensure_image(program)
        request = TrialRequest(program=program, seed=1, tolerate_contention=True)
        began = time.monotonic()
        with open_trial(evaluator, request, image.id, runs) as trial:
            claimed = trial.claim()
            audited, _ = trial.examine(AuditPolicy(audit=True), None)
        seconds = time.monotonic() - began
    scrubs = [event for event in events if event["event"] == "gpu_scrubbed"]
    return {
        "outcome": str(audited.outcome),
        "reason": claimed.reason or audited.reason,
        "engine": engine.version,
        "claimed_bpb": claimed.val_bpb,
        "audited_bpb": audited.val_bpb,
        "wall_seconds": round(seconds, 1),
        "run_seconds": {str(run.phase): run.wall_seconds for run in runs},
        "scrub_seconds": [event["seconds"] for event in scrubs],
        "scrub_fraction": [event["fraction"] for event in scrubs],
    }


def _let_read(folder: Path) -> None:
    """Let the candidate's uid read what containers mount; the folder of a proof is private at first."""
    folder.chmod(0o755)
    for mounted in (folder / "rows", folder / "data"):
        mounted.chmod(0o755)
        for path in mounted.iterdir():
            path.chmod(0o644)
