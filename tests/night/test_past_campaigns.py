"""One patch that fits nothing is no experiment; one commit names its campaign, and so its settings."""

from __future__ import annotations

import json

import pytest

from tests.support.host_night import BRANCH, TAG, git


def patch(night, before, after):
    """A patch of the one setting of the program."""
    path = night.folder / "one.patch"
    head = "--- a/workload/train.py\n+++ b/workload/train.py\n@@ -1 +1 @@\n"
    path.write_text(f"{head}-BOOST = {before}\n+BOOST = {after}\n")
    return str(path)


def test_a_patch_that_does_not_apply_to_the_champion_takes_no_number(night, whole):
    refused = night.run("try", patch(night, "7.0", "3.0"))
    assert refused.code == 1
    assert "one.patch does not apply to the tip: workload/train.py" in refused.told()
    assert night.rows("campaigns") == [], "it is known before anything is measured"
    assert night.run().code == 0
    assert night.run("try", patch(night, "1.0", "3.0")).code == 1, "this was the program before the keep"
    assert night.final_state() == whole
    tried = night.run("try", patch(night, "0.5", "3.0"))
    assert tried.code == 0, tried.errors
    assert len(night.rows("experiments")) == len(whole["experiments"]) + 1
    assert f"campaign {TAG} (not running): 4 experiments" in night.run("status").output


@pytest.fixture
def elsewhere(night):
    """A finished campaign of other settings than those of the next command."""
    night.environment = {"AUTORESEARCH_TRAIN_SECONDS": "7"}
    assert night.run().code == 0
    night.environment = {"AUTORESEARCH_TAG": "other", "AUTORESEARCH_TRAIN_SECONDS": "11"}
    return night


@pytest.mark.parametrize("kind", ["branch", "tip", "ref", "commit"])
def test_a_commit_is_reproduced_with_name_and_settings_of_its_campaign(elsewhere, kind):
    kept = git(elsewhere.root, "rev-parse", BRANCH).strip()
    tried = f"refs/autoresearch/tried/{TAG}/0002"
    named = {"branch": BRANCH, "tip": f"{BRANCH}-tip", "ref": tried, "commit": kept[:10]}[kind]
    ended = elsewhere.run("reproduce", named, "--json")
    assert ended.code == 0, ended.errors
    answer = json.loads(ended.output)
    assert (answer["number"], answer["agrees"]) == (2 if kind == "ref" else 3, True)


def test_a_commit_of_a_person_is_reproduced_by_the_files_it_holds(elsewhere):
    mine = git(elsewhere.root, "commit-tree", f"{BRANCH}^{{tree}}", "-m", "squashed").strip()
    ended = elsewhere.run("reproduce", mine, "--tag", TAG, "--json")
    assert ended.code == 0, ended.errors
    assert json.loads(ended.output)["commit"] == mine

    with (elsewhere.root / "workload" / "train.py").open("a") as file:
        file.write("# never measured\n")
    git(elsewhere.root, "commit", "-qam", "another program")
    ended = elsewhere.run("reproduce", "HEAD", "--tag", TAG)
    assert ended.code == 1
    assert f"HEAD holds no program that campaign '{TAG}' has scored" in ended.told()


def test_a_setting_that_is_given_is_not_taken_from_the_ledger(elsewhere):
    ended = elsewhere.run("reproduce", BRANCH, "--train-seconds", "9")
    assert ended.code == 2
    assert "train_seconds was '7', is '9'" in ended.told()


def test_a_commit_that_does_not_exist_is_named(elsewhere):
    ended = elsewhere.run("reproduce", "HEAD~99")
    assert ended.code == 1
    assert "there is no commit 'HEAD~99'" in ended.told()


def test_a_campaign_goes_on_with_the_settings_it_began_with(night):
    night.environment = {"AUTORESEARCH_TRAIN_SECONDS": "7"}
    assert night.run("baseline").code == 0
    night.environment = {}
    ended = night.run()
    assert ended.code == 0, ended.errors
