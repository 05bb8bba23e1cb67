"""The locked evaluation on the host: refuse a changed one, and pin a copy that a night uses.

The copy makes a running campaign independent of the checkout: switching branches at midnight must not
change the code that judges.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from tempfile import mkdtemp

import locked_eval
from locked_eval import manifest
from runner.errors import LockedEvalError
from runner.failpoints import Step, around


def pin(state_dir: Path) -> tuple[Path, str]:
    """Check the locked evaluation against its manifest and return a pinned copy of it.

    Returns: the folder to mount at `/locked` (it holds `locked_eval/`), and the combined hash.

    Raises:
        LockedEvalError: a file differs from the manifest.
    """
    source = Path(locked_eval.__file__).parent
    refuse_changes(source)
    digest = manifest.combined(source)
    folder = state_dir / "locked" / digest[:16]
    if not folder.exists() or manifest.differences(folder / "locked_eval"):
        shutil.rmtree(folder, ignore_errors=True)  # a copy, torn by a power cut or touched by somebody
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".partial-*"):  # of a controller that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(mkdtemp(dir=folder.parent, prefix=".partial-"))
        shutil.copytree(source, partial / "locked_eval", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        # Whatever the umask here: uid 10001 must read this, and so must a PID 1 that may not override modes.
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        with around(Step.EVALUATION_PINNED):
            partial.rename(folder)
    return folder, digest


def refuse_changes(folder: Path) -> None:
    """Compare a locked evaluation with its manifest.

    Raises:
        LockedEvalError: names every file that differs.
    """
    problems = manifest.differences(folder)
    if problems:
        raise LockedEvalError(
            f"the locked evaluation in {folder} is not the one that was locked: " + "; ".join(problems),
            "git checkout -- locked_eval, or `make lock` if you changed it on purpose",
        )


def preparation_digest(locked: Path) -> str:
    """Hash of the code that prepares data; the judge and the supervisor may change without a new data set."""
    files = ("prepare.py", "tokenizer.py", "splits.py", "disjoint.py", "corpus_index.py")
    digest = hashlib.sha256()
    for name in files:
        path = locked / "locked_eval" / name
        if path.exists():
            digest.update(path.read_bytes())
    return digest.hexdigest()
