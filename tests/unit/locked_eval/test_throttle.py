"""The output throttle of PID 1 (its clock and its kills are tested in real containers)."""

from __future__ import annotations

from locked_eval.container.throttle import Throttle


def test_a_quiet_candidate_is_passed_through_untouched():
    throttle = Throttle(0.0)
    lines = [b"step %d\n" % number for number in range(1000)]
    assert b"".join(throttle.admit(line, 0.01 * number) for number, line in enumerate(lines)) == b"".join(lines)
    assert throttle.finish() == b""


def test_a_flood_is_cut_to_the_burst_and_its_end_is_kept():
    throttle = Throttle(0.0)
    passed = sum(len(throttle.admit(b"x" * 65536, 0.0)) for _ in range(1000))
    throttle.admit(b"the last words\n", 0.0)
    assert passed <= Throttle.BURST_BYTES
    end = throttle.finish()
    assert end.endswith(b"the last words\n")
    assert b"bytes of output left out" in end
    assert len(end) <= Throttle.TAIL_BYTES + 100


def test_empty_lines_are_cut_by_what_the_engine_makes_of_them():
    """It writes a record of about 75 bytes for each; all that it may still have to write must fit into its log."""
    throttle = Throttle(0.0)
    passed = b"".join(throttle.admit(b"\n" * size, 0.0) for size in (1, 1000, 65536, 65536, 1, 1000))
    written = passed + throttle.finish() + throttle.admit(b"\n" * 65536, 1e6)
    assert written.count(b"\n") * (75 + len(r"\n")) < 2**19
    assert throttle.finish().count(b"\n") <= Throttle.TAIL_LINES + 1


def test_short_lines_at_the_end_of_a_flood_are_kept():
    throttle = Throttle(0.0)
    for number in range(100_000):
        throttle.admit(b"step %d\n" % number, 0.0)
    assert throttle.finish().splitlines()[-200:] == [b"step %d" % number for number in range(99_800, 100_000)]


def test_after_a_flood_a_quiet_candidate_is_heard_again():
    throttle = Throttle(0.0)
    for _ in range(20):
        throttle.admit(b"x" * 65536, 0.0)
    seconds = Throttle.BURST_BYTES / Throttle.BYTES_PER_SECOND
    heard = throttle.admit(b"step 7\n", seconds)
    assert heard.endswith(b"step 7\n")
    assert b"left out" in heard
    assert throttle.admit(b"step 8\n", seconds + 1) == b"step 8\n"
    assert throttle.finish() == b""


def test_a_trickle_above_the_rate_stays_below_the_cap_for_ever():
    throttle = Throttle(0.0)
    passed = sum(
        len(throttle.admit(b"y" * 1000, 0.01 * step)) for step in range(60_000)
    )  # 100 kB/s for 10 minutes
    assert passed <= Throttle.BURST_BYTES + 600 * Throttle.BYTES_PER_SECOND + 100 * Throttle.TAIL_BYTES
