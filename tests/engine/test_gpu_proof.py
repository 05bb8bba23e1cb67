"""`bench/gpu_proof.py` on a machine with Python, NumPy and torch alone: the base image, without a network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench.gpu_bare import Bare, Sizes
from bench.gpu_docker import one_trial
from runner.sandbox.containers import PYTHON

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("--device", "cpu", "--seconds", "5", "--short-seconds", "2", "--seeds", "1", "--rows", "128")
NEEDED = ("bench", "locked_eval", "workload", "runner/__init__.py", "runner/tiers.py", "runner/profiles")


@pytest.fixture
def prove(engine, torch_image, tmp_path):
    """Run the proof in a container; returns its exit code and what it printed."""
    tree = tmp_path / "tree"
    for name in NEEDED:
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, target)

    def run(*arguments):
        container = engine.client.containers.create(
            torch_image,
            entrypoint=[PYTHON, "-m", "bench.gpu_proof", *arguments],
            environment={"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": "/tree", "HOME": "/tmp"},
            volumes={str(tree): {"bind": "/tree", "mode": "ro"}},
            tmpfs={"/tmp": "rw,exec,size=512m,mode=1777"},
            network_mode="none",
            user="10001:10001",
            working_dir="/tree",
            labels={"org.autoresearch.kind": "test"},
        )
        try:
            container.start()
            code = container.wait(timeout=200)["StatusCode"]
            return code, container.logs(stderr=False).decode(), container.logs(stdout=False).decode()
        finally:
            container.remove(force=True)

    return run


def test_a_bare_machine_trains_scores_and_audits(prove):
    code, table, said = prove(*SHORT, "--out", "/dev/stdout")
    assert code == 0, said
    facts, _ = json.JSONDecoder().raw_decode(table[table.index("{") :])
    training, evaluation, seeds = facts["training"], facts["evaluation"], facts["seeds"]
    assert training["filtered"] and evaluation["filtered"], "the system call filter is on"
    assert evaluation["score_again_equal_bits"] and evaluation["audit_again_equal_bits"]
    assert evaluation["findings"] == [] and evaluation["honest_dependence"] <= 1e-4
    assert training["tokens_per_second"] > 0 and training["first_step_seconds"] > 0
    assert 0 < evaluation["score_share_of_300s"] < 1
    assert "not_run" in facts["containers"], "the project's packages are not there"
    assert len(seeds["baseline_bpb"]) == 3 and len(seeds["variant_bpb"]) == 1
    assert seeds["sigma_bpb"] > 0
    assert "| training: tokens per second |" in table


def test_a_machine_without_a_card_is_told_so_in_one_sentence(prove):
    code, _, said = prove()
    assert code == 1
    assert said.splitlines()[0] == "error: torch sees no GPU"


def test_a_trial_in_containers_goes_through_the_sandbox(torch_image, tmp_path):
    sizes = Sizes(profile="cpu", vocab_size=2048, context_length=128, batch_rows=64, num_rows=128, threads=1)
    bare = Bare(folder=tmp_path, sizes=sizes, packages=tmp_path, on_cpu=True, give_up=0.0)
    bare.prepare(200_000)
    found = one_trial(SimpleNamespace(device="cpu", left=300.0, short_seconds=4.0, compile_seconds=0.0, bare=bare))
    assert found["outcome"] == "scored", found
    assert found["audited_bpb"] >= found["claimed_bpb"] > 0
    assert set(found["run_seconds"]) == {"train", "score", "audit"}
