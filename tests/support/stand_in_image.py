"""Images for tests: the base image of the cpu profile, and the same one with a stand-in for torch."""

from __future__ import annotations

import fcntl
import hashlib
import io
import tarfile
from pathlib import Path

from runner.sandbox import images
from runner.sandbox.images.builder import Build, build, context_tar
from runner.sandbox.images.cleanup import label_filter

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(__file__).with_name("stand_in")
DOCKERFILE = """\
FROM {base}
LABEL org.autoresearch.kind=stand-in org.autoresearch.inputs={inputs}
ADD stand-in.tar /
RUN /opt/venv/bin/python -m compileall -q /opt/stand-in
"""
PATH_FILE = "opt/venv/lib/python3.11/site-packages/stand-in.pth"
"""Executed at each start of the interpreter, `-I` included: the stand-in comes before the real torch."""


def torch_image(engine) -> str:
    """The id of the base image with the real torch; built when missing, which takes minutes."""
    return images.ensure_base(engine.client, "cpu", ROOT / ".autoresearch", print)


def stand_in_image(engine) -> str:
    """The id of the image whose torch is the stand-in; built when missing, which takes a second."""
    base, layer = torch_image(engine), _layer()
    inputs = hashlib.sha256(base.encode() + DOCKERFILE.encode() + layer).hexdigest()[:12]
    state = ROOT / ".autoresearch"
    state.mkdir(exist_ok=True)
    with (state / "stand-in.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the workers of one test run build it once
        found = engine.client.images.list(filters=label_filter({"kind": "stand-in", "inputs": inputs}))
        if found:
            return str(found[0].id)
        context = [
            ("Dockerfile", DOCKERFILE.format(base=base, inputs=inputs).encode()),
            ("stand-in.tar", layer),
        ]
        options = Build(
            doing="building the stand-in",
            timeout_seconds=60,
            tag=f"autoresearch-test:stand-in-{inputs}",  # without one, it would go with the last of its candidates
        )
        return build(engine.client, context_tar(context), options)


def _layer() -> bytes:
    """The stand-in under /opt/stand-in, and the line that puts it first on `sys.path`."""
    files = {
        f"opt/stand-in/{path.relative_to(SOURCE)}": path.read_bytes() for path in sorted(SOURCE.rglob("*.py"))
    }
    files[PATH_FILE] = b"import sys; sys.path.insert(0, '/opt/stand-in')\n"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size = 0o644, len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
