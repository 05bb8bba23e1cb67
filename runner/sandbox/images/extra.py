"""Packages of the user's own in the base image: `images/extra.in`, resolved on the host into a lock with hashes.

The packages of the base image keep their versions: what does not fit them is refused. The lock is written beside
`extra.in`, so that it can be committed, and belongs to the key of the base image. It is resolved again when
`extra.in` or the lock of the base image changes.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from runner.errors import ImageError
from runner.sandbox.images.wheels import PYTHON_VERSION, platforms

RESOLVE_SECONDS = 300.0
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", re.MULTILINE)
_NORMAL = re.compile(r"[-_.]+")


def requirements(images_dir: Path) -> list[str]:
    """Lines of `extra.in` that name packages; empty when there is no such file."""
    path = images_dir / "extra.in"
    if not path.is_file():
        return []
    lines = (line.partition("#")[0].strip() for line in path.read_text("utf-8", "replace").splitlines())
    return [line for line in lines if line]


def locked(images_dir: Path, kind: str, base_lock: bytes) -> bytes | None:
    """The lock of the extra packages, if it fits `extra.in` and the base image's lock; empty without any.

    Returns: None when it must be resolved (again).
    """
    wanted = requirements(images_dir)
    if not wanted:
        return b""
    path = _path(images_dir, kind)
    if not path.is_file():
        return None
    content = path.read_bytes()
    return content if content.startswith(_heading(wanted, base_lock)) else None


def resolve(images_dir: Path, kind: str, base_lock: bytes, extra_index: str | None) -> bytes:
    """Choose versions by pip, and write the lock.

    Raises:
        ImageError: pip found no wheels that fit the base image.
    """
    wanted = requirements(images_dir)
    pinned = {_normal(name): version for name, version in _PINNED.findall(base_lock.decode("utf-8"))}
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pinned.items()), "utf-8")
        command = [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--no-input", "--quiet"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--target", folder),
            *("--python-version", PYTHON_VERSION, "--implementation", "cp"),
            *(argument for platform in platforms() for argument in ("--platform", platform)),
            *(("--extra-index-url", extra_index) if extra_index else ()),
            *("--constraint", str(constraints), "--report", str(report), *wanted),
        ]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=RESOLVE_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise _refused("pip took too long", images_dir) from error
        if done.returncode != 0 or not report.is_file():
            lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            reason = lines[0].removeprefix("ERROR: ") if lines else f"pip ended with {done.returncode}"
            raise _refused(reason, images_dir)
        found = json.loads(report.read_text("utf-8"))["install"]
    entries = sorted(_entry(one, images_dir) for one in found if _normal(one["metadata"]["name"]) not in pinned)
    content = _heading(wanted, base_lock) + "".join(entries).encode()
    _path(images_dir, kind).write_bytes(content)
    return content


def _entry(found: dict[str, Any], images_dir: Path) -> str:
    """One package of pip's report as a line of a lock."""
    name, version = found["metadata"]["name"], found["metadata"]["version"]
    digest = found["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
    if digest is None:
        raise _refused(f"{name} comes without a hash", images_dir)
    return f"{_normal(name)}=={version} --hash=sha256:{digest}\n"


def _refused(reason: str, images_dir: Path) -> ImageError:
    return ImageError(
        f"{images_dir / 'extra.in'} cannot be resolved: {reason}",
        "name packages that have wheels for Python 3.11 on x86_64 Linux and fit the versions of the base image",
    )


def _heading(wanted: list[str], base_lock: bytes) -> bytes:
    """First line of a lock; another one makes it stale."""
    digest = hashlib.sha256(json.dumps(wanted).encode() + base_lock).hexdigest()
    return f"# made from extra.in, inputs {digest}\n".encode()


def _path(images_dir: Path, kind: str) -> Path:
    return images_dir / f"extra.{kind}.lock"


def _normal(name: str) -> str:
    return _NORMAL.sub("-", name).lower()
