"""The table of settings in `docs/commands.md`, made from `runner/config.py` and the profiles.

python tests/docs/settings_table.py    rewrite the table in the page
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "commands.md"
HEADING = "| setting | `cpu` | `cuda` | meaning |"
UNITS = ((2**30, "GiB"), (2**20, "MiB"))


def settings_table():
    """The rows of the table, heading included."""
    from runner import config

    profiles = [config.load(Path("/nonexistent"), {"profile": name}, environ={}) for name in config.PROFILES]
    rows = [HEADING, "| --- | --- | --- | --- |"]
    for name, field in config.Config.model_fields.items():
        values = [_cell(name, getattr(profile, name)) for profile in profiles]
        rows.append(f"| `{name}` | {' | '.join(values)} | {field.description} |")
    return "\n".join(rows) + "\n"


def written_table(text):
    """The table as it stands in the page."""
    return re.search(rf"^{re.escape(HEADING)}\n(?:\|.*\n)+", text, re.MULTILINE).group()


def _cell(name, value):
    if value is None or value == {}:
        return "–"
    if name.endswith("_bytes"):
        size, unit = next((size, unit) for size, unit in UNITS if value >= size)
        return f"{value / size:g} {unit}"
    return ", ".join(f"{one:g}" for one in value) if isinstance(value, tuple) else str(value)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    before = PAGE.read_text("utf-8")
    PAGE.write_text(before.replace(written_table(before), settings_table()), "utf-8")
