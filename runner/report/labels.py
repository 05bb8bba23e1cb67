"""Where the labels of a plot go: pure geometry, so that none ever covers a point, the line or another label."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle in pixels, y upwards."""

    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share an area."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )

    def holds(self, other: Box) -> bool:
        """Whether the other one lies inside."""
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )

    def grown(self, margin: float) -> Box:
        """The rectangle with a margin on every side."""
        return Box(self.left - margin, self.bottom - margin, self.right + margin, self.top + margin)


class Label(NamedTuple):
    """A text that wants to stand near a point."""

    x: float
    y: float
    width: float
    height: float


LEADER_STEP = 4.0
"""Pixels between the places where a leader is looked at for what it would cross."""

_ANGLES_DEGREES = (225, 240, 210, 255, 195, 270, 45, 30, 60, 15, 75, 180, 0, 90, 285, 315)
"""Down and left first: below a line that falls to the right there is nothing, above it the discards lie."""

_DISTANCES = (0.7, 1.2, 1.8, 2.6, 3.6, 4.8, 6.2, 8.0)
"""In heights of a label."""


def place(labels: Sequence[Label], frame: Box, occupied: Sequence[Box]) -> list[Box | None]:
    """Find a free place for each label, the first ones first.

    Args:
        labels: in the order of their importance.
        frame: what a label must not leave.
        occupied: points, pieces of a line: everything that must stay visible.

    Returns:
        A place for each label, or None where there is no room near its point.
    """
    taken = list(occupied)
    texts: list[Box] = []
    places: list[Box | None] = []
    for label in labels:
        found = None
        # A leader may cross what its own point lies on, and the leaders of other labels.
        own = Box(label.x, label.y, label.x, label.y).grown(1)
        others = [*texts, *(box for box in occupied if not box.overlaps(own))]
        for box in _candidates(label):
            if not frame.holds(box) or any(box.grown(2).overlaps(other) for other in taken):
                continue
            leader = _leader(label, box)
            if not any(piece.overlaps(other) for piece in leader for other in others):
                found = box
                taken += [box, *leader]
                texts.append(box)
                break
        places.append(found)
    return places


def nearest(label: Label, box: Box) -> tuple[float, float]:
    """Where a label's leader starts: the spot of its box next to its point."""
    return min(max(label.x, box.left), box.right), min(max(label.y, box.bottom), box.top)


def _leader(label: Label, box: Box) -> list[Box]:
    x, y = nearest(label, box)
    pieces = int(math.hypot(label.x - x, label.y - y) / LEADER_STEP)
    along = [(number + 0.5) / pieces for number in range(pieces)]
    spots = [(x + part * (label.x - x), y + part * (label.y - y)) for part in along]
    return [Box(at_x, at_y, at_x, at_y).grown(1) for at_x, at_y in spots]


def _candidates(label: Label) -> Iterator[Box]:
    for distance in _DISTANCES:
        for angle in _ANGLES_DEGREES:
            dx = distance * label.height * math.cos(math.radians(angle))
            dy = distance * label.height * math.sin(math.radians(angle))
            # The corner or edge of the text that faces the point is what stands at this distance.
            left = label.x + dx - (0 if dx > 1 else label.width if dx < -1 else label.width / 2)
            bottom = label.y + dy - (0 if dy > 1 else label.height if dy < -1 else label.height / 2)
            yield Box(left, bottom, left + label.width, bottom + label.height)
