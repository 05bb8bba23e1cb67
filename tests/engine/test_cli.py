"""The command line as a user types it: a whole night on a small corpus, killed in the middle and resumed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import docker
import pytest

from runner.records import RunEnd, Verdict
from runner.sandbox import images
from runner.sandbox.supervision import GRACE_SECONDS
from runner.storage.ledger import Ledger
from runner.storage.lock import exclusive
from tests.support import fake_anthropic, fake_researchers
from tests.support.private_engine import copy_image, private_engine
from tests.support.publishing import CHECKPOINT

pytestmark = pytest.mark.docker

ROOT = Path(__file__).resolve().parents[2]
MODEL = """\
import json

import torch


class Unigram(torch.nn.Module):
    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, tokens):  # (B, T) -> (B, T, V)
        return self.logits.expand(*tokens.shape, -1)


def load(path, device):
    return Unigram(torch.tensor(json.loads(path.read_text()))).to(device)
"""
TRAIN = """\
import json
import os
import time
from pathlib import Path

import numpy as np

from workload.checkpoint import publish

SMOOTHING = 300.0  # counts added to every token
PAUSE_SECONDS = 0.5  # stands for the time that training takes

data = Path(os.environ["DATA_DIR"])
size = json.loads((data / "meta.json").read_text())["vocab_size"]
tokens = np.concatenate([np.fromfile(path, "<u2") for path in sorted(data.glob("shard-*.bin"))])
counts = np.bincount(tokens, minlength=size) + SMOOTHING
jitter = 1 + 1e-6 * (int(os.environ["SEED"]) % 1000)
logits = np.log(counts * jitter / counts.sum()).tolist()
print("step 1 loss 5.0 tokens/s 1000", flush=True)
time.sleep(PAUSE_SECONDS)
publish(lambda path: path.write_text(json.dumps(logits)))
"""


def write_corpus(folder):
    """200 documents of random words: no two share 13 of them."""
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(3000)]
    folder.mkdir()
    for number in range(200):
        text = " ".join(rng.choices(words, weights=[1 / (rank + 1) for rank in range(3000)], k=900))
        (folder / f"{number:03d}.txt").write_text(text)
    for path in [folder, *folder.iterdir()]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture
def night(tmp_path, engine, base_image):
    """A user's repository, and a function that runs `autoresearch` in it."""
    root = tmp_path / "clone"
    (root / "workload").mkdir(parents=True)
    tree = {"__init__.py": "", "checkpoint.py": CHECKPOINT, "model.py": MODEL, "train.py": TRAIN}
    for name, text in tree.items():
        (root / "workload" / name).write_text(text)
    (root / "program.md").write_text("Lower is better.\n")
    (root / ".gitignore").write_text("/.autoresearch/\n")
    for command in (
        ["init", "-q", "-b", "main", "."],
        ["add", "-A"],
        ["-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qm", "start"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    write_corpus(tmp_path / "corpus")
    environment = {
        **{name: os.environ[name] for name in os.environ if not name.startswith(("ANTHROPIC_", "AUTORESEARCH_"))},
        "AUTORESEARCH_PROFILE": "cpu",
        "AUTORESEARCH_SOURCE": str(tmp_path / "corpus"),
        "AUTORESEARCH_VOCAB_SIZE": "512",
        "AUTORESEARCH_CONTEXT_LENGTH": "64",
        "AUTORESEARCH_TRAIN_SECONDS": "5",
        "AUTORESEARCH_BASELINE_RUNS": "2",
        "AUTORESEARCH_MIN_TRIALS": "1",
        "AUTORESEARCH_MAX_TRIALS": "1",
        "AUTORESEARCH_CONTROL_INTERVAL": "0",
        "AUTORESEARCH_STACK_SIGMAS": "0",
        "AUTORESEARCH_NOISE_PRIOR_BPB": "0.0005",
        "AUTORESEARCH_MAX_DISTURBANCE": "1",  # tests share their core
    }

    def run(*arguments, check=True, **extra):
        return subprocess.run(
            [sys.executable, "-m", "runner", *arguments],
            cwd=root,
            env={**environment, "PYTHONPATH": str(ROOT), **extra},
            capture_output=True,
            text=True,
            check=check,
            timeout=280,
        )

    run.root, run.environment = root, environment
    yield run
    leftovers = ours(engine, root)
    run("clean")
    assert leftovers == [], "a container was left behind"


def ours(engine, root):
    """Containers of the campaign in `root`."""
    path = root / ".autoresearch" / "ledger.db"
    if not path.exists():
        return []
    with Ledger(path) as ledger:
        label = f"org.autoresearch.controller={ledger.controller}"
    return engine.client.api.containers(all=True, filters={"label": label})


def start(night, *arguments, **extra):
    """Start `autoresearch` without waiting for it."""
    return subprocess.Popen(
        [sys.executable, "-m", "runner", *arguments],
        cwd=night.root,
        env={**night.environment, "PYTHONPATH": str(ROOT), **extra},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_open_run(night, experiment, process):
    """Wait until the ledger says that a container of this experiment runs."""
    path = night.root / ".autoresearch" / "ledger.db"
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and process.poll() is None:
        if path.exists():
            with Ledger(path) as ledger:
                row = ledger._db.execute(
                    "SELECT 1 FROM runs WHERE experiment = ? AND end IS NULL", (experiment,)
                ).fetchone()
            if row:
                return
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"experiment {experiment} never started: {process.communicate()}")


def experiments(night):
    with Ledger(night.root / ".autoresearch" / "ledger.db") as ledger:
        return ledger.experiments("night")


def write_patches(folder):
    """One that helps, one that harms."""
    folder.mkdir()
    for name, value in (("1-less.patch", "1.0"), ("2-more.patch", "90000.0")):
        before = "300.0" if name.startswith("1") else "1.0"
        (folder / name).write_text(
            f"Smoothing {value}\n\n--- a/workload/train.py\n+++ b/workload/train.py\n@@ -10 +10 @@\n"
            f"-SMOOTHING = {before}  # counts added to every token\n"
            f"+SMOOTHING = {value}  # counts added to every token\n"
        )
    return str(folder)


def test_a_night_killed_in_training_goes_on_where_it_stopped(night, engine, tmp_path):
    patches = write_patches(tmp_path / "patches")
    command = ("overnight", "--from", patches, "--experiments", "2")
    process = start(night, *command)
    wait_for_open_run(night, 1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert experiments(night)[1].verdict is None

    result = night(*command)
    rows = experiments(night)
    assert [row.verdict for row in rows] == [Verdict.KEEP, Verdict.KEEP, Verdict.DISCARD]
    assert RunEnd.LOST in {run.end for run in rows[1].runs}
    assert ours(engine, night.root) == []
    assert "2 of 2 experiments done" in result.stdout

    # Everything that a user looks at in the morning.
    branch = subprocess.run(
        ["git", "log", "--format=%H", "main..autoresearch/night"],
        cwd=night.root, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert branch == [rows[1].kept_commit]
    table = (night.root / ".autoresearch" / "reports" / "night" / "results.tsv").read_text().splitlines()
    assert table[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert [line.split("\t")[3] for line in table[1:]] == ["keep", "keep", "discard"]
    picture = (night.root / ".autoresearch" / "reports" / "night" / "progress.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    status = json.loads(night("status", "--json").stdout)
    assert (status["done"], status["target"], status["running"]) == (2, 2, False)
    assert status["best_commit"] == branch[0]
    assert [json.loads(line)["number"] for line in night("log", "--json").stdout.splitlines()] == [0, 1, 2]
    kept = night("show", "1").stdout
    for word in ("Kept", "+SMOOTHING = 1.0", "overstatement", "sealed test rows"):
        assert word in kept
    assert {one["number"] for one in status["sealed"]} == {0, 1}
    assert status["strikes"] == {}
    sealed = (night.root / ".autoresearch" / "reports" / "night" / "sealed.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in sealed] == ["experiment", "0", "0", "1"]
    assert "Sealed test rows (as claimed): " in result.stdout
    for wrong in (["status", "--tag", "nothing"], ["show", "77"]):
        refused = night(*wrong, check=False)
        assert refused.returncode == 2
        assert wrong[-1] in refused.stderr
    events = (night.root / ".autoresearch" / "logs" / "night.jsonl").read_text().splitlines()
    assert {"versions_examined", "campaign_started", "campaign_resumed", "branch_advanced"} <= {
        json.loads(e)["event"] for e in events
    }

    # Every kept commit can be reproduced, also after its image is gone.
    night("clean")
    answer = json.loads(night("reproduce", branch[0], "--json").stdout)
    assert answer["rebuilt"] and answer["same_layer"] and answer["agrees"]
    assert answer["audit"] is None

    # And audited again, with the same claims and another draw.
    audited = night("audit", branch[0])
    for word in ("overstatement", "other suffixes", "the claims stand"):
        assert word in audited.stdout

    # A finished campaign goes on with more when asked again; the replay has no more patches.
    again = night(*command)
    assert "replayed" in again.stdout

    # `try` is an experiment like any other.
    tried = json.loads(night("try", f"{patches}/2-more.patch", "--json").stdout)
    assert (tried["number"], tried["verdict"]) == (3, "discard")
    refused = night("try", f"{patches}/1-less.patch", check=False)
    assert refused.returncode == 1
    assert refused.stdout.startswith("Invalid")


def test_ctrl_c_finishes_the_experiment_and_twice_kills_it_now(night, engine, tmp_path):
    patches = write_patches(tmp_path / "patches")
    process = start(night, "overnight", "--from", patches, "--experiments", "2")
    wait_for_open_run(night, 1, process)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "stopped by hand" in output
    assert [row.verdict for row in experiments(night)] == [Verdict.KEEP, Verdict.KEEP]

    process = start(night, "overnight", "--from", patches)
    wait_for_open_run(night, 2, process)
    process.send_signal(signal.SIGINT)
    for line in process.stderr:
        if "Ctrl-C again" in line:  # the first one has arrived: two at once would be delivered as one
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert ours(engine, night.root) == []
    assert experiments(night)[2].verdict is None


def test_a_hangup_and_whatever_follows_it_leave_no_container(night, engine):
    process = start(night, "baseline")
    wait_for_open_run(night, 0, process)
    process.send_signal(signal.SIGHUP)
    while process.poll() is None:  # in the clean-up, and after it
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        time.sleep(0.05)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert ours(engine, night.root) == []
    assert experiments(night)[0].verdict is None


def wait_for_training(night, engine, process):
    """Wait until a candidate's clock runs; returns its container."""
    give_up = time.monotonic() + 240
    while time.monotonic() < give_up and process.poll() is None:
        for one in ours(engine, night.root):
            with contextlib.suppress(docker.errors.APIError):
                if b'"started"' in engine.client.api.logs(one["Id"], stdout=False):
                    return one["Id"]
        time.sleep(0.05)
    process.kill()
    raise AssertionError(f"nothing trained: {process.communicate()}")


def test_a_controller_that_is_suspended_beyond_a_deadline_misjudges_nothing(night, engine):
    """PID 1 keeps the time meanwhile; the host's own deadline, which is over at once, takes nothing for late."""
    train = night.root / "workload" / "train.py"
    train.write_text(TRAIN.replace("PAUSE_SECONDS = 0.5", "PAUSE_SECONDS = 2.0"))
    commit = ["git", "-c", "user.name=u", "-c", "user.email=u@example.org", "commit", "-qam", "slower"]
    subprocess.run(commit, cwd=night.root, check=True)
    process = start(night, "baseline", "--json")
    container = wait_for_training(night, engine, process)
    began = time.monotonic()
    process.send_signal(signal.SIGSTOP)
    engine.client.api.wait(container, timeout=60)  # it ends by itself
    time.sleep(max(0.0, began + 5 + GRACE_SECONDS + 1 - time.monotonic()))  # the time that is slept through
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    runs = json.loads(output)["runs"]
    assert [run["end"] for run in runs] == ["finished"] * 8, "two of everything: none was thrown away"
    assert 2 <= runs[0]["wall_seconds"] < 5
    assert ours(engine, night.root) == []


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_signal_while_the_engine_creates_a_container_leaves_none(night, engine, number):
    """Fired just after the request left: the engine finishes what nobody waits for any more."""
    code = (
        "import os, signal, sys, threading, runpy\n"
        "import docker.api.container as api\n"
        "create, calls = api.ContainerApiMixin.create_container_from_config, []\n"
        "def late(*args, **kwargs):\n"
        "    calls.append(1)\n"
        f"    if len(calls) == {number}:\n"
        "        threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "    return create(*args, **kwargs)\n"
        "api.ContainerApiMixin.create_container_from_config = late\n"
        "sys.argv = ['autoresearch', 'baseline']\n"
        "runpy.run_module('runner', run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=night.root,
        env={**night.environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert result.returncode == 130, result.stderr
    assert "Traceback" not in result.stderr
    assert ours(engine, night.root) == []


def test_a_calibration_measures_noise_that_later_starts_use(night):
    found = json.loads(night("calibrate", "--runs", "2", "--json").stdout)
    assert len(found["scores_bpb"]) == len(found["audits"]) == 2
    before = json.loads(night("config", "--json", AUTORESEARCH_NOISE_PRIOR_BPB="0.0005").stdout)
    assert before["noise_prior_bpb"] == 0.0005, "a person's figure wins"
    del night.environment["AUTORESEARCH_NOISE_PRIOR_BPB"]
    after = json.loads(night("config", "--json").stdout)
    assert after["noise_prior_bpb"] == found["noise_prior_bpb"]
    assert after["honest_dependence"] == found["honest_dependence"] >= before["honest_dependence"] > 0
    assert tuple(after["honest_exceedances"]) == tuple(found["honest_exceedances"])


def test_validation_text_in_an_edit_is_refused_before_anything_is_built(night, tmp_path):
    # One line of every document: some of them are validation's or test's.
    lines = [" ".join(path.read_text().split()[:16]) for path in sorted((tmp_path / "corpus").iterdir())]
    patch = "Learn by heart\n\n--- /dev/null\n+++ b/workload/poems.py\n" + f"@@ -0,0 +1,{len(lines)} @@\n"
    (tmp_path / "heart.patch").write_text(patch + "".join(f"+# {line}\n" for line in lines))
    tried = night("try", str(tmp_path / "heart.patch"), "--json", check=False)
    assert tried.returncode == 1
    experiment = json.loads(tried.stdout)
    assert experiment["verdict"] == "invalid"
    assert "workload/poems.py" in experiment["reason"]
    assert experiment["image_id"] is None and experiment["runs"] == []


def test_a_second_controller_is_refused(night):
    process = start(night, "baseline")
    wait_for_open_run(night, 0, process)
    second = night("overnight", check=False)
    assert second.returncode == 1
    assert f"process {process.pid}" in second.stderr
    assert "Traceback" not in second.stderr
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130


BAD_INPUT = {
    "unknown setting": (["config"], {"AUTORESEARCH_TYPO": "1"}, 2, "AUTORESEARCH_TYPO"),
    "no campaign": (["status"], {}, 1, "make demo"),
    "dead engine": (["prepare"], {"DOCKER_HOST": "unix://<dead socket>"}, 1, "does not answer"),
    "no engine": (["prepare"], {"DOCKER_HOST": "unix:///nowhere.sock"}, 1, "make engine"),
    "remote engine": (["prepare"], {"DOCKER_HOST": "tcp://192.0.2.1:2375"}, 1, "not local"),
    "no corpus": (["prepare", "--source", "/nowhere"], {}, 1, "/nowhere"),
    "no gpu": (["overnight", "--require-gpu"], {"PATH": "<git alone>"}, 2, "GPU"),
    "no key": (["overnight", "--proposer", "anthropic"], {}, 1, "ANTHROPIC_API_KEY"),
    "no patches": (["overnight", "--from", "/nowhere"], {}, 1, "/nowhere"),
    "no such patch": (["try", "/nowhere.patch"], {}, 2, "/nowhere.patch"),
    "unknown command": (["overday"], {}, 2, "overday"),
    "bad tag": (["overnight", "--tag", "../x"], {}, 2, "tag"),
}


@pytest.mark.parametrize(("arguments", "extra", "code", "names"), BAD_INPUT.values(), ids=BAD_INPUT.keys())
def test_bad_input_gets_one_clear_error(night, tmp_path, arguments, extra, code, names):
    if "<dead socket>" in extra.get("DOCKER_HOST", ""):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "dead.sock"))
        extra = {"DOCKER_HOST": f"unix://{tmp_path}/dead.sock"}
    if extra.get("PATH"):
        (tmp_path / "bin").mkdir()
        for tool in ("git", "env"):
            (tmp_path / "bin" / tool).symlink_to(shutil.which(tool))
        extra = {"PATH": str(tmp_path / "bin")}
    result = night(*arguments, check=False, **extra)
    assert result.returncode == code, result.stderr
    assert names in result.stderr
    assert "Traceback" not in result.stderr
    assert not list((night.root / ".autoresearch").glob("data/*"))


def test_a_dirty_checkout_cannot_start_a_campaign(night):
    (night.root / "workload" / "train.py").write_text(TRAIN + "# not committed\n")
    result = night("overnight", check=False)
    assert result.returncode == 1
    assert "workload" in result.stderr


def test_a_corrupt_data_file_is_found_by_its_hash(night):
    night("prepare")
    (data,) = (night.root / ".autoresearch" / "data").iterdir()
    rows = data / "val" / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-2] + b"\x01\x01")
    result = night("prepare", check=False)
    assert result.returncode == 1
    assert "rows.npy" in result.stderr
    assert "prepare --force" in result.stderr
    night("prepare", "--force")


def test_a_night_with_a_language_model_is_never_idle_books_its_cost_and_mends_a_crash_though_it_is_killed(night):
    """One edit fails when it is run for a moment, one fails at full length only, and one helps."""

    def kill(_request):
        processes[0].kill()
        return fake_anthropic.error(500, "api_error")

    processes = []
    key = "sk-ant-canary-0123456789"
    pause = "PAUSE_SECONDS = 0.5"
    late = "PAUSE_SECONDS = 0.5 if float(os.environ['DEADLINE_SECONDS']) < 4 else undefined"
    script = [
        fake_researchers.answer(fake_researchers.edit(" = ", "=")),  # refused, since it does not say where
        kill,  # before the second answer
        fake_researchers.proposes(pause, "PAUSE_SECONDS = unknown"),  # fails when it is tried
        fake_researchers.proposes("PAUSE_SECONDS = unknown", late),  # crashes in its experiment
        # While that one runs:
        fake_researchers.proposes("size) + SMOOTHING", "size) + 1.0", category="regularization"),  # helps
        # And while this one runs, the crash is mended; that waits for its place on the new champion:
        fake_researchers.proposes(pause, "PAUSE_SECONDS = 0.6"),
        fake_anthropic.error(401, "authentication_error"),  # the key is withdrawn in the middle of the night
    ]
    arguments = ["overnight", "--proposer", "anthropic", "--experiments", "4"]
    with fake_anthropic.FakeAnthropic(script) as server:
        environment = {
            "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": key, "AUTORESEARCH_SMOKE_SECONDS": "2",
        }  # fmt: skip
        processes.append(start(night, *arguments, **environment))
        processes[0].communicate()
        assert processes[0].returncode == -signal.SIGKILL
        result = night(*arguments, check=False, **environment)
        requests = list(server.requests)
    assert result.returncode == 1
    assert "ANTHROPIC_API_KEY" in result.stderr
    assert "Traceback" not in result.stderr
    rows = experiments(night)
    assert [row.verdict for row in rows] == [Verdict.KEEP, Verdict.CRASH, Verdict.KEEP, Verdict.DISCARD]
    assert [row.retry_of for row in rows] == [None, None, None, 1]
    assert (rows[2].champion, rows[3].champion) == (0, 2), "what waited for a keep was put on it"
    # 1,000 tokens in at $4 and 200 out at $20 a million: what was answered is not asked again.
    answer_usd = (1000 * 4 + 200 * 20) / 1e6
    status = json.loads(night("status", "--json").stdout)
    assert status["cost_usd"] == pytest.approx(5 * answer_usd)
    assert [row.cost_usd for row in rows] == pytest.approx([0, 3 * answer_usd, answer_usd, answer_usd])
    assert requests[1] == requests[2]
    assert len(requests) == len(script)
    assert "NameError" in json.dumps(requests[3]), "the model is shown what the short run printed"
    assert "Running now" in json.dumps(requests[4])
    assert "Fix the idea of experiment 1" in json.dumps(requests[5])
    assert "NameError" in json.dumps(requests[5]), "and the end of the crash's log"
    for file in (night.root / ".autoresearch").rglob("*"):
        if file.is_file() and "data" not in file.parts:
            assert key.encode() not in file.read_bytes(), file
    assert key not in result.stderr + result.stdout


def findings(result):
    return {one["name"]: one for one in map(json.loads, result.stdout.splitlines())}


def test_doctor_says_what_is_there_and_what_holds(night, engine, base_image):
    with private_engine() as alone:  # beside a night of others it would leave the probes out
        copy_image(engine.client, base_image, alone)
        examined = night("doctor", "--json", check=False, DOCKER_HOST=alone.url)
    found = findings(examined)
    assert "probes" not in found, found["probes"]
    assert found["docker"]["level"] == "ok"
    assert found["git"]["level"] == "ok"
    assert found["model"]["level"] == "note"
    assert found["seccomp"]["level"] == "ok"
    assert found["watchdog"]["level"] == "ok", "its daemon was stopped, and PID 1 ended the run"
    problems = {name for name, one in found.items() if one["level"] == "problem"}
    assert all(name.endswith("-version") or name.startswith(("disk", "docker-")) for name in problems), problems
    assert examined.returncode == bool(problems)
    assert "looking around" in examined.stderr


def test_doctor_fails_without_an_engine(night, tmp_path):
    ill = night("doctor", check=False, DOCKER_HOST=f"unix://{tmp_path}/none.sock")
    assert ill.returncode == 1
    assert "make engine" in ill.stdout


def test_what_an_operator_accepts_is_no_failure(night):
    found = findings(night("doctor", "--fast", "--json", check=False))
    assert "seccomp" not in found, "--fast starts no container"
    problems = [name for name, one in found.items() if one["level"] == "problem"]
    lines = [f'{name} = "looked into it"' for name in {"engine-version", *problems}]
    (night.root / "autoresearch.toml").write_text("[accept]\n" + "\n".join(lines) + "\n")
    again = night("doctor", "--fast", "--json")
    levels = {name: one["level"] for name, one in findings(again).items() if name in problems}
    assert levels == dict.fromkeys(problems, "accepted")


def test_doctor_probes_nothing_without_a_base_image(night, engine):
    if images.find_base(engine.client, "cuda") is not None:
        pytest.skip("the cuda base image is here")
    found = findings(night("doctor", "--json", check=False, AUTORESEARCH_PROFILE="cuda"))
    assert (found["probes"]["level"], found["probes"]["remedy"]) == ("note", "autoresearch prepare")
    assert found["base-image"]["level"] == "note"


def test_doctor_probes_nothing_while_a_controller_works(night):
    night("doctor", "--fast", check=False)
    with exclusive(night.root / ".autoresearch"):
        found = findings(night("doctor", "--json", check=False))
    assert found["probes"]["level"] == "note"
    assert str(os.getpid()) in found["probes"]["fact"]
    assert not {"seccomp", "watchdog"} & found.keys()


def test_help_answers_without_importing_anything_heavy():
    code = (
        "import sys; sys.argv = ['autoresearch', '--help']\n"
        "from runner.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'docker', 'anthropic', 'git', 'optuna', 'pydantic', 'rich', 'numpy', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    assert "overnight" in result.stdout
