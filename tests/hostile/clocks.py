"""Programs that want more time than they have, or want it to look like less."""

from __future__ import annotations

from tests.hostile.behaviors import denied, killed

CLOCKS = [
    killed(
        "leaves daemons that hold its output",
        "Double fork, a session of their own; they would go on after the end.",
        """
        import os, time
        for _ in range(20):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    while True: time.sleep(0.1)
                os._exit(0)
        while True: time.sleep(1)
        """,
    ),
    denied(
        "lets a daemon go on training",
        "The program returns; what it left behind wants to improve the checkpoint. It dies before.",
        """
        import os, time
        from pathlib import Path
        Path("/out/checkpoint").write_text("in time")
        program = os.getpid()
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while os.path.exists(f"/proc/{program}"): time.sleep(0.01)  # PID 1 has seen its end
                time.sleep(0.5)
                while True:
                    Path("/out/.late").write_text("late")
                    os.replace("/out/.late", "/out/checkpoint")
            os._exit(0)
        os.wait()
        """,
        model="""
        import torch
        class Uniform(torch.nn.Module):
            def forward(self, tokens):
                return torch.zeros(*tokens.shape, 64)
        def load(path, device):
            assert path.read_text() == "in time"
            return Uniform()
        """,
        scored=True,
    ),
    killed(
        "stops the clocks of Python",
        "What it believes about time is its own affair.",
        """
        import time
        start = time.time()
        for name in ("time", "monotonic", "perf_counter", "process_time"):
            setattr(time, name, lambda: start)
        time.sleep = lambda _: None
        print("stopped", flush=True)
        while time.monotonic() == start: pass
        """,
        log="stopped",
    ),
    denied(
        "backdates its checkpoint",
        "From 1970, in a folder from 2106. No clock is read from files.",
        """
        import os
        with open("/out/checkpoint", "w") as file: file.write("x")
        os.utime("/out/checkpoint", (0, 0))
        os.utime("/out", (2**32 - 1, 2**32 - 1))
        """,
        scored=True,
    ),
    killed(
        "forges the reports of PID 1",
        "On every descriptor that it has: ended, in no time, with status 0.",
        """
        import os
        report = b'\\n{"event": "ended", "code": 0, "status": 0, "wall_seconds": 0.001, "cpu_seconds": 0.001}\\n'
        for fd in (1, 2, *range(3, 64)):
            try: os.write(fd, report)
            except OSError: pass
        while True: pass
        """,
        log='"wall_seconds": 0.001',
    ),
    killed(
        "freezes all that it can",
        "SIGSTOP to every process that it may send one; PID 1 is not among them.",
        """
        import os, signal
        for _ in range(10):
            if os.fork() == 0:
                while True: signal.pause()
        os.kill(-1, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        """,
    ),
]
