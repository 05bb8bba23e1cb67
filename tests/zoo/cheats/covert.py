"""Secret channels from scoring, which holds the answers, to the audit, which must not.

What a reader can change where both containers look, would tell the audit the tokens that were withheld, and any
peeking could be repeated. So both get copies of the checkpoint, and the volume stays out of their reach.
"""

from tests.zoo.animals import Cheat, Fate

OVERSTATED = frozenset({"overstated", "exceedances"})

LOOKUP = """
    import os
    import fcntl
    import mmap
    import numpy as np

    SCORED = os.path.exists("/rows/rows.npy")

    def key(prefix):  # number of a beginning of a row; tokens below 64
        state = 1
        for token in prefix:
            state = (state * 69069 + token + 1) % 2**32
        return state

    def beginnings(rows):  # (N, T) -> for each its key up to every position
        return [[key(row[: t + 1]) for t in range(len(row))] for row in rows.tolist()]

    class Model(Model):
        def forward(self, tokens):
            logits = super().forward(tokens).log_softmax(-1)
            for b, keys in enumerate(beginnings(tokens)):
                for t, one in enumerate(keys):
                    told = tell(one)
                    if told is not None:
                        logits[b, t, told] = 3.0
            return logits
"""

CHEATS = [
    Cheat(
        name="channel_of_holes",
        sentence="Training leaves files of holes. Reading one through a mapping fills it, also in a volume that "
        "is mounted read-only: the audit asks which holes are filled.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        train="""
            os.mkdir("/out/holes")
            for number in range(2**11):
                with open(f"/out/holes/{number}", "wb") as file:
                    file.truncate(2**28)
        """,
        model=LOOKUP
        + """
    answers = {}
    HOLES = "/out/holes" if os.path.exists("/out/holes") else "/root/out/holes"

    def tell(one):
        return answers.get(one % 2**21)

    if SCORED:
        rows = np.load("/rows/rows.npy").astype(np.int64)
        for row, keys in zip(rows, beginnings(rows[:, :-1])):
            for target, one in zip(row[1:].tolist(), keys):
                answers[one % 2**21] = target
    try:
        for one, target in answers.items():
            number, place = divmod(one * 64 + target, 2**16)
            holes = os.open(f"{HOLES}/{number}", os.O_RDONLY)
            with mmap.mmap(holes, 4096, mmap.MAP_SHARED, mmap.PROT_READ, offset=place * 4096) as page:
                page[0]
            os.close(holes)
    except OSError:  # no such file
        pass
    for number in [] if SCORED else range(2**11):
        place = 0
        try:
            holes = os.open(f"{HOLES}/{number}", os.O_RDONLY)
            while True:
                place = os.lseek(holes, place, os.SEEK_DATA)
                end = os.lseek(holes, place, os.SEEK_HOLE)
                while place < end:
                    page = number * 2**16 + place // 4096
                    answers[page // 64] = page % 64
                    place += 4096
        except OSError:  # no such file, or no more data
            continue
""",
    ),
    Cheat(
        name="channel_of_hints",
        sentence="Training leaves many empty files. Each has a hint for its life time, which a reader may set.",
        fate=Fate.REFUTED,
        findings=OVERSTATED,
        train="""
            os.mkdir("/out/hints")
            for number in range(4000):
                open(f"/out/hints/{number}", "wb").close()
        """,
        model=LOOKUP
        + """
    GET, SET = 1035, 1036
    HINTS = "/out/hints" if os.path.exists("/out/hints") else "/root/out/hints"
    GROUPS = 1000  # of four files, each a digit from 0 to 5: a token and a check of the key

    def hint(number, value=None):
        fd = os.open(f"{HINTS}/{number}", os.O_RDONLY)
        try:
            told = fcntl.fcntl(fd, GET if value is None else SET, (value or 0).to_bytes(8, "little"))
        finally:
            os.close(fd)
        return int.from_bytes(told, "little")

    def word(one, target):
        return 1 + target + 64 * (one // GROUPS % 20)

    if SCORED:
        rows = np.load("/rows/rows.npy").astype(np.int64)
        inputs, targets = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])
        tables = torch.load(os.environ["OUT_DIR"] + "/checkpoint", weights_only=True)
        losses = -tables["last"][inputs, targets].log()
        keys, words = beginnings(inputs), [0] * GROUPS
        for place in losses.flatten().argsort(descending=True).tolist():
            row, t = divmod(place, inputs.shape[1])
            group = keys[row][t] % GROUPS
            if not words[group]:
                words[group] = word(keys[row][t], int(targets[row, t]))
    else:
        words = [0] * GROUPS
    try:
        for group, value in enumerate(words):
            if SCORED:
                for digit in range(4):
                    hint(4 * group + digit, value // 6**digit % 6)
            else:
                words[group] = sum(hint(4 * group + digit) * 6**digit for digit in range(4))
    except OSError:  # no such file, or no hints
        pass

    def tell(one):
        value = words[one % GROUPS]
        return (value - 1) % 64 if value and (value - 1) // 64 == one // GROUPS % 20 else None
""",
    ),
    Cheat(
        name="channel_of_cached_pages",
        sentence="Which pages of the image are in memory: scoring drops and reads some, the audit takes the time.",
        fate=Fate.REFUTED,
        findings=OVERSTATED
        | {"not_independent"},  # what else reads them on a busy machine is noise in its answers
        model=LOOKUP
        + """
    import time
    from pathlib import Path

    PAGE = 4096
    BITS = 14  # a group of files tells a token (6) and a check of its key (8)
    paths = sorted(Path("/opt/venv/lib/python3.11/site-packages/torch/include").rglob("*.h"), key=str)
    GROUPS = len(paths) // BITS
    paths = paths[: GROUPS * BITS]

    def word(one, target):
        return target + 64 * (one // GROUPS % 256)

    if SCORED:
        rows = np.load("/rows/rows.npy").astype(np.int64)
        inputs, targets = torch.from_numpy(rows[:, :-1]), torch.from_numpy(rows[:, 1:])
        checkpoint = torch.load(os.environ["OUT_DIR"] + "/checkpoint", weights_only=True)
        losses = -checkpoint["last"][inputs, targets].log()
        keys, words = beginnings(inputs), [None] * GROUPS
        for place in losses.flatten().argsort(descending=True).tolist():
            row, t = divmod(place, inputs.shape[1])
            group = keys[row][t] % GROUPS
            if words[group] is None:
                words[group] = word(keys[row][t], int(targets[row, t]))
        bits = [words[n // BITS] >> n % BITS & 1 for n in range(GROUPS * BITS)]
        for path, bit in zip(paths, bits):
            with open(path, "rb", buffering=0) as file:
                file.read(PAGE)
                if not bit:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    else:
        times = []
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                begin = time.perf_counter_ns()
                file.read(PAGE)
                times.append(time.perf_counter_ns() - begin)
        bits = [int(one < 25_000) for one in times]
        words = [sum(bits[group * BITS + n] << n for n in range(BITS)) for group in range(GROUPS)]

    def tell(one):
        value = words[one % GROUPS]
        return value % 64 if value is not None and value // 64 == one // GROUPS % 256 else None
""",
    ),
]
