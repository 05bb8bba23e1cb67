"""GPUs as nvidia-smi lists them: no listed card is ever dropped, and a failure is one sentence."""

from __future__ import annotations

import pytest

from runner.campaign import setup
from runner.config import load
from runner.errors import EngineError
from runner.sandbox import host as hardware
from runner.sandbox.doctor import host
from runner.sandbox.host import Gpu, find_gpus

CARD = Gpu(uuid="GPU-1", name="NVIDIA H100", memory_mib=81559)
LINE = "GPU-1, NVIDIA H100, 81559"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Put a shell script in the place of nvidia-smi."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(script, first="#!/bin/sh"):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"{first}\n{script}\n")
        path.chmod(0o755)

    return write


def printing(*lines, code=0):
    body = "\n".join(lines)
    return f"cat <<'END'\n{body}\nEND\nexit {code}"


def failure():
    with pytest.raises(EngineError) as caught:
        find_gpus()
    assert "choose --profile cpu" in caught.value.remedy
    assert "\n" not in caught.value.message
    assert "Command" not in caught.value.message
    assert "--query-gpu" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize(
    ("lines", "gpus"),
    [
        ([LINE], (CARD,)),
        ([LINE, "", "GPU-2, NVIDIA H100, 81559"], (CARD, Gpu(uuid="GPU-2", name="NVIDIA H100", memory_mib=81559))),
        (["GPU-1, NVIDIA GB10, [N/A]"], (Gpu(uuid="GPU-1", name="NVIDIA GB10", memory_mib=None),)),
        (["GPU-1, Orin (nvgpu), [Not Supported]"], (Gpu(uuid="GPU-1", name="Orin (nvgpu)", memory_mib=None),)),
        (["GPU-1, NVIDIA X, rev. 2, 8192"], (Gpu(uuid="GPU-1", name="NVIDIA X, rev. 2", memory_mib=8192),)),
        ([LINE, "WARNING: infoROM is corrupted at gpu 0000:01:00.0"], (CARD,)),
    ],
)  # fmt: skip
def test_every_card_that_is_listed_is_found(tool, lines, gpus):
    tool(printing(*lines))
    assert find_gpus() == gpus


@pytest.mark.parametrize(
    "line",
    ["GPU-1", "GPU-1, 81559", "GPU-2, NVIDIA H100, [GPU is lost]", "[N/A], Orin (nvgpu), 8192", "GPU-2, , 8192"],
)
def test_a_line_that_cannot_be_read_is_an_error_and_not_one_card_less(tool, line):
    tool(printing(LINE, line))
    assert failure() == f"nvidia-smi lists a GPU in a line that cannot be read: {line}"


@pytest.mark.parametrize(
    "script", ["exit 0", printing("No devices were found"), printing("No devices were found", code=6)]
)
def test_a_driver_without_a_card_is_an_error(tool, script):
    tool(script)
    assert failure() == "nvidia-smi is installed, but lists no GPU"


def test_a_failure_is_reported_by_its_first_line_on_either_stream(tool):
    words = "Failed to initialize NVML: Driver/library version mismatch"
    for redirection in ("", " >&2"):
        tool(f"echo '{words}'{redirection}; echo 'NVML library version: 580.65'{redirection}; exit 18")
        assert failure() == f"nvidia-smi ended with exit code 18: {words}"
    tool("exit 9")
    assert failure() == "nvidia-smi ended with exit code 9: it said nothing"


def test_a_crash_is_reported_by_its_signal(tool):
    tool("kill -SEGV $$")
    assert failure() == "nvidia-smi ended by signal 11 (Segmentation fault): it said nothing"


def test_a_driver_that_hangs_is_an_error_after_the_time_limit(tool, monkeypatch):
    monkeypatch.setattr(hardware, "DRIVER_SECONDS", 0.2)
    tool("exec sleep 60")
    assert failure() == "nvidia-smi did not answer within 0.2 s"


def test_a_program_that_cannot_be_started_says_why(tool):
    tool("", first="#!/nowhere/sh")
    assert failure() == "nvidia-smi cannot be started: No such file or directory"


def test_without_the_program_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_gpus() == ()


def test_a_card_with_unified_memory_is_chosen_and_shown(tmp_path):
    config = load(tmp_path, {"profile": "cuda"}, environ={})
    config, found = host.choose_gpu(config, (Gpu(uuid="GPU-1", name="NVIDIA GB10", memory_mib=None),))
    assert (config.gpu, found.level, found.fact) == ("GPU-1", "ok", "NVIDIA GB10 (memory not reported)")


def test_a_broken_driver_does_not_stop_the_profile_cpu(tool, tmp_path):
    tool("exit 18")
    config = load(tmp_path, {"profile": "cpu"}, environ={})
    assert setup._device(config) == hardware.cpu_name()
