"""The workload's own `publish`, for candidates that consist of two or three small files."""

from pathlib import Path

CHECKPOINT = (Path(__file__).resolve().parents[2] / "workload" / "checkpoint.py").read_text("utf-8")
"""Text of `workload/checkpoint.py`."""
