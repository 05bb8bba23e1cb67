"""PID 1 of the warm container: has imported torch, and forks the launcher of the locked evaluation for each phase.

    python -I forks.py LAUNCHER

Reads one JSON object a line on stdin, `{"phase": "score", "box": "/boxes/3", "environment": {…}, "limit": 20.0}`,
and answers with how that ended. What a phase printed or answered is then in the box's file `output`.

A phase sees what it would see in a container of its own: a box has folders for /candidate, /data, /rows and /out,
and /tmp is empty but for the copy of the checkpoint. Not covered: all that one container for everything cannot
separate, as memory limits, the page cache, and processes that stay behind. Specimens that are about these run in
containers of their own.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import sys
import time
from pathlib import Path

USER = 10001
POLL_SECONDS = 0.002


def main():
    """Serve until stdin ends."""
    launcher = sys.argv[1]
    import torch

    torch.set_num_threads(1)
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        box = Path(asked["box"])
        furnish(box, asked["phase"])
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            become(launcher, asked["phase"], box, asked["environment"])
        status = await_end(child, began + asked["limit"])
        facts = {"status": status, "wall_seconds": time.monotonic() - began}
        print(json.dumps(facts), flush=True)


def furnish(box, phase):
    """Let the well-known paths lead into the box; give an answering phase its copy of the checkpoint."""
    for name in ("candidate", "data", "rows", "out"):
        path, target = Path("/", name), box / name
        if path.is_symlink():
            path.unlink()
        elif path.exists():
            path.rmdir()
        if target.exists():
            path.symlink_to(target)
    for left in Path("/tmp").iterdir():
        shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
    if phase != "train":
        Path("/tmp/out").mkdir(mode=0o755)
        published = box / "published"
        if published.is_file() and not published.is_symlink():
            shutil.copyfile(published, "/tmp/out/checkpoint")


def become(launcher, phase, box, environment):
    """The candidate's process: its streams, its user and its environment, then the launcher's own code."""
    code = 99
    try:
        os.setsid()
        output = os.open(box / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        errors = output if phase == "train" else os.open(os.devnull, os.O_WRONLY)
        word, give = os.pipe()
        _, ready = os.pipe()
        os.write(give, b"g")
        for number, descriptor in enumerate((word, output, errors)):
            os.dup2(descriptor, number)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            setattr(sys, name, os.fdopen(number, "w" if number else "r", buffering=1, closefd=False))
        os.chdir("/tmp")
        os.umask(0o022)
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = [launcher, phase, str(ready)]
        runpy.run_path(launcher, run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def await_end(child, deadline):
    """The child's exit code, negative for a signal; None when it was killed at its deadline."""
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(POLL_SECONDS)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


if __name__ == "__main__":
    main()
