"""Every cheat, by what it attacks."""

from tests.zoo.cheats import aware, covert, forged, handover, learning, outside, peeking

FAMILIES = (forged, peeking, aware, learning, handover, outside, covert)
CHEATS = [cheat for family in FAMILIES for cheat in family.CHEATS]

IN_CONTAINERS = frozenset(cheat.name for family in (handover, outside, covert) for cheat in family.CHEATS) | {
    "tells_its_score",
    "patches_judge_math_and_clocks",
    "writes_the_answer_itself",
    "forges_the_last_report",
    "writes_to_the_reports",
    "a_child_that_goes_on_writing",
    "hangs_in_the_audit",
    "tells_the_time_to_the_next_container",
    "trains_when_it_is_loaded",
}
"""Cheats that attack more than the arithmetic: they always have containers of their own."""
