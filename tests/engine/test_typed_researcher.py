"""A night with a language model behind a real HTTP server, in real containers."""

from __future__ import annotations

import json
import signal

import pytest

from runner.records import Verdict
from tests.support import fake_anthropic, fake_researchers

pytestmark = pytest.mark.docker


def test_a_night_with_a_language_model_is_never_idle_books_its_cost_and_fixes_a_crash_though_it_is_killed(
    measured_clone,
):
    """One edit fails when it is run for a moment, one fails at full length only, and one helps."""

    def kill(_request):
        processes[0].kill()
        return fake_anthropic.error(500, "api_error")

    processes = []
    key = "sk-ant-canary-0123456789"
    pause = "PAUSE_SECONDS = 0.5"
    late = "PAUSE_SECONDS = 0.5 if float(os.environ['DEADLINE_SECONDS']) < 4 else undefined"
    script = [
        fake_researchers.answer(fake_researchers.edit(" = ", "=")),  # refused, since it does not say where
        kill,  # before the second answer
        fake_researchers.proposes(pause, "PAUSE_SECONDS = unknown"),  # fails when it is tried
        fake_researchers.proposes("PAUSE_SECONDS = unknown", late),  # crashes in its experiment
        # While that one runs:
        fake_researchers.proposes("size) + SMOOTHING", "size) + 1.0", category="regularization"),  # helps
        # And while this one runs, the crash is fixed; that waits for its place on the new champion:
        fake_researchers.proposes(pause, "PAUSE_SECONDS = 0.6"),
        fake_anthropic.error(401, "authentication_error"),  # the key is withdrawn in the middle of the night
    ]
    arguments = ["overnight", "--proposer", "anthropic", "--experiments", "4"]
    with fake_anthropic.FakeAnthropic(script) as server:
        environment = {
            "ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": key, "AUTORESEARCH_SMOKE_SECONDS": "2",
        }  # fmt: skip
        processes.append(measured_clone.start(*arguments, **environment))
        processes[0].communicate()
        assert processes[0].returncode == -signal.SIGKILL
        result = measured_clone(*arguments, check=False, **environment)
        requests = list(server.requests)
    assert result.returncode == 1
    assert "ANTHROPIC_API_KEY" in result.stderr
    assert "Traceback" not in result.stderr
    rows = measured_clone.experiments()
    assert [row.verdict for row in rows] == [
        Verdict.KEEP, Verdict.CRASH, Verdict.ACCEPT, Verdict.KEEP, Verdict.DISCARD,
    ]  # fmt: skip
    assert [row.retry_of for row in rows] == [None, None, None, None, 1]
    assert (rows[2].parent, rows[4].parent) == (0, 3), "what waited for a keep was put on it"
    # 1,000 tokens in at $4 and 200 out at $20 a million: what was answered is not asked again.
    answer_usd = (1000 * 4 + 200 * 20) / 1e6
    status = json.loads(measured_clone("status", "--json").stdout)
    assert status["cost_usd"] == pytest.approx(5 * answer_usd)
    assert status["duty"]["share"] > 0
    assert [row.cost_usd for row in rows] == pytest.approx([0, 3 * answer_usd, answer_usd, 0, answer_usd])
    assert requests[1] == requests[2]
    assert len(requests) == len(script)
    assert "NameError" in json.dumps(requests[3]), "the model is shown what the short run printed"
    assert "Running now" in json.dumps(requests[4])
    assert "Fix the idea of experiment 1" in json.dumps(requests[5])
    assert "NameError" in json.dumps(requests[5]), "and the end of the crash's log"
    for file in (measured_clone.state).rglob("*"):
        if file.is_file() and "data" not in file.parts:
            assert key.encode() not in file.read_bytes(), file
    assert key not in result.stderr + result.stdout
