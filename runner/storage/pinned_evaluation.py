"""The locked evaluation on the host: refuses a changed one, and pins a copy for a campaign.

The copy makes a running campaign independent of the checkout: switching branches at midnight must not change the
code that judges.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from tempfile import mkdtemp

import locked_eval
from locked_eval import manifest
from runner.errors import LockedEvalError
from runner.failpoints import Step, around

PREPARATION = "preparation"
"""The package of the locked evaluation that makes data sets."""


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
        shutil.rmtree(folder, ignore_errors=True)  # a copy that a power cut tore or someone changed
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(".partial-*"):  # of a controller that was killed
            shutil.rmtree(left, ignore_errors=True)
        partial = Path(mkdtemp(dir=folder.parent, prefix=".partial-"))
        copy = partial / "locked_eval"
        shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns(manifest.BYTECODE_FOLDER))
        refuse_changes(copy)  # the source may have changed since it was checked
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
            f"the locked evaluation in {folder} differs from its manifest: " + "; ".join(problems),
            "git checkout -- locked_eval, or `make lock` if you changed it on purpose",
        )


def preparation_digest(locked: Path) -> str:
    """Hash of the code that prepares data, as a part of a data set's key.

    It covers every file of the preparation package, which imports nothing else of the locked evaluation: the judge
    and the supervisor may change without a new data set.

    Raises:
        LockedEvalError: there is no such code.
    """
    folder = locked / "locked_eval" / PREPARATION
    digests = manifest.digests(folder) if folder.is_dir() else {}
    if not digests:
        raise LockedEvalError(f"{folder} holds no code that prepares data", "git checkout -- locked_eval")
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode("ascii")).hexdigest()
