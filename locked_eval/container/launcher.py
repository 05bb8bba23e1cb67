"""First code of the child: imports torch before the clock starts, then becomes the candidate.

    python -I launcher.py {train,score,audit,check} READY_FD

Started by the supervisor as uid 10001. The candidate's folder joins `sys.path` only after torch is imported, and
behind everything else, so that no file in `workload/` can shadow a module here. This file's own folder never
joins it.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from pathlib import Path

LOCKED_ROOT = Path(__file__).resolve().parents[2]
CANDIDATE_ROOT = "/candidate"


def main() -> None:
    """Warm up, report ready, wait for the start signal, run the phase."""
    phase, ready_fd = sys.argv[1], int(sys.argv[2])
    os.nice(5)  # the supervisor must be scheduled first when the candidate starts many processes

    sys.path.insert(0, str(LOCKED_ROOT))
    gc.disable()  # a quarter of the import: the collector scans what torch allocates again and again
    import numpy  # noqa: F401
    import torch

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    torch.set_num_threads(threads)
    if phase != "train":
        from locked_eval.container import auditor, checker, scorer
    from locked_eval.container.syscall_filter import install

    gc.freeze()  # nor is it scanned while the candidate trains or exits
    gc.enable()
    install()
    os.write(ready_fd, b"r")
    os.close(ready_fd)
    if not os.read(0, 1):
        sys.exit(1)

    sys.path.append(CANDIDATE_ROOT)
    sys.argv = sys.argv[:1]
    if phase == "train":
        runpy.run_module("workload.train", run_name="__main__", alter_sys=True)
    else:
        sys.exit({"score": scorer, "audit": auditor, "check": checker}[phase].main())


if __name__ == "__main__":
    main()
