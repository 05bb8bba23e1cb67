"""The command line as a user types it: a whole night on a small corpus, killed in the middle and resumed."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from runner.records import Outcome, Verdict
from tests.support.typed_night import write_patches

pytestmark = pytest.mark.docker


def test_a_night_killed_in_training_goes_on_where_it_stopped(torch_clone, engine, tmp_path):
    """The command itself, on the real torch."""
    patches = write_patches(tmp_path / "patches")
    command = ("overnight", "--from", patches, "--experiments", "2")
    process = torch_clone.start(*command)
    torch_clone.wait_for_open_trial(1, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert torch_clone.experiments()[1].verdict is None

    result = torch_clone(*command)
    rows = torch_clone.experiments()
    assert [row.verdict for row in rows] == [Verdict.KEEP, Verdict.ACCEPT, Verdict.KEEP, Verdict.DISCARD]
    assert Outcome.LOST in {trial.outcome for trial in rows[1].trials}
    assert torch_clone.containers(engine) == []
    assert "2 of 2 experiments done" in result.stdout

    # Everything that a user looks at in the morning.
    branch = subprocess.run(
        ["git", "log", "--format=%H", "main..autoresearch/night"],
        cwd=torch_clone.root, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert branch == [rows[2].kept_commit]
    table = (torch_clone.state / "reports" / "night" / "results.tsv").read_text().splitlines()
    assert table[0] == "commit\tval_bpb\tmemory_gb\tstatus\tdescription"
    assert [line.split("\t")[3] for line in table[1:]] == ["keep", "accept", "keep", "discard"]
    picture = (torch_clone.state / "reports" / "night" / "progress.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    status = json.loads(torch_clone("status", "--json").stdout)
    assert (status["done"], status["target"], status["running"]) == (2, 2, False)
    assert status["best_commit"] == branch[0]
    assert [json.loads(line)["number"] for line in torch_clone("log", "--json").stdout.splitlines()] == [
        0,
        1,
        2,
        3,
    ]
    kept = torch_clone("show", "2").stdout
    for word in ("Kept", "+SMOOTHING = 1.0", "overstatement", "sealed test rows"):
        assert word in kept
    assert {one["number"] for one in status["sealed"]} == {0, 2}
    assert status["strikes"] == {}
    sealed = (torch_clone.state / "reports" / "night" / "sealed.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in sealed] == ["experiment", "0", "0", "0", "2"]
    assert "Sealed test rows (as claimed)" in result.stdout
    for wrong in (["status", "--tag", "nothing"], ["show", "77"]):
        refused = torch_clone(*wrong, check=False)
        assert refused.returncode == 2
        assert wrong[-1] in refused.stderr
    events = (torch_clone.state / "logs" / "night.jsonl").read_text().splitlines()
    assert {"versions_examined", "campaign_started", "campaign_resumed", "branch_advanced"} <= {
        json.loads(e)["event"] for e in events
    }

    # Every kept commit can be reproduced, also after its image is gone.
    torch_clone("clean")
    answer = json.loads(torch_clone("reproduce", branch[0], "--json").stdout)
    assert answer["rebuilt"] and answer["same_layer"] and answer["agrees"]
    assert answer["audit"] is None

    # And audited again, with the same claims and another draw.
    audited = torch_clone("audit", branch[0])
    for word in ("overstatement", "other suffixes", "the claims stand"):
        assert word in audited.stdout

    # A finished campaign goes on with more when asked again; the replay has no more patches.
    again = torch_clone(*command)
    assert "replayed" in again.stdout

    # `try` is an experiment like any other.
    tried = json.loads(torch_clone("try", f"{patches}/2-more.patch", "--json").stdout)
    assert (tried["number"], tried["verdict"]) == (4, "discard")
    refused = torch_clone("try", f"{patches}/1-less.patch", check=False)
    assert refused.returncode == 1
    assert "1-less.patch does not apply to the tip" in refused.stderr
    assert json.loads(torch_clone("status", "--json").stdout)["done"] == 3


def test_a_calibration_measures_noise_that_later_starts_use(clone):
    found = json.loads(clone("calibrate", "--seeds", "2", "--json").stdout)
    assert [len(scores) for scores in found["scores_bpb"]] == [2, 2] and len(found["audits"]) == 4
    before = json.loads(clone("config", "--json", AUTORESEARCH_NOISE_PRIOR_BPB="0.0005").stdout)
    assert before["noise_prior_bpb"] == 0.0005, "a person's figure wins"
    del clone.environment["AUTORESEARCH_NOISE_PRIOR_BPB"]
    after = json.loads(clone("config", "--json").stdout)
    assert after["noise_prior_bpb"] == found["noise_prior_bpb"]
    assert after["seed_share"] == found["seed_share"] and found["seed_share"][0] == 0, (
        "one program: an upper limit"
    )
    assert after["honest_dependence"] == found["honest_dependence"] >= before["honest_dependence"] > 0
    assert tuple(after["honest_exceedances"]) == tuple(found["honest_exceedances"])


def test_validation_text_in_an_edit_is_refused_before_anything_is_built(measured_clone, tmp_path):
    # One line of every document: some of them are validation's or test's.
    lines = [" ".join(path.read_text().split()[:16]) for path in sorted(measured_clone.corpus.iterdir())]
    patch = "Learn by heart\n\n--- /dev/null\n+++ b/workload/poems.py\n" + f"@@ -0,0 +1,{len(lines)} @@\n"
    (tmp_path / "heart.patch").write_text(patch + "".join(f"+# {line}\n" for line in lines))
    tried = measured_clone("try", str(tmp_path / "heart.patch"), "--json", check=False)
    assert tried.returncode == 1
    experiment = json.loads(tried.stdout)
    assert experiment["verdict"] == "invalid"
    assert "workload/poems.py" in experiment["reason"]
    assert experiment["image_id"] is None and experiment["trials"] == []
