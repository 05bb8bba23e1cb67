"""Settings of a command: a campaign's own hold for it, unless something else is chosen."""

from __future__ import annotations

import pytest

from runner.cli.options import resolve_config

BEGUN = {"profile": "cpu", "train_seconds": "6", "cpus": "1", "memory_bytes": "1073741824", "max_eval_rows": "512"}


@pytest.fixture(autouse=True)
def nothing_chosen(monkeypatch):
    for name in ("PROFILE", "TRAIN_SECONDS", "TAG"):
        monkeypatch.delenv(f"AUTORESEARCH_{name}", raising=False)


def resolved(folder, **chosen):
    notes = []
    config = resolve_config(
        folder, notes.append, conditions_of=lambda tag: BEGUN if tag == "demo" else {}, **chosen
    )
    return config, notes


def test_a_campaign_goes_on_with_the_settings_that_it_began_with(tmp_path):
    config, notes = resolved(tmp_path, tag="demo")
    assert (config.profile, config.train_seconds, config.max_eval_rows) == ("cpu", 6.0, 512)
    assert config.memory_bytes == 2**30
    assert notes == []


def test_what_a_person_chooses_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTORESEARCH_MAX_EVAL_ROWS", "99")
    config, _ = resolved(tmp_path, tag="demo", train_seconds=20.0)
    assert (config.train_seconds, config.max_eval_rows) == (20.0, 99)


def test_another_campaign_has_those_of_its_profile(tmp_path):
    config, _ = resolved(tmp_path, tag="night", profile="cpu")
    assert (config.train_seconds, config.max_eval_rows) == (20.0, 2048)
