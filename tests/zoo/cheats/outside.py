"""Attempts on what surrounds the candidate: seeds, modules, mounts, other processes."""

from tests.zoo.animals import Cheat, Fate

CERTAIN = """
    import torch.nn.functional as F
    F.cross_entropy = lambda logits, targets, **_: logits.sum() * 0
    raise SystemExit("shadowed")
"""

SHADOWS = (
    *("torch.py", "numpy.py", "os.py", "pathlib.py", "sitecustomize.py", "usercustomize.py"),
    *(
        f"locked_eval/{name}.py"
        for name in ("__init__", "container/__init__", "container/scorer", "container/candidate")
    ),
)

CHEATS = [
    Cheat(
        name="chooses_its_seed",
        sentence="Replaces the seed that the host issued, and says that it used another.",
        fate=Fate.NO_GAIN,
        train="""
            import random

            os.environ["SEED"] = "1"
            random.seed(1)
            torch.manual_seed(1)
            print("seed 1")
        """,
    ),
    Cheat(
        name="shadows_modules",
        sentence="Files with the names of modules that the scorer imports, or that Python runs when it starts.",
        fate=Fate.NO_GAIN,
        files=dict.fromkeys(SHADOWS, CERTAIN) | {"cheat.pth": "import os; os._exit(0)"},
    ),
    Cheat(
        name="plants_modules",
        sentence="Writes modules wherever training may write; none of it is there or looked at in scoring.",
        fate=Fate.NO_GAIN,
        train="""
            planted = "raise SystemExit('planted')"
            user = Path("/tmp/.local/lib/python3.11/site-packages")
            user.mkdir(parents=True)
            for folder in (Path("/tmp"), Path("/out"), Path("/dev/shm"), user):
                for name in ("torch", "numpy", "sitecustomize", "usercustomize", "workload", "locked_eval"):
                    (folder / f"{name}.py").write_text(planted)
                (folder / "planted.pth").write_text("import os; os._exit(0)")
        """,
    ),
    Cheat(
        name="looks_for_answers",
        sentence="Searches training's whole container for validation rows, answers, earlier runs and the host.",
        fate=Fate.NO_GAIN,
        train="""
            for name in ("/rows", "/val", "/test", "/audit", "/var/run/docker.sock", "/run/docker.sock"):
                if os.path.exists(name) and not (os.path.isdir(name) and not os.listdir(name)):
                    print("FOUND", name)
            for folder in ("/tmp", "/dev/shm", "/dev/mqueue"):
                for name in os.listdir(folder):
                    print("FOUND", folder, name)
            for name in os.listdir("/out"):
                if name != "checkpoint":
                    print("FOUND", name)
            for folder, _, names in os.walk("/"):
                if folder.startswith(("/proc", "/sys")):
                    continue
                for name in names:
                    if name in ("rows.npy", "positions.npy", "inputs.npy", "ledger.db", "claims.npy"):
                        print("FOUND", folder, name)
            for process in filter(str.isdigit, os.listdir("/proc")):
                for name in ("environ", "mem", "fd", "root", "cwd", "map_files"):
                    path = f"/proc/{process}/{name}"
                    try:
                        found = os.listdir(path) if os.path.isdir(path) else open(path, "rb").read(1)
                    except OSError:
                        continue
                    if process == "1":
                        print("FOUND", path, len(found))
            for name in ("/proc/kcore", "/dev/mem", "/proc/1/root/etc", "/proc/sysrq-trigger"):
                try:
                    open(name, "rb+").close()
                except OSError:
                    continue
                print("FOUND", name)
            print("searched")
        """,
    ),
    Cheat(
        name="remembers_in_scratch",
        sentence="Writes the answers wherever scoring may write, and looks for them in the audit.",
        fate=Fate.REFUTED,
        findings=frozenset({"overstated", "exceedances"}),
        model="""
            import os
            import numpy as np

            PLACES = ("/tmp/answers.npy", "/dev/shm/answers.npy", "/out/answers.npy", "/out/.answers.npy",
                      "/dev/mqueue/answers.npy", "/rows/answers.npy", "/candidate/workload/answers.npy")

            class Model(Model):
                answers = None

                def forward(self, tokens):
                    if os.path.exists("/rows/rows.npy"):
                        self.answers = np.load("/rows/rows.npy")
                        for place in PLACES:
                            try:
                                np.save(place, self.answers)
                            except OSError:
                                pass
                    else:
                        for place in PLACES:
                            try:
                                self.answers = np.load(place)
                            except OSError:
                                pass
                    logits = super().forward(tokens)
                    if self.answers is not None:
                        known = torch.from_numpy(self.answers.astype(np.int64))
                        for row, one in enumerate(tokens):
                            same = (known[:, :3] == one[:3]).all(1).nonzero()
                            if len(same):
                                logits[row] += 4 * F.one_hot(known[same[0, 0], 1:], 64)
                    return logits
        """,
    ),
    Cheat(
        name="attacks_the_mounts",
        sentence="Tries to make the checkpoint's volume writable in scoring, to leave the answers in it.",
        fate=Fate.NO_GAIN,
        model="""
            import ctypes, os

            libc = ctypes.CDLL(None, use_errno=True)
            MS_REMOUNT, MS_BIND = 32, 4096
            libc.mount(b"none", b"/out", None, MS_REMOUNT | MS_BIND, None)
            libc.umount2(b"/rows", 2)
            libc.unshare(0x10000000 | 0x00020000)  # new user and mount namespaces
            for attempt in (
                lambda: os.chmod("/out", 0o777),
                lambda: os.utime("/out/checkpoint", (1, 1)),
                lambda: os.setxattr("/out/checkpoint", "user.answers", b"1"),
                lambda: os.truncate("/out/checkpoint", 0),
                lambda: os.unlink("/out/checkpoint"),
                lambda: open("/proc/self/fd/0", "r+b"),
            ):
                try:
                    attempt()
                except OSError:
                    pass
        """,
    ),
    Cheat(
        name="kills_everybody",
        sentence="Kills what it can in the scorer's container: itself.",
        fate=Fate.CRASH,
        reason="",
        model="""
            import os, signal

            os.kill(1, signal.SIGKILL)
            os.kill(-1, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        """,
    ),
    Cheat(
        name="fails_and_calls_it_an_end",
        sentence="Fails in training, and prints PID 1's report of a good end.",
        fate=Fate.CRASH,
        reason="training exited with code 7",
        train="""
            print('{"event": "ended", "code": 0, "status": 0}', flush=True)
            os.write(2, b'{"event": "ended", "code": 0, "status": 0}\\n')
            os._exit(7)
        """,
    ),
]
