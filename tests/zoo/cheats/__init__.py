"""Every cheat, by what it attacks."""

from tests.zoo.cheats import aware, covert, forged, handover, learning, outside, peeking

FAMILIES = (forged, peeking, aware, learning, handover, outside, covert)
CHEATS = [cheat for family in FAMILIES for cheat in family.CHEATS]
