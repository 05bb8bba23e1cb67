"""From options to settings: what a machine does not have, and what a proposer does not read."""

from __future__ import annotations

import os

import pytest

from runner.cli.options import resolve_config
from runner.errors import ConfigError

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def resolve(tmp_path, monkeypatch):
    """Resolve options on a machine without GPU, key and settings; returns the settings and the notes."""
    for name in os.environ:
        if name.startswith(("AUTORESEARCH_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def call(**options):
        notes = []
        return resolve_config(tmp_path, notes.append, **options), notes

    call.file = tmp_path / "autoresearch.toml"
    return call


def test_more_cores_than_there_are_are_refused_by_the_name_of_the_setting(resolve, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_CPUS", "99")
    with pytest.raises(ConfigError, match=rf"'cpus' is 99, and this machine offers {CORES}\n") as caught:
        resolve(profile="cpu")
    assert f"AUTORESEARCH_CPUS, or cpus in autoresearch.toml, to {CORES} or less" in caught.value.remedy
    monkeypatch.setenv("AUTORESEARCH_CPUS", str(CORES))
    assert resolve(profile="cpu")[0].cpus == CORES


def test_a_profile_for_more_cores_gets_those_that_there_are(resolve, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU-1, NVIDIA H100, 81559'\n")
    tool.chmod(0o755)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    config, notes = resolve(profile="cuda")
    assert (config.cpus, config.gpu) == (2, None)
    assert notes == ["the profile cuda wants 8 cores: using the 2 that there are"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"proposer": "optuna"}, ["the proposer optuna asks no model, so program.md has no effect"]),
        (
            {"proposer": None, "replay_from": "patches"},
            ["the proposer replay asks no model, so program.md has no effect"],
        ),
        ({"proposer": "anthropic"}, []),
        ({}, []),
    ],
)
def test_a_proposer_that_does_not_read_the_program_says_so_once(resolve, options, told):
    _, notes = resolve(profile="cpu", **options)
    assert [note for note in notes if "program.md" in note] == told


BEGUN = {"profile": "cpu", "train_seconds": "6", "cpus": "1", "memory_bytes": "1073741824", "max_eval_rows": "512"}


def test_a_campaign_continues_with_the_settings_that_it_began_with(resolve):
    config, notes = resolve(tag="demo", recorded=lambda tag: BEGUN if tag == "demo" else {})
    assert (config.profile, config.train_seconds, config.max_eval_rows) == ("cpu", 6.0, 512)
    assert config.memory_bytes == 2**30 and not any("GPU" in note for note in notes)


def test_a_setting_that_a_person_chooses_wins(resolve, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_MAX_EVAL_ROWS", "99")
    config, _ = resolve(tag="demo", recorded=lambda _: BEGUN, train_seconds=20.0)
    assert (config.train_seconds, config.max_eval_rows) == (20.0, 99)
