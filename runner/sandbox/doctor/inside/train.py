"""Run the program that the task names."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

task = json.loads((Path(os.environ["DATA_DIR"]) / "task.json").read_text("utf-8"))
runpy.run_module(f"workload.{task['program']}", init_globals={"TASK": task}, run_name="__main__")
