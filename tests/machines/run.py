"""Run the engine's tests and a small campaign on this machine; print the row for docs/machines.md.

    .venv/bin/python tests/machines/run.py

Needs what `make test` needs, and takes about as long as its second half. DOCKER_HOST chooses another engine. The
campaign runs in a clone of its own, which is removed, so that nothing of yours is touched. It exits with 1 if a
test or the campaign failed.
"""

from __future__ import annotations

import argparse
import grp
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from runner.sandbox import connect  # noqa: E402

EXPERIMENTS = 2


def engine_cells(info: Mapping[str, Any]) -> list[str]:
    """The engine and its store; control groups."""
    store = info["Driver"]
    if any("containerd.snapshotter" in str(value) for _, value in info.get("DriverStatus") or ()):
        store += ", containerd store"
    groups = f"v{info.get('CgroupVersion', '1')}, {info.get('CgroupDriver', 'unknown')}"
    return [f"{info['ServerVersion']}, {store}", groups]


def system_cell(os_release: str) -> str:
    """The userland that this runs in, its kernel, and whether systemd is its first process."""
    name = re.search(r'^PRETTY_NAME="?([^"\n]*)', os_release, re.MULTILINE)
    systemd = "systemd" if Path("/run/systemd/system").is_dir() else "no systemd"
    return f"{name[1] if name else 'unknown'}, Linux {platform.release()}, {systemd}"


def user_cell() -> str:
    """Who runs it: root, or a user and whether the group docker lets it in."""
    if os.geteuid() == 0:
        return "root"
    groups = {entry.gr_name for entry in grp.getgrall() if entry.gr_gid in os.getgroups()}
    return f"a user, {'in' if 'docker' in groups else 'not in'} the group docker"


def run_tests(arguments: list[str]) -> str:
    """Run the tests; returns the counts that pytest prints last."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-m", "docker", *(arguments or ["tests/engine"])]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as pytest:
        assert pytest.stdout is not None
        last = ""
        for line in pytest.stdout:
            print(line, end="", flush=True)
            last = line.strip("= \n") or last
    return re.sub(r" in [\d.]+s.*", "", last)


def run_campaign() -> str:
    """Run a baseline and a few experiments in a clone; returns how they ended."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
        command = [sys.executable, "-m", "runner"]
        night = [
            *("overnight", "--profile", "cpu", "--proposer", "optuna", "--tag", "machines"),
            *("--experiments", str(EXPERIMENTS)),
        ]
        ended = subprocess.run([*command, *night], cwd=clone, check=False).returncode
        answer = subprocess.run([*command, "log", "--json"], cwd=clone, stdout=subprocess.PIPE, check=False).stdout
        verdicts = [json.loads(line)["verdict"] for line in answer.splitlines()]
        subprocess.run([*command, "clean"], cwd=clone, check=False)
    print("verdicts:", *verdicts)
    done = f"{max(0, len(verdicts) - verdicts.count(None) - 1)} of {EXPERIMENTS} experiments"
    return done if ended == 0 else f"{done}, exit code {ended}"


def main() -> None:
    """Examine this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-campaign", action="store_true", help="run the tests only")
    parser.add_argument("tests", nargs="*", help="arguments of pytest; tests/engine when absent")
    options, more = parser.parse_known_args()
    engine = connect()
    info = engine.client.info()
    engine.client.close()
    began = time.monotonic()
    cells = [
        f"{datetime.now(UTC):%Y-%m-%d}",
        system_cell(Path("/etc/os-release").read_text("utf-8")),
        *engine_cells(info),
        user_cell(),
        platform.python_version(),
        run_tests([*options.tests, *more]),
        "not run" if options.no_campaign else run_campaign(),
    ]
    minutes = (time.monotonic() - began) / 60
    print(f"\nFor docs/machines.md, after {minutes:.0f} minutes:\n\n| {' | '.join(cells)} |")
    sys.exit(any(word in cell for cell in cells[-2:] for word in ("failed", "error", "exit code")))


if __name__ == "__main__":
    main()
