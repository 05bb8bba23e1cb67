"""Hashes of the locked evaluation.

python -m locked_eval.manifest            compare the files with manifest.json
python -m locked_eval.manifest --write    lock the files as they are (a person's decision: `make lock`)

Not covered: bytecode in `__pycache__` folders, which Python believes when it fits the source's size and time. The
pinned copy that containers see has none.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
MANIFEST = "manifest.json"
SOURCE_SUFFIX = ".py"
BYTECODE_FOLDER = "__pycache__"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every Python file at any depth, by path relative to the folder, with forward slashes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in _entries(folder)
        if _is_source(path)
    }


def foreign(folder: Path) -> list[str]:
    """Everything that does not belong in the folder, one sentence each.

    Only folders, Python source files and the manifest do. Python would also import extension modules, compiled
    files and the target of a symbolic link, and a review of the evaluation would not see their code.
    """
    problems = []
    for path in _entries(folder):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            problems.append(f"{name} is a symbolic link")
        elif not path.is_dir() and not _is_source(path) and name != MANIFEST:
            problems.append(f"{name} is not a Python source file")
    return problems


def differences(folder: Path) -> list[str]:
    """Every difference from the manifest, one sentence a file; empty when there is none."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        return [f"{path.name} is missing"]
    locked: dict[str, str] = json.loads(path.read_text("utf-8"))
    found = digests(folder)
    problems = [f"{name} is missing" for name in sorted(locked.keys() - found.keys())]
    problems += [f"{name} is not in the manifest" for name in sorted(found.keys() - locked.keys())]
    problems += [f"{name} was changed" for name in sorted(locked) if name in found and found[name] != locked[name]]
    return problems + foreign(folder)


def combined(folder: Path) -> str:
    """One hash for the whole locked evaluation: that of its manifest."""
    return hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()


def main(arguments: list[str], folder: Path = FOLDER) -> int:
    """Check or write the manifest of a folder; returns the exit code."""
    if arguments == ["--write"] and not foreign(folder):
        (folder / MANIFEST).write_text(json.dumps(digests(folder), indent=1, sort_keys=True) + "\n", "utf-8")
    problems = differences(folder)
    for problem in problems:
        print(f"locked_eval: {problem}", file=sys.stderr)
    if problems:
        print("  → make lock, if you changed it on purpose; remove files that do not belong", file=sys.stderr)
    return 1 if problems else 0


def _entries(folder: Path) -> Iterator[Path]:
    """Everything below a folder in a fixed order, without bytecode folders; links are not followed."""
    for path in sorted(folder.iterdir()):
        is_folder = path.is_dir() and not path.is_symlink()
        if is_folder and path.name == BYTECODE_FOLDER:
            continue
        yield path
        if is_folder:
            yield from _entries(path)


def _is_source(path: Path) -> bool:
    return path.suffix == SOURCE_SUFFIX and path.is_file() and not path.is_symlink()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
