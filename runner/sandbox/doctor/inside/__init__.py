"""The `workload/` of the candidate that `autoresearch doctor` runs in the sandbox; standard library only.

PID 1 starts `train`, which reads `$DATA_DIR/task.json` and becomes `look`, `bite` or `hang`. `flood` is not a
candidate: it replaces PID 1.
"""
