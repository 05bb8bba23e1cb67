"""The profile cuda on machines with no card, one, and eight: a stand-in for nvidia-smi lists them."""

from __future__ import annotations

import os

import pytest

from runner.cli.options import resolve_config
from runner.errors import ConfigError


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with so many cards; none: no driver is installed."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def make(cards):
        if cards:
            lines = "".join(f"echo 'GPU-{number}, NVIDIA H100 80GB HBM3, 81559'\n" for number in range(cards))
            (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{lines}")
            (tmp_path / "nvidia-smi").chmod(0o755)

    return make


def resolved(tmp_path, **settings):
    notes = []
    return resolve_config(tmp_path, notes.append, **settings), notes


@pytest.mark.parametrize("cards", [1, 8])
def test_a_card_is_left_to_the_reservation_unless_one_is_chosen(machine, tmp_path, cards):
    machine(cards)
    for gpu in {None, "0", str(cards - 1), f"GPU-{cards - 1}"}:
        chosen, notes = resolved(tmp_path, profile="cuda", gpu=gpu)
        assert chosen.gpu == {None: None, "0": "GPU-0"}.get(gpu, f"GPU-{cards - 1}")
        assert notes == []
    with pytest.raises(ConfigError, match="there is no GPU '8'"):
        resolved(tmp_path, profile="cuda", gpu="8")


def test_without_a_card_nothing_runs_but_everything_can_be_prepared(machine, tmp_path):
    machine(0)
    with pytest.raises(ConfigError, match="no NVIDIA GPU was found"):
        resolved(tmp_path, profile="cuda")
    chosen, notes = resolved(tmp_path, profile="cuda", needs_gpu=False)
    assert (chosen.profile, chosen.gpu, notes) == ("cuda", None, [])
    with pytest.raises(ConfigError, match="no NVIDIA GPU was found"):
        resolved(tmp_path, profile="cuda", needs_gpu=False, require_gpu=True)


def test_a_card_is_used_unless_the_profile_is_cpu(machine, tmp_path):
    machine(1)
    chosen, _ = resolved(tmp_path)
    assert (chosen.profile, chosen.gpu) == ("cuda", None)
    chosen, _ = resolved(tmp_path, profile="cpu")
    assert (chosen.profile, chosen.gpu) == ("cpu", None)
