"""`autoresearch` as a user types it, on an image of the tests' choice and with short pauses.

    python tests/support/typed_command.py IMAGE_ID COMMAND...

Everything else is as with `python -m runner COMMAND...`.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from runner.cli import main
from runner.sandbox import images
from runner.sandbox.images import base
from tests.support import short_pauses


def run_on(image_id: str) -> None:
    """Let the profile cpu use this image."""
    find = base.find_base

    def found(client, kind):
        return image_id if kind == "cpu" else find(client, kind)

    base.find_base = images.find_base = found


if __name__ == "__main__":
    run_on(sys.argv.pop(1))
    short_pauses.shorten(proposers=True)
    main()
