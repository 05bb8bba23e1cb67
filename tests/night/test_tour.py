"""`autoresearch demo` as it is typed, killed and typed again; containers are scripted, everything else is real."""

from __future__ import annotations

import pytest

from tests.support.host_night import commit, git

INDEX = """\
your_turn = "your-turn.patch"
[settings]
[[stop]]
title = "luck"
meant = "discard"
patches = ["worse.patch"]
[[stop]]
title = "a clear improvement"
meant = "accept"
patches = ["better.patch"]
[[stop]]
title = "a crash"
meant = "crash"
patches = ["crash.patch"]
repair = "repair.patch"
[[stop]]
title = "out of bounds"
meant = "invalid"
patches = ["outside.patch"]
"""
VERDICTS = ["keep", "discard", "accept", "crash", "discard", "invalid"]


def patch(old, new, path="workload/train.py"):
    return f"From {old} to {new}.\n\n--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-BOOST = {old}\n+BOOST = {new}\n"


@pytest.fixture
def demo(night):
    """A repository with a small tour."""
    folder = night.root / "examples" / "tour"
    folder.mkdir(parents=True)
    (folder / "tour.toml").write_text(INDEX)
    for name, text in {
        "worse": patch("1.0", "3.0"), "better": patch("1.0", "0.5"), "crash": patch("0.5", "'crash'"),
        "repair": patch("0.5", "2.0"), "outside": patch("1", "2", "runner/x.py"), "your-turn": patch("0.5", "0.0"),
    }.items():  # fmt: skip
        (folder / f"{name}.patch").write_text(text)
    commit(night.root, "a tour")
    return night


def verdicts(night):
    return [row["verdict"] for row in night.rows("experiments")]


def by(night, proposer):
    return sum(row["proposer"] == proposer for row in night.rows("experiments"))


def test_the_demo_shows_every_verdict_and_ends_with_commands_that_work(demo):
    ended = demo.run("demo")
    assert ended.code == 0, ended.errors
    assert verdicts(demo)[: len(VERDICTS)] == VERDICTS
    assert (by(demo, "tour"), by(demo, "optuna")) == (5, 2)
    story = ended.output
    for words in (
        "1 of 4: luck",
        "+ BOOST = 0.5",
        "ACCEPTED onto the tip",
        "── the certificate",
        "KEPT:",
        "harmful",
        "CRASHED",
        "(second try)",
        "REFUSED",
        "Delta-Bpb: ",
    ):
        assert words in story, story
    assert "\x1b" not in story and max(map(len, story.splitlines())) <= 90
    assert f"commit {git(demo.root, 'rev-list', '--reverse', 'main..autoresearch/demo').split()[0]}" in story
    command = next(line for line in story.splitlines() if " try " in line).split()[1:]
    assert command == ["try", "examples/tour/your-turn.patch", "--tag", "demo"]
    assert demo.run(*command).code in (0, 1)  # an experiment, whatever its verdict
    assert demo.run("report", "--tag", "demo").code == 0


@pytest.mark.parametrize(
    ("gate", "left"),
    [
        (("trial_opened", "after", 4), ["keep", "discard", None]),
        (("trial_opened", "after", 5), ["keep", "discard", "accept", None]),  # the crash
    ],
)
def test_a_killed_demo_goes_on_where_it_was(demo, gate, left):
    process = demo.start("demo", gates=[gate])
    process.at_gate()
    process.stop()
    process.end()
    assert verdicts(demo) == left
    ended = demo.run("demo")
    assert ended.code == 0, ended.errors
    assert "resumes where it was interrupted" in " ".join(ended.output.split())
    assert verdicts(demo)[: len(VERDICTS)] == VERDICTS
    assert (by(demo, "tour"), by(demo, "optuna")) == (5, 2)


def test_a_second_demo_leaves_the_tour_and_goes_on_with_the_offline_proposer(demo):
    assert demo.run("demo", "--experiments", "1").code == 0
    ended = demo.run("demo", "--experiments", "3")
    assert ended.code == 0, ended.errors
    assert "The tour was taken before" in ended.output
    assert (by(demo, "tour"), by(demo, "optuna")) == (5, 4)


def test_another_tag_gets_a_tour_of_its_own(demo):
    ended = demo.run("demo", "--tag", "again", "--experiments", "0")
    assert ended.code == 0, ended.errors
    assert "autoresearch/again" in ended.output and "--tag again" in ended.output and "TAG=again" in ended.output
    assert by(demo, "optuna") == 0


def test_a_missing_tour_is_an_error_with_a_remedy(night):
    assert "git checkout -- examples/tour" in night.run("demo").told()
