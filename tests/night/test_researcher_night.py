"""Thirty experiments with a scripted model behind a real HTTP server, and everything that goes wrong with one.

Candidates run on the host; `tests/engine/test_typed_researcher.py` has a short night in containers.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from runner.proposers.researcher.conversation import MAX_NUDGES
from runner.records import Verdict
from runner.storage.ledger import Ledger
from tests.support import fake_anthropic as fake
from tests.support import fake_researchers as model
from tests.support import hosted_command
from tests.support.constant_workload import make_repository

EXPERIMENTS = 30
HELPFUL = (3, 12, 20)
"""Parts that do harm: without them the score is better."""
CRASHES = (7, 16)
"""Ideas that fail at full length only. The first one is mended, the second one is given up."""
TOKENS = fake.Usage(input_tokens=1000, output_tokens=200)
ANSWER_USD = (1000 * 4 + 200 * 20) / 1e6
SPACE = "\n" * 8
"""Between two parts, so that an idea that waits applies exactly to what was kept meanwhile."""


SETTINGS = {
    "PROFILE": "cpu", "BASELINE_RUNS": "2", "CERTIFY": "each", "MIN_PAIRS": "1", "MAX_PAIRS": "1",
    "CONTROL_INTERVAL": "0", "NOISE_PRIOR_BPB": "0.0001", "AUDIT_DISCARDS": "0", "SMOKE_SECONDS": "2",
}  # fmt: skip


def program():
    """A model whose one number is the sum of thirty-odd parts; the best one is near 0."""
    parts = "".join(f"PART_{place:02} = {100.0 if place in HELPFUL else 0.0}{SPACE}" for place in range(40))
    total = "sum(value for name, value in list(globals().items()) if name.startswith('PART_'))"
    return f"import os\n\n{parts}BOOST = 0.1 + {total} / 100\n"


class ScriptedModel:
    """Has one idea after the other. What an idea says is a list of replies, whatever it is asked."""

    def __init__(self):
        self.ideas = iter(range(100))
        self.talks = {}
        self.usd = 0.0
        self.sent = 0

    def __call__(self, body):
        opening = json.dumps(body["messages"][0])
        if opening not in self.talks:
            self.talks[opening] = (
                self.mended(opening) if "Fix the idea" in opening else self.idea(next(self.ideas))
            )
        replies = self.talks[opening]
        reply = replies.pop(0)
        if not replies:
            del self.talks[opening]
        self.sent += 1
        reply, usd = reply if isinstance(reply, tuple) else (reply, ANSWER_USD if reply.status == 200 else 0.0)
        self.usd += usd
        return reply

    def idea(self, place):
        """What is said about one idea; most are said at once."""
        changed = ("100.0", "0.0") if place in HELPFUL else ("0.0", "30.0")
        old, new = (f"PART_{place:02} = {value}\n" for value in changed)
        good = model.proposes(old, new, hypothesis=f"idea {place}")
        begun = (1000 * 4 + 20) / 1e6
        return {
            0: [
                model.answer(model.view(), model.edit(old, new)),
                model.answer(model.submits(hypothesis="idea 0")),
            ],
            1: [fake.error(529, "overloaded_error"), fake.error(429, "rate_limit_error", retry_after="1"), good],
            2: [(fake.cut(good, 3), begun), (fake.ends_early(good, 3), begun), good],
            4: [(fake.breaks(good, 3), begun), good],
            5: [fake.say("I would rather talk.")] * (MAX_NUDGES + 1),
            6: [fake.message(fake.THINKING, stop_reason="refusal")],
            7: [self.late(7)],
            8: [model.answer(model.create("../runner/x.py", "x = 1\n"), model.edit(old, new)), good_again(place)],
            9: [
                model.proposes(*(f"PART_01 = {value}\n" for value in ("0.0", "30.0")), hypothesis="again"),
                *two(9),
            ],
            10: [model.answer(model.edit(old, "PART_10 = unknown\n"), model.submits()), *repaired(10)],
            11: [fake.message(fake.THINKING, stop_reason="max_tokens")],
            13: [model.answer(model.look_up(status="keep", numbers=[], file="", category="", limit=5)), good],
            14: [model.proposes(old, "PART_14 = 30.0  # \u202e\n", hypothesis="hidden"), good],
            16: [self.late(16)],
            17: [fake.error(500, "api_error"), good],
        }.get(place, [good])

    def late(self, place):
        late = f"PART_{place:02} = 0.0 if float(os.environ['DEADLINE_SECONDS']) < 4 else undefined\n"
        return model.proposes(f"PART_{place:02} = 0.0\n", late, hypothesis=f"idea {place}")

    def mended(self, opening):
        if "PART_07 = 0.0 if float(" in opening:  # in the log of the crash
            return [model.proposes("PART_07 = 0.0\n", "PART_07 = 30.0\n", hypothesis="idea 7, mended")]
        return [fake.message(fake.THINKING, stop_reason="refusal")]


def good_again(place):
    return model.answer(model.submits(hypothesis=f"idea {place}"))


def two(place):
    """A repetition is taken back, and another idea is submitted."""
    return [
        model.answer(
            model.edit("PART_01 = 30.0\n", "PART_01 = 0.0\n"),
            model.edit(f"PART_{place:02} = 0.0\n", f"PART_{place:02} = 30.0\n"),
            model.submits(hypothesis=f"idea {place}"),
        )
    ]


def repaired(place):
    return [
        model.answer(
            model.edit(f"PART_{place:02} = unknown\n", f"PART_{place:02} = 30.0\n"),
            model.submits(hypothesis=f"idea {place}"),
        )
    ]


@pytest.mark.timeout(600)
def test_a_night_of_thirty_experiments_ends_as_the_script_says_whatever_goes_wrong(tmp_path):
    root = make_repository(tmp_path / "repository", model="", train=program())
    scripted = ScriptedModel()
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ANTHROPIC_", "AUTORESEARCH_"))
        },
        **{f"AUTORESEARCH_{name}": value for name, value in SETTINGS.items()},
        "ANTHROPIC_API_KEY": "sk-ant-canary-0123456789",
        "IMAGES": str(tmp_path / "images"),
    }

    def typed(*arguments):
        return subprocess.run(
            [sys.executable, hosted_command.__file__, *arguments],
            cwd=root, env=environment, capture_output=True, text=True, timeout=500,
        )  # fmt: skip

    with fake.FakeAnthropic([scripted] * 200) as server:
        environment["ANTHROPIC_BASE_URL"] = server.url
        process = typed("overnight", "--proposer", "anthropic", "--experiments", str(EXPERIMENTS))
    assert process.returncode == 0, process.stderr[-3000:]
    assert len(server.requests) == scripted.sent

    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        rows = ledger.experiments("night")[1:]
    ideas = [row for row in rows if not row.is_certificate]
    assert len(ideas) == EXPERIMENTS
    by_idea = {row.hypothesis: row for row in ideas}
    assert len(by_idea) == EXPERIMENTS, "nothing twice"
    wrong = {5, 6, 11}  # these conversations lead to nothing
    places = [place for place in range(40) if place not in wrong][: EXPERIMENTS - 1]  # and one is a mending
    assert set(by_idea) == {f"idea {place}" for place in places} | {"idea 7, mended"}
    for name, row in by_idea.items():
        place = int(re.search(r"\d+", name)[0])
        if name in (f"idea {crash}" for crash in CRASHES):
            assert row.verdict is Verdict.CRASH, name
            assert "NameError" in row.log_tail
        else:
            assert row.verdict is (Verdict.ACCEPT if place in HELPFUL else Verdict.DISCARD), (name, row.reason)
    assert by_idea["idea 7, mended"].retry_of == by_idea["idea 7"].number
    # While one was measured, the next one was thought of: what waited when a keep came was put on it.
    kept = [row for row in rows if row.verdict is Verdict.KEEP]
    assert [row.certifies for row in kept] == [(by_idea[f"idea {place}"].number,) for place in HELPFUL]
    for row in kept:
        assert rows[row.number].champion == rows[row.number].parent == row.number

    branch = subprocess.run(
        ["git", "rev-list", "--reverse", "main..autoresearch/night"], cwd=root, capture_output=True, text=True
    ).stdout.split()
    assert branch == [row.kept_commit for row in kept]

    status = json.loads(typed("status", "--json").stdout)
    assert status["cost_usd"] == pytest.approx(scripted.usd, abs=0.005)
    with Ledger(root / ".autoresearch" / "ledger.db") as ledger:
        for row in ideas:
            told = ledger.conversations.transcript("night", row.number)
            assert told["outcome"] == f"submitted: {row.hypothesis}"
        assert ledger.conversations.ongoing("night", "anthropic") is None or len(server.requests) > EXPERIMENTS
    shown = typed("show", str(by_idea["idea 10"].number), "--transcript", "--full").stdout
    assert "NameError" in shown and "submit_experiment" in shown and "\x1b" not in shown
    assert "duty" in typed("status").stdout
    assert 0 <= status["duty"]["share"] <= 1
