"""Sessions in one warm container: every phase is a fork of a process that has imported torch.

The same candidate, launcher, scorer, auditor and judge as ever; what is saved is four containers a specimen.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.config import Config
from runner.records import Files, Phase, RunEnd, RunRecord
from runner.sandbox.engine import LABEL, Engine
from runner.sandbox.session import Mounts

FORKS = Path(__file__).with_name("forks.py")
BOXES = "/boxes"
ANSWER_SECONDS = 120.0
"""More than any limit of a phase."""


class WarmContainer:
    """Use `open_container`."""

    def __init__(self, boxes: Path, stream: Any) -> None:
        self.boxes = boxes
        self._stream = stream
        self._pending = b""
        self._made = 0
        assert self._line() == b"ready"

    def ask(self, **request: Any) -> dict[str, Any]:
        """One phase, from its start to its end."""
        self._stream._sock.sendall(json.dumps(request).encode() + b"\n")
        return json.loads(self._line())

    def _line(self) -> bytes:
        while b"\n" not in self._pending:
            head = self._read(8)  # the engine's frame: kind of stream, three bytes of nothing, length
            piece = self._read(int.from_bytes(head[4:], "big"))
            assert head[0] == 1, f"the warm container failed: {piece.decode()}"
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        return line

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._stream._sock.recv(size - len(data))
            assert piece, "the warm container ended"
            data += piece
        return data

    def box(self) -> Path:
        """A new folder that the container sees as well."""
        self._made += 1
        path = self.boxes / str(self._made)
        path.mkdir()
        return path


@contextmanager
def open_container(engine: Engine, image_id: str, locked: Path, boxes: Path, core: int) -> Iterator[WarmContainer]:
    """Start it; remove it whatever happens."""
    (launcher,) = locked.rglob("launcher.py")
    # A client of its own: the production path closes the connections of the shared one.
    with closing(engine.another_client()) as client:
        container = client.api.create_container(
            image_id,
            ["/opt/venv/bin/python", "-I", "/forks.py", f"/locked/{launcher.relative_to(locked)}"],
            user="0:0",
            stdin_open=True,
            environment=["OMP_NUM_THREADS=1", "MKL_NUM_THREADS=1"],
            labels={f"{LABEL}kind": "warm"},
            host_config=client.api.create_host_config(
                network_mode="none",
                cpuset_cpus=str(core),
                binds=[f"{FORKS}:/forks.py:ro", f"{locked}:/locked:ro", f"{boxes}:{BOXES}"],
            ),
        )["Id"]
        try:
            params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            with closing(client.api.attach_socket(container, params=params)) as stream:
                stream._sock.settimeout(ANSWER_SECONDS)
                client.api.start(container)
                yield WarmContainer(boxes, stream)
        finally:
            client.api.remove_container(container, force=True)


@dataclass(frozen=True, kw_only=True)
class Answering:
    """A phase that answers once it gets the start signal."""

    session: WarmSession
    phase: Phase
    program: str
    rows: Path
    limit_seconds: float
    max_bytes: int

    def go(self, seed: int) -> tuple[RunRecord, bytes | None]:
        """Run it; returns how it ended, and the answer of a candidate that finished."""
        box = self.session.new_box()
        shutil.copytree(self.rows, box / "rows")
        if self.session.checkpoint.is_file() and not self.session.checkpoint.is_symlink():
            shutil.copyfile(self.session.checkpoint, box / "published")
        run = self.session.run(self.phase, self.program, box, seed, self.limit_seconds, {"ROWS_DIR": "/rows"})
        answer = (box / "output").read_bytes()
        return run, answer if run.end is RunEnd.FINISHED and len(answer) <= self.max_bytes else None


@dataclass(frozen=True, kw_only=True)
class WarmSession:
    """What `runner.sandbox.Session` is for a candidate with containers of its own."""

    container: WarmContainer
    config: Config
    mounts: Mounts
    files: Files
    trained: Path  # the box of its training
    max_claims_bytes: int

    @property
    def checkpoint(self) -> Path:
        """What training published."""
        return self.trained / "out" / "checkpoint"

    def new_box(self) -> Path:
        """A box with the candidate in it."""
        box = self.container.box()
        for name, content in self.files.items():
            path = box / "candidate" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return box

    def run(
        self, phase: Phase, program: str, box: Path, seed: int, limit_seconds: float, variables: dict[str, str]
    ) -> RunRecord:
        """One fork, from its start to its end."""
        environment = {
            "PATH": "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp",
            "TMPDIR": "/tmp", "TORCHINDUCTOR_CACHE_DIR": "/tmp/inductor", "TRITON_CACHE_DIR": "/tmp/triton",
            "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PROFILE": self.config.profile,
            "VOCAB_SIZE": str(self.config.vocab_size), "SCORE_BATCH_ROWS": str(self.config.score_batch_rows),
            "OUT_DIR": "/tmp/out", **variables,
        }  # fmt: skip
        facts = self.container.ask(
            phase=program, box=f"{BOXES}/{box.name}", environment=environment, limit=limit_seconds
        )
        status = facts["status"]
        end = RunEnd.DEADLINE if status is None else RunEnd.FAILED if status else RunEnd.FINISHED
        seconds = round(facts["wall_seconds"], 4)
        return RunRecord(
            phase=phase, seed=seed, end=end, exit_code=status, wall_seconds=seconds, cpu_seconds=seconds
        )

    def train(self, seed: int, on_line=None, on_start=None, on_end=None, gives_up=None) -> RunRecord:
        """Run `workload.train` once."""
        box = self.trained
        (box / "out").mkdir()
        os.chown(box / "out", 10001, 10001)
        (box / "data").mkdir()
        for name, path in self.mounts.train(seed).items():
            shutil.copyfile(path, box / "data" / name)
        limit = self.config.train_seconds
        variables = {"DATA_DIR": "/data", "OUT_DIR": "/out", "SEED": str(seed), "DEADLINE_SECONDS": str(limit)}
        if on_start is not None:
            on_start()
        run = self.run(Phase.TRAIN, "train", box, seed, limit, variables)
        if on_end is not None:
            on_end()
        return replace(run, log_tail=(box / "output").read_text(errors="replace"))

    def answering(self, phase: Phase, program: str, rows: Path, limit: float, max_bytes: int) -> Answering:
        """A phase that waits for its turn."""
        return Answering(
            session=self, phase=phase, program=program, rows=rows, limit_seconds=limit, max_bytes=max_bytes
        )

    def score(self, seed: int, batch_rows: int) -> tuple[RunRecord, bytes | None]:
        """Score the validation rows."""
        limit = self.config.score_seconds
        return self.answering(Phase.SCORE, "score", self.mounts.val, limit, self.max_claims_bytes).go(seed)

    @contextmanager
    def auditor(self, rows: Path, *, batch_rows: int, limit_seconds: float, max_bytes: int) -> Iterator[Answering]:
        """Answer the rows of an audit."""
        yield self.answering(Phase.AUDIT, "audit", rows, limit_seconds, max_bytes)

    def score_test(self, seed: int, batch_rows: int, max_bytes: int) -> tuple[RunRecord, bytes | None]:
        """Score the sealed test rows."""
        limit = self.config.score_seconds
        return self.answering(Phase.TEST, "score", self.mounts.test, limit, max_bytes).go(seed)


def sessions(container: WarmContainer, files: Files) -> Any:
    """What stands in the place of `open_session` for one candidate."""

    @contextmanager
    def open_session(_engine, *, config, mounts, image_id, owner, max_claims_bytes):
        session = WarmSession(
            container=container, config=config, mounts=mounts, files=files, trained=container.boxes,
            max_claims_bytes=max_claims_bytes,
        )  # fmt: skip
        yield replace(session, trained=session.new_box())

    return open_session
