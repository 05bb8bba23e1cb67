"""The scrub of GPU memory, against an imitation of the driver: no GPU is needed, and none has been used yet."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.errors import EngineError
from runner.sandbox import containers
from runner.sandbox import gpu_scrub as scrubbing
from runner.sandbox.containers import Owner

PROGRAM = Path(__file__).resolve().parents[3] / "locked_eval" / "container" / "gpu_scrub.py"

DRIVER = r"""
/* A card whose memory is real memory of this process, in pages of 2 MiB, filled with what others left.
   Set by the environment: CARD_MIB free; LARGEST_MIB, the largest piece; UNREACHABLE_MIB, free but never given;
   LATE_MIB, free only after the first piece was taken; FAIL, a function that returns 719; REPORT, a file. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define MIB (1ull << 20)
static uint8_t *card; static uint64_t size, used, late, started; static int contexts, frees;
static uint64_t setting(const char *name, uint64_t other) {
    const char *text = getenv(name); return text ? strtoull(text, 0, 10) * MIB : other;
}
static int fails(const char *name) {
    const char *text = getenv("FAIL"); return text && !strcmp(text, name) ? 719 : 0;
}
int cuInit(unsigned flags) {
    if (fails("cuInit")) return 100;
    size = setting("CARD_MIB", 64 * MIB); late = setting("LATE_MIB", 0);
    card = malloc(size ? size : 1); memset(card, 0xAB, size); return 0;
}
int cuDeviceGetCount(int *count) { *count = fails("none") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) {
    contexts++; *context = card; return fails("cuDevicePrimaryCtxRetain");
}
int cuDevicePrimaryCtxRelease_v2(int device) {
    contexts--;
    uint64_t dirty = 0; for (uint64_t i = 0; i < size; i++) dirty += card[i] != 0;
    FILE *file = fopen(getenv("REPORT"), "w");
    fprintf(file, "{\"dirty\": %llu, ", (unsigned long long)dirty);
    fprintf(file, "\"contexts\": %d, \"frees\": %d}", contexts, frees);
    fclose(file); return 0;
}
int cuCtxSetCurrent(void *context) { return 0; }
int cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
    *free_bytes = size - used - (started ? 0 : late); *total = size + 512 * MIB; return fails("cuMemGetInfo_v2");
}
int cuMemAlloc_v2(uint64_t *pointer, size_t bytes) {
    if (fails("cuMemAlloc_v2")) return 719;
    uint64_t pages = (bytes + 2 * MIB - 1) / (2 * MIB) * 2 * MIB;
    if (bytes > setting("LARGEST_MIB", 1ull << 62)) return 2;
    if (pages > size - used - setting("UNREACHABLE_MIB", 0)) return 2;
    *pointer = (uint64_t)(uintptr_t)(card + used); used += pages; started = 1; return 0;
}
int cuMemsetD8_v2(uint64_t pointer, unsigned char value, size_t bytes) {
    memset((void *)(uintptr_t)pointer, value, bytes); return 0;
}
int cuCtxSynchronize(void) { return fails("cuCtxSynchronize"); }
int cuMemFree_v2(uint64_t pointer) { frees++; return 0; }
int cuGetErrorName(int code, const char **name) {
    if (code != 719) return 1;
    *name = "CUDA_ERROR_LAUNCH_FAILED"; return 0;
}
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Folder with an imitation of `libcuda.so.1`."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "driver.c").write_text(DRIVER)
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(folder / "libcuda.so.1"), str(folder / "driver.c")]
    subprocess.run(command, check=True)
    return folder


def run(driver, tmp_path, **settings):
    """Run the program; returns its result, what it printed, and what the card looked like at its end."""
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM)],
        env={
            "LD_LIBRARY_PATH": str(driver),
            "REPORT": str(report),
            **{name: str(value) for name, value in settings.items()},
        },
        capture_output=True,
        text=True,
    )
    facts = json.loads(done.stdout) if done.stdout else None
    return done, facts, json.loads(report.read_text()) if report.exists() else None


def test_a_gibibyte_of_free_memory_is_zero_afterwards(driver, tmp_path):
    done, facts, card = run(driver, tmp_path, CARD_MIB=1024)
    assert done.returncode == 0, done.stderr
    assert facts["bytes"] == 2**30
    assert facts["fraction"] == 1
    assert facts["devices"] == 1
    assert card["dirty"] == 0


def test_an_odd_amount_is_covered_by_ever_smaller_pieces(driver, tmp_path):
    done, facts, card = run(driver, tmp_path, CARD_MIB=62)
    assert done.returncode == 0
    assert facts["bytes"] == 62 * 2**20
    assert card == {"dirty": 0, "contexts": 0, "frees": 5}  # 32 + 16 + 8 + 4 + 2


def test_fragmented_memory_is_covered_in_pieces(driver, tmp_path):
    done, facts, card = run(driver, tmp_path, CARD_MIB=96, LARGEST_MIB=4)
    assert done.returncode == 0
    assert facts["bytes"] == 96 * 2**20
    assert card == {"dirty": 0, "contexts": 0, "frees": 24}


def test_a_remainder_below_two_percent_passes(driver, tmp_path):
    done, facts, _ = run(driver, tmp_path, CARD_MIB=401)
    assert done.returncode == 0
    assert 0.99 < facts["fraction"] < 1


def test_memory_that_cannot_be_reached_is_an_error(driver, tmp_path):
    done, facts, card = run(driver, tmp_path, CARD_MIB=64, UNREACHABLE_MIB=4)
    assert done.returncode == 1
    assert facts["fraction"] == 0.9375
    assert "error: only 93.8% of a GPU's free memory was overwritten" in done.stderr
    assert card["dirty"] == 4 * 2**20


def test_memory_that_a_dying_process_gives_back_meanwhile_is_covered_too(driver, tmp_path):
    done, facts, card = run(driver, tmp_path, CARD_MIB=64, LATE_MIB=40)
    assert done.returncode == 0
    assert facts["bytes"] == 64 * 2**20
    assert card["dirty"] == 0


def test_memory_that_comes_back_and_is_missed_is_an_error(driver, tmp_path):
    done, facts, _ = run(driver, tmp_path, CARD_MIB=64, LATE_MIB=40, UNREACHABLE_MIB=40)
    assert done.returncode == 1
    assert facts["fraction"] == 0.375


@pytest.mark.parametrize(
    "function", ["cuDevicePrimaryCtxRetain", "cuMemGetInfo_v2", "cuMemAlloc_v2", "cuCtxSynchronize"]
)
def test_an_error_of_the_driver_is_named(driver, tmp_path, function):
    done, facts, _ = run(driver, tmp_path, FAIL=function)
    assert done.returncode == 1
    assert facts is None
    assert done.stderr == f"error: {function} failed: CUDA_ERROR_LAUNCH_FAILED\n"


def test_a_machine_without_a_device_is_an_error(driver, tmp_path):
    done, _, _ = run(driver, tmp_path, FAIL="none")
    assert (done.returncode, done.stderr) == (1, "error: no GPU is visible\n")
    done, _, _ = run(driver, tmp_path, FAIL="cuInit")
    assert (done.returncode, done.stderr) == (1, "error: cuInit failed: error 100\n")


def test_a_missing_or_an_old_driver_is_an_error(driver, tmp_path):
    (tmp_path / "old").mkdir()
    source = tmp_path / "old.c"
    source.write_text("int cuInit(unsigned flags) { return 0; }\n")
    compiler = shutil.which("cc") or shutil.which("gcc") or "cc"
    target = tmp_path / "old" / "libcuda.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    done, _, _ = run(tmp_path / "old", tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: the driver has no cuDeviceGetCount: it is too old\n")
    if not os.path.exists("/usr/lib/x86_64-linux-gnu/libcuda.so.1"):
        done, _, _ = run(tmp_path, tmp_path)
        assert done.returncode == 1
        assert done.stderr.startswith("error: the driver's library is missing (libcuda.so.1")


class Api:
    """What `scrub` asks of an engine; the container ends at once."""

    def __init__(self, exit_code: int, stdout: bytes, stderr: bytes) -> None:
        self.exit_code, self.stdout, self.stderr = exit_code, stdout, stderr
        self.calls: list[str] = []

    def start(self, container_id):
        self.calls.append(f"start {container_id}")

    def inspect_container(self, container_id):
        return {"State": {"Running": False, "ExitCode": self.exit_code}}

    def logs(self, container_id, *, stdout, stderr):
        return self.stdout if stdout else self.stderr

    def remove_container(self, container_id, *, force, v):
        self.calls.append(f"remove {container_id}")


@pytest.fixture
def call(monkeypatch):
    """Call `scrub` with a fake engine; returns the API's calls and the arguments of the container."""
    created: dict[str, object] = {}

    def create(sandbox, spec):
        created.update(vars(spec), locked=sandbox.locked)
        return "c1"

    monkeypatch.setattr(containers, "create_container", create)

    def call(gpu, exit_code=0, stdout=b'{"bytes": 1, "seconds": 0.5, "fraction": 1.0}\n', stderr=b""):
        api = Api(exit_code, stdout, stderr)
        engine = SimpleNamespace(client=SimpleNamespace(api=api))
        owner = Owner(controller="c", campaign="t", experiment=1)
        call.api = api
        scrubbing.scrub(
            engine, config=SimpleNamespace(gpu=gpu), image_id="sha256:base", locked=Path("/pinned"), owner=owner
        )
        return api.calls, created

    return call


def test_without_a_gpu_nothing_runs(call):
    assert call(None) == ([], {})


def test_the_scrub_runs_the_locked_program_on_the_base_image_and_is_removed(call):
    calls, created = call("GPU-1")
    assert calls == ["start c1", "remove c1"]
    assert (created["program"], created["image_id"], created["phase"]) == (
        "container/gpu_scrub.py",
        "sha256:base",
        "scrub",
    )
    assert (created["locked"], created["read_only"]) == (Path("/pinned"), {})
    assert created["output_volume"] is None


@pytest.mark.parametrize(
    ("exit_code", "stdout", "stderr", "message"),
    [
        (1, b"", b"warning\nerror: no GPU is visible\n", "could not be scrubbed: no GPU is visible"),
        (137, b"", b"", "could not be scrubbed: 137"),
        (0, b"", b"", "sent no report"),
        (0, b"[]", b"", "sent no report"),
    ],
)
def test_a_scrub_that_fails_is_an_infrastructure_error_and_is_removed(call, exit_code, stdout, stderr, message):
    with pytest.raises(EngineError, match=message):
        call("GPU-1", exit_code, stdout, stderr)
    assert call.api.calls == ["start c1", "remove c1"]
