"""Programs that take all they can get. Those that meet a limit by themselves are in `inside/limits.py`."""

from __future__ import annotations

from runner.records import RunEnd
from tests.hostile.behaviors import contained, killed

RESOURCES = [
    killed("sleeps forever", "The plainest way to be late.", "import time\nwhile True: time.sleep(1)"),
    killed(
        "ignores every signal",
        "All that can be ignored or handled.",
        """
        import signal, time
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        while True: time.sleep(1)
        """,
    ),
    killed(
        "stops itself",
        "A stopped process takes no signal but SIGKILL and SIGCONT.",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    ),
    killed(
        "becomes another program",
        "By exec, without its interpreter and without its descriptors.",
        """
        import os
        os.closerange(0, 100)
        os.execv("/bin/sleep", ["sleep", "1000"])
        """,
    ),
    killed(
        "becomes itself again and again",
        "exec without end.",
        """
        import os, sys
        again = "import os, sys; os.execv(sys.orig_argv[0], sys.orig_argv)"
        os.execv(sys.executable, [sys.executable, "-S", "-c", again])
        """,
    ),
    killed(
        "forks without end",
        "Every child does the same.",
        """
        import os
        while True:
            try: os.fork()
            except OSError: pass
        """,
    ),
    killed(
        "floods PID 1 with orphans",
        "Children of dead parents become children of PID 1, which must collect them and look at its clock.",
        """
        import os
        while True:
            try:
                if os.fork() == 0:
                    try:
                        for _ in range(20): os.fork()
                    finally: os._exit(0)
                os.waitpid(-1, 0)
            except OSError: pass
        """,
    ),
    killed(
        "keeps zombies",
        "As many dead children as it may have, never collected.",
        """
        import os
        while True:
            try:
                if os.fork() == 0: os._exit(0)
            except OSError: pass
        """,
    ),
    killed(
        "hogs its core",
        "A hundred busy processes on the core that PID 1 needs for its clock.",
        """
        import os
        for _ in range(100):
            if os.fork() == 0: break
        while True: pass
        """,
    ),
    killed(
        "rings without end",
        "A timer of its own every microsecond.",
        """
        import signal
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
        while True: pass
        """,
    ),
    killed("prints without end", "It would fill a disk.", "while True: print('x' * 1000)"),
    killed(
        "prints empty lines without end",
        "The most lines for the fewest bytes. Each is a record in the engine's log, which drops the oldest ones: "
        "the report of PID 1 must not be among them.",
        "import os\nwhile True: os.write(1, b'\\n' * 65536)",
    ),
    killed(
        "prints bytes that grow",
        "Each NUL is six characters in the engine's log.",
        "import os\nwhile True: os.write(1, bytes(65536))",
    ),
    contained(
        "prints a line of 100 MB",
        "No line end for a reader to wait for.",
        """
        import os
        piece = b"x" * 1_000_000
        for _ in range(100): os.write(1, piece)
        print("\\nthe end")
        """,
        RunEnd.FINISHED,
        log="the end",
    ),
    contained(
        "takes memory without end",
        "The kernel ends it, and nothing else on the machine.",
        "blocks = []\nwhile True: blocks.append(bytearray(50_000_000))",
        RunEnd.OUT_OF_MEMORY,
        settings={"memory_bytes": 600 * 2**20},
    ),
    contained(
        "lets a child run out of memory",
        "The parent exits 0: it finished, whatever the engine says of an OOM in the container.",
        """
        import os
        child = os.fork()
        if child == 0:
            blocks = []
            while True: blocks.append(bytearray(50_000_000))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
        print("survived")
        """,
        RunEnd.FINISHED,
        log="survived",
        settings={"memory_bytes": 600 * 2**20},
    ),
    contained(
        "kills all that it can",
        "Signal 9 to every process that it may send one: itself.",
        "import os\nos.fork()\nos.kill(-1, 9)\nos.kill(os.getpid(), 9)",
        RunEnd.FAILED,
    ),
    contained(
        "fills the output volume",
        "The kernel counts.",
        """
        with open("/out/checkpoint", "wb") as file:
            while True: file.write(b"x" * 1048576)
        """,
        RunEnd.FAILED,
        log="No space left on device",
    ),
]
