"""The `workload/` of the candidate that `autoresearch doctor` sends into the sandbox; standard library only.

`train` is what PID 1 starts. It reads `$DATA_DIR/task.json` and becomes `look`, `bite` or `hang`. `flood` is no
candidate: it stands in for PID 1.
"""
