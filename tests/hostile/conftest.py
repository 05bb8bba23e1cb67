"""An estate that must stay as it is, and containers that attack it through the production path."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner.records import RunEnd, RunRecord
from runner.sandbox import images
from runner.sandbox.containers import Owner
from runner.sandbox.session import Mounts
from runner.sandbox.supervision import GRACE_SECONDS
from tests.hostile.estate import MEMORY_BYTES, Estate, controller_memory, forget_peak
from tests.hostile.privileges import capabilities
from tests.support.tiny_candidates import open_candidate, train_alone

INSIDE = Path(__file__).with_name("inside")
ANSWER_BYTES = 1 << 20
SIGKILLED = 137
LATE_SECONDS = 2.0
"""The most that an end may be later than its deadline when PID 1 ends it; the host waits as long."""

TRAINED = """
import sys
from pathlib import Path
from workload.inside import calls, surface
for group in (calls.GROUP, surface.GROUP):
    sys.stdout.write(group.run())
Path("/out/checkpoint").write_text("x")
"""
SCORED = """
import os, stat
from workload.inside import calls, surface

def load(path, device):
    text = (calls.GROUP.run() + surface.GROUP.run()).encode()
    answer = [fd for fd in range(3, 64) if _is_pipe(fd)]
    os.write(answer[0], text)
    os._exit(0)

def _is_pipe(fd):
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False
"""
"""A model that writes outcomes where claims belong."""


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What became of one candidate."""

    trained: RunRecord
    scored: RunRecord | None = None
    answer: bytes | None = None

    @property
    def outcomes(self) -> dict[str, str]:
        """Of the attempts that training printed."""
        return read_outcomes(self.trained.log_tail)


def read_outcomes(text: str) -> dict[str, str]:
    """Lines of `inside/attempts.py` by name."""
    return dict(line.split("\t", 1) for line in text.splitlines() if "\t" in line)


@pytest.fixture(scope="session")
def estate(engine, tiny_data, tmp_path_factory):
    """What must not change."""
    made = Estate(tmp_path_factory.mktemp("estate"), tiny_data, engine)
    yield made
    made.close()


@pytest.fixture(scope="session")
def unharmed(estate):
    """`with unharmed():` the estate is the same after as before, and the controller has not grown."""

    @contextmanager
    def watched():
        before = estate.state()
        forget_peak()
        memory = controller_memory()
        yield
        grown = controller_memory() - memory
        assert before.changes(estate.state()) == []
        assert grown < MEMORY_BYTES, f"the controller took {grown} bytes more"

    return watched


@pytest.fixture(scope="session")
def attack(engine, base_image, tiny_data, cpu_config, estate, unharmed):
    """Train a candidate, score what it left if asked to, and look at the estate: `attack({"train.py": …})`."""
    train = {path.name: path for path in (tiny_data / "train").iterdir()}
    mounts = Mounts(locked=estate.locked, train=lambda _: train, val=tiny_data / "val", test=tiny_data / "test")
    owner = Owner(controller=estate.controller, campaign="test", experiment=1)

    def one(files, *, score=False, image=base_image, **settings) -> Attack:
        began: list[float] = []
        ended: list[float] = []
        common = {
            "base_image": image, "config": cpu_config.model_copy(update=settings), "mounts": mounts,
            "owner": owner, "files": files,
        }  # fmt: skip
        clock = {
            "seed": 1,
            "on_start": lambda: began.append(time.monotonic()),
            "on_end": lambda: ended.append(time.monotonic()),
        }
        scored, answer = None, None
        with unharmed():
            if score:
                with open_candidate(engine, **common, max_claims_bytes=ANSWER_BYTES) as opened:
                    trained = opened.train(**clock)
                    scored, answer = opened.score(seed=1, batch_rows=64)
            else:
                trained = train_alone(engine, **common, **clock)
        seconds = ended[0] - (began or ended)[0]  # of a short run, the start may be told after the end
        images.remove_images(engine.client, {"controller": estate.controller})
        limit = settings.get("train_seconds", cpu_config.train_seconds)
        assert seconds <= limit + LATE_SECONDS + GRACE_SECONDS, "the controller saw the end late"
        if trained.wall_seconds is None:
            # So many processes that they were not all gone in time: then the host has ended it, and PID 1 with it.
            assert (trained.end, trained.exit_code) == (RunEnd.DEADLINE, SIGKILLED), trained
            assert seconds > limit + LATE_SECONDS - 0.5, "PID 1 had time to report"
        else:
            assert trained.wall_seconds <= limit + 1
        return Attack(trained=trained, scored=scored, answer=answer)

    return one


@pytest.fixture(scope="session")
def host(engine, estate):
    """Things on this host that attempts try to reach: servers, files, a process, a secret."""
    abstract = f"autoresearch-{uuid.uuid4().hex}"
    secret = "SECRET_OF_THE_HOST"  # no name of ours: a setting of that name would be wrong
    visits: list[str] = []
    with (
        socket.create_server(("0.0.0.0", 0)) as server,
        socket.socket(socket.AF_UNIX) as hidden,
        pytest.MonkeyPatch.context() as patch,
    ):
        hidden.bind("\0" + abstract)
        hidden.listen()

        def count(listening: socket.socket, name: str) -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                visits.append(name)
                connection.close()

        for listening, name in ((server, "loopback"), (hidden, "abstract")):
            threading.Thread(target=count, args=(listening, name), daemon=True).start()
        patch.setenv(secret, "sk-secret")
        facts = {
            "engine": engine.url.removeprefix("unix://"),
            "abstract": abstract,
            "port": server.getsockname()[1],
            "address": own_address(),
            "canary": str(estate.canaries[3]),
            "ledger": str(estate.ledger.path),
            "project": str(estate.project),
            "pid": os.getpid(),
            "secret": secret,
        }
        yield Host(facts=facts, visits=visits)
        for listening in (server, hidden):
            listening.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, kw_only=True)
class Host:
    """Targets, and who came."""

    facts: dict[str, object]
    visits: list[str]

    @property
    def module(self) -> str:
        """`inside/host.py`."""
        return f"HOST = {self.facts!r}\n"


def own_address() -> str:
    """An address of this host that is not its loopback, if it has one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@pytest.fixture(scope="session")
def inside(host):
    """`inside/` as files of a candidate."""
    files = {f"inside/{path.name}": path.read_text("utf-8") for path in sorted(INSIDE.glob("*.py"))}
    return {**files, "inside/host.py": host.module}


@pytest.fixture(scope="session")
def escapes(attack, inside, host, torch_image):
    """Every attempt at a denied call and at the surface, in training and again in scoring: two containers."""
    before = len(host.visits)
    made = attack(
        {**inside, "train.py": TRAINED, "model.py": SCORED},
        score=True,
        image=torch_image,
        train_seconds=60.0,
        score_seconds=60.0,
    )
    assert made.trained.end is RunEnd.FINISHED, made.trained.log_tail
    assert made.scored is not None and made.scored.end is RunEnd.FINISHED
    assert made.answer is not None
    assert host.visits[before:] == [], "a server of the host was visited"
    return {"train": made.outcomes, "score": read_outcomes(made.answer.decode())}


@pytest.fixture(scope="session")
def limits_met(attack, inside):
    """Everything that meets a limit, one after the other in one container."""
    train = "import sys\nfrom workload.inside.limits import GROUP\nsys.stdout.write(GROUP.run())\n"
    made = attack({**inside, "train.py": train}, train_seconds=90.0, memory_bytes=700 * 2**20)
    assert made.trained.end is RunEnd.FINISHED, made.trained.log_tail
    return made.outcomes


@pytest.fixture(scope="session")
def twins_run(attack, inside, torch_image):
    """Everything harmless, in one container."""
    train = """import sys
from workload.inside.twins import GROUP
sys.stdout.write(GROUP.run())
print("a long log\\n" * 800)
from workload.checkpoint import publish
publish(lambda path: path.write_bytes(b"weights"))
"""
    made = attack({**inside, "train.py": train}, score=True, image=torch_image, train_seconds=60.0)
    assert made.trained.end is RunEnd.FINISHED, made.trained.log_tail
    return made


@pytest.fixture(scope="session")
def open_container(engine, base_image, inside, estate, tmp_path_factory):
    """The same attempts as root, with every capability and without any filter; on copies of what is locked."""
    root = tmp_path_factory.mktemp("open")
    for name, text in inside.items():
        path = root / "candidate" / "workload" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("candidate/workload/__init__.py", "candidate/workload/model.py"):
        (root / name).touch()
    subprocess.run(["cp", "-r", str(estate.locked), str(root / "locked")], check=True)
    (root / "data").mkdir()
    (root / "out").mkdir()
    (root / "data" / "shard-00.bin").write_bytes(b"x")
    program = (
        "import sys; sys.path[:0] = ['/candidate', '/locked']\n"
        "from workload.inside import calls, surface\n"
        "for group in (calls.GROUP, surface.GROUP):\n"
        "    sys.stdout.write(group.run([n for n, a in group.attempts.items() if a.control == 'root']))\n"
    )
    profiles = [one.partition(",")[0].removeprefix("name=") for one in engine.client.info()["SecurityOptions"]]
    container = engine.client.containers.create(
        base_image,
        entrypoint=["/opt/venv/bin/python", "-c", program],
        user="0:0",
        network_mode="none",
        cap_add=sorted(capabilities()),
        security_opt=[f"{name}=unconfined" for name in profiles if name in ("seccomp", "apparmor")],
        volumes={str(root / name): {"bind": f"/{name}"} for name in ("candidate", "locked", "data", "out")},
        labels={"org.autoresearch.controller": f"open-{estate.controller}"},
    )
    try:
        container.start()
        status = container.wait(timeout=120)["StatusCode"]
        text = container.logs(stdout=True, stderr=False).decode()
        assert status == 0, container.logs().decode()
    finally:
        container.remove(force=True)
    return read_outcomes(text)


@pytest.fixture(scope="session")
def on_the_host(inside, host, tmp_path_factory):
    """The same attempts by a process of this host."""
    from tests.hostile.inside import surface

    root = tmp_path_factory.mktemp("host")
    (root / "inside").mkdir()
    for name, text in inside.items():
        (root / name).write_text(text)
    names = [name for name, one in surface.GROUP.attempts.items() if one.control == "host"]
    made = subprocess.run(
        [sys.executable, "-m", "inside.surface", *names], cwd=root, capture_output=True, text=True, check=True
    )
    return read_outcomes(made.stdout)
