"""The training loop at a fixed number of steps, and the program under a real deadline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from workload import train as training  # noqa: E402  needs torch, which only images have
from workload.data import TrainStream  # noqa: E402
from workload.model import load  # noqa: E402

CPU = torch.device("cpu")
REPO = Path(__file__).resolve().parents[2]
SIZES = SimpleNamespace(
    NUM_LAYERS=2, MODEL_WIDTH=32, NUM_HEADS=2, HEAD_DIM=16, WINDOWS="SL", VALUE_EMBEDDINGS=True,
    LOGIT_SOFTCAP=15.0, RATE_WIDTH=32, BATCH_ROWS=4, FORWARD_ROWS=4,
)  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny matrices on several threads cost time and, with another split of a sum, repeatability."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def stream():
    """A text of a few repeated words over 64 tokens, so that there is something to learn."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 64, size=(16, 5))
    tokens = words[rng.integers(0, 16, size=400)].ravel().astype("<u2")
    return TrainStream(shards=np.array_split(tokens, 3), vocab_size=64, context_length=16)


def run(stream, *, steps=12, seed=0, sizes=SIZES, checkpoint=lambda model: None):
    trainer = training.Trainer(sizes, stream, seed, CPU)
    return training.train(trainer, progress=lambda step: step / steps, checkpoint=checkpoint)


def test_the_same_seed_and_steps_repeat_exactly(stream):
    first, second = run(stream, seed=3), run(stream, seed=3)
    assert first.losses == second.losses
    for name, weight in first.model.state_dict().items():
        assert torch.equal(weight, second.model.state_dict()[name]), name


def test_another_seed_gives_another_run(stream):
    assert run(stream, seed=3).losses != run(stream, seed=4).losses


def test_training_learns_what_repeats(stream):
    losses = run(stream, steps=60).losses
    assert losses[0] == pytest.approx(np.log(64), abs=0.05)  # nearly uniform at first
    assert losses[-1] < 2.0


def test_the_run_ends_when_its_time_is_over(stream):
    summary = run(stream, steps=7)
    assert summary.steps == len(summary.losses) == 7
    assert summary.tokens == 7 * 4 * 16


def test_gradients_of_several_passes_add_up_to_those_of_one(stream):
    halves = SimpleNamespace(**{**vars(SIZES), "FORWARD_ROWS": 2})
    whole, split = run(stream, steps=3), run(stream, steps=3, sizes=halves)
    # The same crops in the same order: two draws of two rows are one draw of four.
    assert split.losses == pytest.approx(whole.losses, rel=1e-3)
    assert split.tokens == whole.tokens


def test_checkpoints_come_during_the_run_and_at_its_end(stream):
    seen = []
    final = run(stream, steps=20, checkpoint=lambda model: seen.append(model.head.weight.detach().clone()))
    assert 2 <= len(seen) <= 1 + 1 / training.CHECKPOINT_FRACTION
    assert torch.equal(seen[-1], final.model.head.weight)
    assert not torch.equal(seen[-2], seen[-1])


def test_a_loss_that_is_not_finite_ends_the_run(stream, monkeypatch):
    monkeypatch.setattr("workload.model.HEAD_INIT_STD", 1e38)
    uncapped = SimpleNamespace(**{**vars(SIZES), "LOGIT_SOFTCAP": 0.0})
    with pytest.raises(FloatingPointError, match="step 1"):
        run(stream, sizes=uncapped)


def test_the_schedule_is_flat_then_falls_to_its_end():
    assert training.learning_rate_factor(0.5 * (1 - training.WARMDOWN_FRACTION)) == 1.0
    assert training.learning_rate_factor(1.0) == pytest.approx(training.FINAL_LEARNING_RATE_FRACTION, abs=0.01)
    falling = [training.learning_rate_factor(1 - training.WARMDOWN_FRACTION * i / 10) for i in range(11)]
    assert all(late < early for late, early in pairwise(falling))


def test_the_schedule_is_never_negative_beyond_the_deadline():
    assert training.learning_rate_factor(1.1) == pytest.approx(training.FINAL_LEARNING_RATE_FRACTION, abs=0.01)


def test_the_schedule_rises_when_it_should(monkeypatch):
    monkeypatch.setattr(training, "WARMUP_FRACTION", 0.1)
    assert training.learning_rate_factor(0.0) == 0.0
    assert training.learning_rate_factor(0.05) == pytest.approx(0.5)
    assert training.learning_rate_factor(0.1) == 1.0


def test_the_program_publishes_and_stops_by_itself_before_its_deadline(stream, tmp_path):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    out.mkdir()
    for number, shard in enumerate(stream.shards):
        shard.tofile(data / f"shard-{number:02d}.bin")
    meta = {"vocab_size": 64, "context_length": 16, "bos_token": 63}
    (data / "meta.json").write_text(json.dumps(meta))
    environment = {
        **os.environ,
        "DATA_DIR": str(data),
        "OUT_DIR": str(out),
        "SEED": "5",
        "DEADLINE_SECONDS": "2.5",
        "PROFILE": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    # As in a container, the clock starts when torch is already imported.
    program = "import runpy, torch; runpy.run_module('workload.train', run_name='__main__', alter_sys=True)"
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=REPO, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - started < 30
    lines = result.stdout.splitlines()
    assert lines[0].startswith("step 1 loss ")
    assert lines[-1].startswith("done: steps ")
    assert float(lines[-1].rpartition(" ")[2]) < 2.5
    assert "val" not in result.stdout and "bpb" not in result.stdout
    assert [path.name for path in out.iterdir()] == ["checkpoint"]
    assert load(out / "checkpoint", CPU)(torch.zeros(1, 16, dtype=torch.int64)).shape == (1, 16, 64)
