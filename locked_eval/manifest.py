"""Hashes of the locked evaluation.

python -m locked_eval.manifest            compare the files with manifest.json
python -m locked_eval.manifest --write    lock the files as they are (a person's decision: `make lock`)
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

MANIFEST = "manifest.json"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every Python file of the locked evaluation, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.py"))}


def differences(folder: Path) -> list[str]:
    """What differs from the manifest, one sentence a file; empty when nothing does."""
    path = folder / MANIFEST
    if not path.is_file():
        return [f"{path.name} is missing"]
    locked: dict[str, str] = json.loads(path.read_text("utf-8"))
    found = digests(folder)
    problems = [f"{name} is missing" for name in sorted(locked.keys() - found.keys())]
    problems += [f"{name} is not in the manifest" for name in sorted(found.keys() - locked.keys())]
    problems += [f"{name} was changed" for name in sorted(locked) if name in found and found[name] != locked[name]]
    return problems


def combined(folder: Path) -> str:
    """One hash for the whole locked evaluation: that of its manifest."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def main(arguments: list[str]) -> int:
    """Check or write the manifest beside this file."""
    folder = Path(__file__).parent
    if arguments == ["--write"]:
        (folder / MANIFEST).write_text(json.dumps(digests(folder), indent=1, sort_keys=True) + "\n", "utf-8")
    problems = differences(folder)
    for problem in problems:
        print(f"locked_eval: {problem}", file=sys.stderr)
    if problems:
        print("  → make lock, if the change is meant", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
