"""`autoresearch` as a user types it, on an image of the tests' choice and with short pauses.

    python tests/support/typed_command.py IMAGE_ID COMMAND...

Everything else is as with `python -m runner COMMAND...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runner.cli import main
from runner.sandbox import images, reservation
from runner.sandbox.images import base
from tests.support import short_pauses


def run_on(image_id: str) -> None:
    """Let the profile cpu use this image."""
    find = base.find_base

    def found(client, kind):
        return image_id if kind == "cpu" else find(client, kind)

    base.find_base = images.find_base = found


def share_no_machine():
    """Let nights of other tests, and of other suites, neither wait nor refuse."""
    folder = Path.cwd() / ".autoresearch" / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o1777)
    reservation.FOLDERS = (folder,)
    reservation._held_by_containers = lambda *_: {}


if __name__ == "__main__":
    run_on(sys.argv.pop(1))
    share_no_machine()
    short_pauses.shorten(proposers=True)
    main()
