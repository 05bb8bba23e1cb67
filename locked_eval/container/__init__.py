"""Programs of the locked evaluation that run in containers.

    supervisor      PID 1 of a candidate's container: starts the clock, enforces the deadline, reports the end
    throttle        caps what a candidate prints
    handover        copies the checkpoint for scoring and audits
    cgroup          CPU time and memory kills of the container
    launcher        first code of the child: imports torch, then runs the phase
    syscall_filter  system calls that the candidate may not make
    candidate       loads the candidate's model; shared by scorer, auditor and checker
    scorer          answers the validation rows
    auditor         answers the rows of an audit
    checker         does on random tokens what scorer and auditor do, for smoke tests
    gpu_scrub       PID 1 of a container of its own: overwrites free GPU memory

Three of them are started as scripts: `supervisor.py`, `launcher.py` and `gpu_scrub.py`. The supervisor and all
that it imports use the standard library alone.
"""
