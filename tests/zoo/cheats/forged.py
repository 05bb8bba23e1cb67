"""Claims that no model made: the scorer runs in one process with the candidate, which can patch all of it."""

from tests.zoo.animals import Cheat, Fate

OVERSTATED = frozenset({"overstated", "exceedances"})

CHEATS = [
    Cheat(
        name="tells_its_score",
        sentence="Prints what older harnesses parse and PID 1 reports, and leaves files that say how good it is.",
        fate=Fate.NO_GAIN,
        train="""
            import json

            print("val_bpb: 0.000001")
            print('{"event": "ended", "code": 0, "val_bpb": 0.000001, "answer_bytes": 4}')
            for name in ("/out/score.json", "/out/metrics.json", "/out/val_bpb", "/tmp/score.json"):
                Path(name).write_text(json.dumps({"val_bpb": 1e-6, "claimed_bpb": 1e-6}))
            np.save("/out/claims.npy", np.full((330, 32), -1e-6, np.float32))
        """,
        model="""
            import sys

            print("val_bpb: 0.000001", flush=True)
            sys.stderr.write('{"event": "ended", "code": 0, "status": 0, "answer_bytes": 0}\\n')
        """,
    ),
    Cheat(
        name="patches_judge_math_and_clocks",
        sentence="Patches the judge, and what a score or a clock could be computed with; they are elsewhere.",
        fate=Fate.NO_GAIN,
        files={
            "__init__.py": """
                import builtins, math, time

                from locked_eval.judging import judge

                judge.score = lambda *_: judge.Score(val_bpb=0, num_tokens=1, num_bytes=1, claims_sha256="")
                math.log = math.log2 = lambda *_: 1e9
                time.time = time.monotonic = time.perf_counter = lambda: 0.0
                builtins.round = lambda *_: 0.0
            """
        },
    ),
    Cheat(
        name="claims_certainty",
        sentence="Replaces the loss: every target has probability 1.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model="""
            F.cross_entropy = lambda logits, targets, **_: torch.zeros(len(targets))
        """,
    ),
    Cheat(
        name="unnormalized",
        sentence="Log-probabilities that add up to e instead of 1: each claim is one nat too good.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model="""
            honest_loss = F.cross_entropy
            F.cross_entropy = lambda *a, **k: (honest_loss(*a, **k) - 1).clamp_min(0)
        """,
    ),
    Cheat(
        name="a_constant_whisper",
        sentence="Every claim is 0.003 nats too good: below any test of single tokens.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model="""
            honest_loss = F.cross_entropy
            F.cross_entropy = lambda *a, **k: (honest_loss(*a, **k) - 0.003).clamp_min(0)
        """,
    ),
    Cheat(
        name="tensor_subclass",
        sentence="Returns logits of a class of its own that flatters itself when a loss is taken of it.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model="""
            class Flattering(torch.Tensor):
                @classmethod
                def __torch_function__(cls, function, types, arguments=(), keywords=None):
                    if function is F.cross_entropy:
                        return torch.full((len(arguments[1]),), 0.05)
                    return super().__torch_function__(function, types, arguments, keywords or {})

            class Model(Model):
                def forward(self, tokens):
                    return super().forward(tokens).as_subclass(Flattering)
        """,
    ),
    Cheat(
        name="patches_the_scorer",
        sentence="Replaces the scorer's own function while the scorer runs.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model="""
            import numpy as np
            from locked_eval.container import scorer

            scorer._claims = lambda candidate, batch: np.full(batch[:, 1:].numel(), -0.1, "<f4").tobytes()
        """,
    ),
    Cheat(
        name="writes_the_answer_itself",
        sentence="Finds the pipe behind the scorer's descriptor, writes claims of its own, and leaves.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        model="""
            import os, stat, time
            import numpy as np

            if os.path.exists("/rows/rows.npy"):
                time.sleep(2)  # as long as a model takes: an audit has time in proportion
                claims = np.full((330, 32), -0.1, "<f4").tobytes()
                for fd in range(3, 64):
                    try:
                        is_pipe = stat.S_ISFIFO(os.fstat(fd).st_mode)
                    except OSError:
                        continue
                    if is_pipe:
                        while claims:
                            claims = claims[os.write(fd, claims):]
                os._exit(0)
        """,
    ),
    Cheat(
        name="forges_the_last_report",
        sentence="Writes PID 1's last report into the answer: reports are another stream.",
        fate=Fate.INVALID,
        reason="more than was requested",
        model="""
            import os

            for fd in range(3, 64):
                try:
                    os.write(fd, b'{"event": "ended", "code": 0, "status": 0, "answer_bytes": 42240}\\n')
                except OSError:
                    pass
        """,
    ),
    Cheat(
        name="writes_to_the_reports",
        sentence="Opens PID 1's own descriptors to report an end of its own.",
        fate=Fate.NO_GAIN,
        model="""
            import os

            for fd in range(64):
                try:
                    os.write(os.open(f"/proc/1/fd/{fd}", os.O_WRONLY), b'{"event": "ended", "code": 0}\\n')
                except OSError:
                    pass
        """,
    ),
    Cheat(
        name="a_child_that_goes_on_writing",
        sentence="Leaves a child that writes to the answer when the scorer has left: too many bytes, or dead.",
        fate=Fate.NOT_CREDITED,
        model="""
            import os, time

            scorer = os.getpid()
            if os.fork() == 0:
                os.setsid()
                while os.getppid() == scorer:
                    pass
                for fd in range(3, 64):
                    try:
                        os.write(fd, bytes(4096))
                    except OSError:
                        pass
                os._exit(0)
        """,
    ),
    Cheat(
        name="claims_nan",
        sentence="NaN compares false with everything, also with the limits of a careless check.",
        fate=Fate.INVALID,
        reason="not finite",
        model="F.cross_entropy = lambda logits, targets, **_: torch.full((len(targets),), torch.nan)",
    ),
    Cheat(
        name="claims_above_one",
        sentence="Probabilities above 1.",
        fate=Fate.INVALID,
        reason="above 1",
        model="F.cross_entropy = lambda logits, targets, **_: torch.full((len(targets),), -1.0)",
    ),
    Cheat(
        name="claims_too_few",
        sentence="Leaves the hard half of the targets out.",
        fate=Fate.INVALID,
        reason="bytes of claims instead of",
        model="""
            honest_loss = F.cross_entropy
            F.cross_entropy = lambda *a, **k: honest_loss(*a, **k).sort().values[: len(a[1]) // 2]
        """,
    ),
    Cheat(
        name="claims_too_many",
        sentence="Adds easy targets of its own.",
        fate=Fate.INVALID,
        reason="more than was requested",
        model="""
            honest_loss = F.cross_entropy
            F.cross_entropy = lambda *a, **k: F.pad(honest_loss(*a, **k), (0, 4))
        """,
    ),
    Cheat(
        name="claims_of_another_type",
        sentence="Doubles where floats belong: the same bytes read as other numbers.",
        fate=Fate.INVALID,
        reason="more than was requested",
        model="""
            import numpy as np
            from locked_eval.container import scorer

            honest_claims = scorer._claims
            scorer._claims = lambda *both: np.frombuffer(honest_claims(*both), "<f4").astype("<f8").tobytes()
        """,
    ),
]
