"""`autoresearch --help` answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_help_answers_without_importing_anything_heavy():
    code = (
        "import sys; sys.argv = ['autoresearch', '--help']\n"
        "from runner.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'docker', 'anthropic', 'git', 'optuna', 'pydantic', 'rich', 'numpy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    assert "overnight" in result.stdout
