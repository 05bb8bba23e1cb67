"""Settings: their sources, which one wins, and the error for a wrong one."""

from __future__ import annotations

import pytest

from runner.config import Config, load, measured
from runner.errors import ConfigError


def test_the_profile_fills_in_unset_values(tmp_path):
    config = load(tmp_path, {}, environ={})
    assert (config.profile, config.source, config.train_seconds) == ("cpu", "sotu", 20)


def test_command_line_beats_environment_beats_file_beats_profile(tmp_path):
    (tmp_path / "autoresearch.toml").write_text("train_seconds = 11\nhours = 1.5\npids = 64\n")
    environ = {"AUTORESEARCH_TRAIN_SECONDS": "12", "AUTORESEARCH_HOURS": "2.5"}
    config = load(tmp_path, {"train_seconds": 13.0, "hours": None}, environ=environ)
    assert (config.train_seconds, config.hours, config.pids) == (13, 2.5, 64)


def test_a_persons_choice_beats_the_suggestion_for_this_machine(tmp_path):
    fallbacks = {"profile": "cuda", "proposer": "anthropic"}
    assert load(tmp_path, {}, environ={}, fallbacks=fallbacks).train_seconds == 300
    assert load(tmp_path, {"profile": "cpu"}, environ={}, fallbacks=fallbacks).train_seconds == 20


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            "tarin_seconds = 3",
            r"unknown setting 'tarin_seconds' in .*/autoresearch\.toml: did you mean train_seconds\?",
        ),
        ("colour = 3", r"unknown setting 'colour' in [^:]*$"),
        ("[accept]\nhours = 3", r"'hours' stands in the table \[accept\] of .*/autoresearch\.toml"),
        ('[accept]\ntag = "x"', r"'tag' stands in the table \[accept\]"),
        ("[budget]\nhours = 3", r"'hours' stands in the table \[budget\]"),
        ("train_seconds = -3", "setting 'train_seconds' = -3"),
        ('tag = "../x"', "setting 'tag'"),
        ("train_seconds = ", "not valid TOML"),
        ('profile = "tpu"', "no profile 'tpu'"),
    ],
)
def test_a_wrong_file_is_refused_by_the_name_of_the_key(tmp_path, text, names):
    (tmp_path / "autoresearch.toml").write_text(text)
    with pytest.raises(ConfigError, match=names) as caught:
        load(tmp_path, {}, environ={})
    assert caught.value.remedy
    assert caught.value.exit_code == 2


def test_an_error_names_the_place_of_each_wrong_setting(tmp_path):
    path = tmp_path / "autoresearch.toml"
    path.write_text("hour = 3\npids = 1\ncpus = 0\n")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {"tag": "A b", "cpus": 1}, environ={"AUTORESEARCH_TRAIN_SECONDS": "-1"})
    problems = caught.value.message.split("; ")
    assert sorted(problem.partition(": ")[0] for problem in problems) == [
        f"setting 'pids' = 1 in {path}",
        "setting 'tag' = 'A b' on the command line",
        "setting 'train_seconds' = '-1' in the environment",
        f"unknown setting 'hour' in {path}",
    ]


def test_an_unknown_variable_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match=r"AUTORESEARCH_TRIAN_SECONDS .*did you mean AUTORESEARCH_TRAIN_SECONDS\?"
    ):
        load(tmp_path, {}, environ={"AUTORESEARCH_TRIAN_SECONDS": "3"})


def test_other_variables_are_ignored(tmp_path):
    assert load(tmp_path, {}, environ={"HOME": "/", "TRAIN_SECONDS": "3"}).train_seconds == 20


def test_a_config_cannot_be_changed(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load(tmp_path, {}, environ={}).hours = 1


def test_both_profiles_set_the_same_keys_and_every_key_is_a_setting(tmp_path):
    cpu, cuda = (load(tmp_path, {"profile": name}, environ={}) for name in ("cpu", "cuda"))
    assert cpu.model_fields_set <= set(Config.model_fields)
    assert cuda.model_fields_set <= set(Config.model_fields)
    assert (cuda.train_seconds, cuda.context_length, cuda.vocab_size) == (300, 2048, 8192)


def test_a_persons_choice_beats_the_measured_noise(tmp_path):
    path = tmp_path / "noise.json"
    path.write_text(
        '{"noise_prior_bpb": 0.5, "honest_dependence": 0.25, "honest_exceedances": [0.1, 0.1, 0, 0],'
        ' "seed_share": [0.5, 0.9], "more": 1}'
    )
    config = load(tmp_path, {"noise_prior_bpb": 0.75}, environ={}, fallbacks=measured(path))
    assert (config.noise_prior_bpb, config.honest_dependence) == (0.75, 0.25)
    assert config.honest_exceedances == (0.1, 0.1, 0, 0)
    assert config.seed_share == (0.5, 0.9)


def test_a_list_in_the_environment_is_json(tmp_path):
    environ = {"AUTORESEARCH_HONEST_EXCEEDANCES": "[0.01, 0.001, 0, 0]"}
    assert load(tmp_path, {}, environ=environ).honest_exceedances == (0.01, 0.001, 0, 0)
    for wrong in ("[0.01]", "[2, 0, 0, 0]", "many"):
        with pytest.raises(ConfigError, match="honest_exceedances"):
            load(tmp_path, {}, environ={"AUTORESEARCH_HONEST_EXCEEDANCES": wrong})


IMPOSSIBLE = '{"noise_prior_bpb": 0.5, "honest_dependence": 1.2, "honest_exceedances": [0, 0, 0, 0]}'
NOTHING = '{"noise_prior_bpb": null, "honest_dependence": 0.2, "honest_exceedances": [0, 0, 0, 0]}'


@pytest.mark.parametrize("text", [None, "", "[]", "{}", "torn {", IMPOSSIBLE, NOTHING])
def test_damaged_measurements_count_as_none(tmp_path, text):
    if text is not None:
        (tmp_path / "noise.json").write_text(text)
    assert measured(tmp_path / "noise.json") == {}
