"""Training, scoring and audits without Docker: the locked evaluation's own programs in processes of their own.

Everything that a container would add is missing: PID 1 with its deadline, mounts, users, limits. What runs is the
same launcher, system call filter, scorer and auditor. Standard library and NumPy only.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
STARTUP_SECONDS = 180.0  # longest wait for `import torch`, which is outside of every clock
ANSWER_SECONDS = 300.0
PASSED_ON = ("LD_LIBRARY_PATH", "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CC")

# The launcher's own folder for candidates is fixed; here it is a folder of this run. `-I` ignores a user's
# packages, and a bare machine may have torch nowhere else.
SHIM = """
import importlib.util, sys
launcher_path, candidate, packages = sys.argv[1:4]
del sys.argv[1:4]
sys.path.append(packages)
spec = importlib.util.spec_from_file_location("launcher", launcher_path)
launcher = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launcher)
launcher.CANDIDATE_ROOT = candidate
launcher.main()
"""


class ProofError(Exception):
    """A part of the proof failed, in one sentence."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The evaluation that is imitated."""

    profile: str  # name of a module of workload/sizes/
    vocab_size: int
    context_length: int
    batch_rows: int
    num_rows: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One process from its start signal to its end."""

    seconds: float
    startup_seconds: float
    exit_code: int | None  # None: killed at its deadline
    output: bytes
    filtered: bool  # the kernel says that a system call filter was on it


@dataclass(kw_only=True)
class Bare:
    """Programs, data and processes of one proof in one folder."""

    folder: Path
    sizes: Sizes
    packages: Path  # where torch is installed
    on_cpu: bool
    give_up: float  # on the monotonic clock: no process runs longer
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def prepare(self, num_train: int) -> None:
        """Copy the locked evaluation, and write synthetic text."""
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "locked_eval", self.folder / "locked" / "locked_eval", ignore=ignored)
        data, rows = self.folder / "data", self.folder / "rows"
        data.mkdir()
        rows.mkdir()
        sizes, num_shards = self.sizes, 8
        length = sizes.context_length + 1
        text = synthetic_text(sizes.vocab_size, num_train + sizes.num_rows * length, seed=7)
        train = text[: len(text) - sizes.num_rows * length]
        for index, shard in enumerate(np.array_split(train, num_shards)):
            shard.astype("<u2").tofile(data / f"shard-{index:02d}.bin")
        facts = {"vocab_size": sizes.vocab_size, "context_length": sizes.context_length}
        (data / "meta.json").write_text(json.dumps({**facts, "bos_token": sizes.vocab_size - 1}))
        np.save(rows / "rows.npy", text[len(train) :].reshape(sizes.num_rows, length))

    def train_text(self) -> np.ndarray:
        """The tokens of the first shard."""
        return np.fromfile(self.folder / "data" / "shard-00.bin", "<u2")

    def token_bytes(self) -> np.ndarray:
        """`(V,)` bytes of each synthetic token: some for text, none for the beginning of a document."""
        sizes = np.full(self.sizes.vocab_size, 3, dtype=np.uint16)
        sizes[-1] = 0
        return sizes

    def program(self, name: str, edit=lambda path, text: text) -> Path:
        """A copy of `workload/` with an edit; returns the folder that joins `sys.path`."""
        root = self.folder / name
        if not root.exists():
            shutil.copytree(ROOT / "workload", root / "workload", ignore=shutil.ignore_patterns("__pycache__"))
            for path in (root / "workload").rglob("*.py"):
                path.write_text(edit(path.relative_to(root).as_posix(), path.read_text("utf-8")), "utf-8")
        return root

    def train(self, program: Path, out: Path, *, seed: int, seconds: float, caches: str) -> Ran:
        """Train once, killed at the deadline.

        Args:
            out: gets the checkpoint.
            caches: name of a folder for compiled kernels; an empty one compiles everything.
        """
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        environment = {
            "DATA_DIR": str(self.folder / "data"),
            "OUT_DIR": str(out),
            "SEED": str(seed),
            "DEADLINE_SECONDS": f"{seconds:g}",
        }
        return self._run("train", program, environment, seconds, caches)

    def answer(self, phase: str, program: Path, out: Path, rows: Path) -> Ran:
        """Score or audit what was published, as a process that has never seen the training."""
        environment = {
            "ROWS_DIR": str(rows),
            "OUT_DIR": str(out),
            "VOCAB_SIZE": str(self.sizes.vocab_size),
            "SCORE_BATCH_ROWS": str(self.sizes.batch_rows),
        }
        ran = self._run(phase, program, environment, ANSWER_SECONDS, f"{phase}-{time.monotonic_ns()}")
        if ran.exit_code != 0:
            reasons = {None: "took too long", 3: "found no checkpoint", 4: "could not load", 5: "failed forward"}
            raise ProofError(f"the {phase} process {reasons.get(ran.exit_code, f'ended with {ran.exit_code}')}")
        return ran

    def _run(self, phase: str, program: Path, extra: dict[str, str], limit: float, caches: str) -> Ran:
        """Start the launcher, wait until it is ready, send the start signal, and read what it prints."""
        scratch = self.folder / "caches" / caches
        scratch.mkdir(parents=True, exist_ok=True)
        ready_read, ready_write = os.pipe()
        command = [sys.executable, "-I", "-c", SHIM,
                   str(self.folder / "locked" / "locked_eval" / "container" / "launcher.py"),
                   str(program), str(self.packages), phase, str(ready_write)]  # fmt: skip
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if phase == "train" else subprocess.DEVNULL,
            env=self._environment(scratch, extra),
            pass_fds=(ready_write,),
            start_new_session=True,
        )
        os.close(ready_write)
        self.children.append(child)
        chunks: list[bytes] = []
        reader = threading.Thread(target=lambda: chunks.append(child.stdout.read()), daemon=True)
        reader.start()
        began = time.monotonic()
        timer = threading.Timer(STARTUP_SECONDS, self.kill, (child,))
        timer.start()
        came_up = os.read(ready_read, 1) == b"r"
        timer.cancel()
        os.close(ready_read)
        if not came_up:
            self.kill(child)
            reader.join()
            last = b"".join(chunks).decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise ProofError(f"the {phase} process did not come up: {last or f'exit code {child.wait()}'}")
        filtered = is_filtered(child.pid)
        started = time.monotonic()
        child.stdin.write(b"s")
        child.stdin.close()
        try:
            code = child.wait(max(1.0, min(limit, self.give_up - started)))
        except subprocess.TimeoutExpired:
            code = None
        seconds = time.monotonic() - started
        self.kill(child)
        reader.join()
        return Ran(
            seconds=seconds,
            startup_seconds=started - began,
            exit_code=code,
            output=b"".join(chunks),
            filtered=filtered,
        )

    def _environment(self, scratch: Path, extra: dict[str, str]) -> dict[str, str]:
        threads = str(self.sizes.threads)
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if self.on_cpu else {}
        return {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
            "TRITON_CACHE_DIR": str(scratch / "triton"),
            "CUDA_CACHE_PATH": str(scratch / "cuda"),
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "PROFILE": self.sizes.profile,
            **hidden,
            **extra,
        }

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """End a process with everything that it started."""
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    def close(self) -> None:
        """End what still runs."""
        for child in self.children:
            if child.poll() is None:
                self.kill(child)


def is_filtered(pid: int) -> bool:
    """Whether a process has a system call filter, and cannot gain privileges."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return facts.get("Seccomp", "").strip() == "2" and facts.get("NoNewPrivs", "").strip() == "1"


def synthetic_text(vocab_size: int, num_tokens: int, seed: int) -> np.ndarray:
    """Words of two to eight tokens in the proportions of a language, in documents of a hundred words.

    There is something to learn, and nothing of any corpus. Returns `(num_tokens,)` uint16.
    """
    rng = np.random.default_rng(seed)
    num_words, bos = 4096, vocab_size - 1
    words = rng.integers(0, bos, (num_words, 8), dtype=np.uint16)
    lengths = rng.integers(2, 9, num_words)
    words[-1, 0], lengths[-1] = bos, 1  # the last word begins a document
    weights = 1.0 / np.arange(1, num_words)
    chosen = rng.choice(num_words - 1, size=num_tokens // 3 + 1, p=weights / weights.sum())
    chosen[::100] = num_words - 1
    text = words[chosen][np.arange(8) < lengths[chosen][:, None]]
    return text[:num_tokens] if len(text) >= num_tokens else np.resize(text, num_tokens)
