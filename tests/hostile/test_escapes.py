"""Every denied call, and everything that a candidate would like to reach: one test an attempt.

The attempts of one container share it; `attack` looks at the estate after it. That an attempt could succeed at
all is shown where nothing confines it: as root in an open container, or on the host.
"""

from __future__ import annotations

import pytest

from locked_eval.container import syscall_filter as system_calls
from tests.hostile.inside import calls, limits, surface, twins
from tests.hostile.privileges import CAPABILITIES, capabilities

pytestmark = pytest.mark.docker

ATTEMPTS = {**calls.GROUP.attempts, **surface.GROUP.attempts}
LACKED = sorted(set(CAPABILITIES) - capabilities())
LACKING = {"ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENODEV", "SIGSEGV"}
"""What a kernel says of what it does not have; the last one of foreign calls."""


def each(group, place=None):
    names = [name for name, one in group.items() if place is None or one.control == place]
    return pytest.mark.parametrize("name", names)


@pytest.mark.parametrize("phase", ["train", "score"])
@each(ATTEMPTS)
def test_an_attempt_to_escape_is_denied(escapes, phase, name):
    assert escapes[phase][name] in ATTEMPTS[name].outcomes


@each(ATTEMPTS, "root")
def test_root_without_a_sandbox_gets_further(open_container, name):
    outcome = open_container[name]
    if outcome in LACKING:
        pytest.skip(f"this kernel has no such thing: {name} ({outcome})")
    if outcome in ("EPERM", "EACCES") and LACKED:
        pytest.skip(f"not for the root of this machine, who lacks {', '.join(LACKED)}: {name}")
    assert outcome not in ATTEMPTS[name].outcomes, "the attempt proves nothing: it fails everywhere"


@each(ATTEMPTS, "host")
def test_a_process_of_the_host_gets_further(on_the_host, name):
    outcome = on_the_host[name]
    if outcome in ("ENOENT", "EROFS", "EACCES"):
        pytest.skip(f"not on this host, or not for this user: {name} ({outcome})")
    assert outcome not in ATTEMPTS[name].outcomes, "the attempt proves nothing: it fails everywhere"


def test_every_call_of_the_filter_is_attempted():
    missing = {rule.call for rule in system_calls.RULES} - calls.CALLED
    on_this_machine = {rule.call for rule in system_calls.RULES if getattr(rule, calls.MACHINE) is not None}
    assert missing & on_this_machine == set()


@each(limits.GROUP.attempts)
def test_what_has_no_end_meets_a_limit(limits_met, name):
    outcome = limits_met[name]
    assert any(expected in outcome for expected in limits.GROUP.attempts[name].outcomes), outcome


MOST = {
    "fill the scratch": 256,
    "fill the output": 64,
    "fill the shared memory": 64,
    "small files in the scratch": 65536,
    "small files in the output": 4096,
    "threads": 128,
    "zombies": 128,
    "descriptors": 4096,
    "large pipes": 128,
    "message queues": 64,
}
"""How much there may be of it: mebibytes, or things."""


@pytest.mark.parametrize("name", MOST)
def test_the_limit_is_the_one_that_was_set(limits_met, name):
    assert 0 < int(limits_met[name].split()[0]) <= MOST[name]


@each(twins.GROUP.attempts)
def test_a_harmless_twin_is_left_alone(twins_run, name):
    assert twins_run.outcomes[name] == "SUCCEEDED"


def test_a_harmless_program_keeps_its_log_and_is_scored(twins_run):
    assert twins_run.trained.log_tail.count("a long log") == 800
    assert twins_run.answer is not None and len(twins_run.answer) == 640
