"""The synthetic task `geometric_shapes`: name the shape that an SVG path draws.

Straight paths are told by their corners (line 2, triangle 3 ... octagon 8; four of them are a rectangle where all
angles are right, else a kite), curved ones by their arcs. A path may lift the pen and go on from where it was, which
changes nothing. Points are whole hundredths of a canvas of 100 x 100, so what is checked here is what is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.options import accepted, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.schemas import content_key

UNIT = 100  # hundredths
CANVAS = 100 * UNIT
SHORTEST = 5 * UNIT
"""Shortest edge of a shape."""
FLATTEST = 0.2
"""Smallest sine of the angle at a corner: about 12 degrees away from straight on and from straight back."""

Point = tuple[int, int]


class Step(NamedTuple):
    """One stroke of the pen: how it goes, and where it ends."""

    how: str
    end: Point


class Drawing(NamedTuple):
    """Strokes from a starting point."""

    start: Point
    steps: tuple[Step, ...]

    def path(self, rng: SeededRng, break_share: float) -> str:
        """The value of the path's `d`; before any stroke but the first the pen may be lifted and set down again."""
        written, at = [f"M {_written(self.start)}"], self.start
        for number, (how, end) in enumerate(self.steps):
            if number and rng.chance(break_share):
                written.append(f"M {_written(at)}")
            written.append(f"{how} {_written(end)}")
            at = end
        return " ".join(written)


def _written(point: Point) -> str:
    return ",".join(f"{value / UNIT:.2f}" for value in point)


# --- points ----------------------------------------------------------------------------------------------------------


def _anywhere(rng: SeededRng) -> Point:
    return rng.below(CANVAS + 1), rng.below(CANVAS + 1)


def _moved(point: Point, way: Sequence[float], share: float = 1.0) -> Point:
    """The point that lies a share of the way from another, to the hundredth."""
    return round(point[0] + share * way[0]), round(point[1] + share * way[1])


def _way(one: Point, other: Point) -> Point:
    return other[0] - one[0], other[1] - one[1]


def _across(way: Point) -> Point:
    return -way[1], way[0]


def _cross(one: Point, other: Point) -> int:
    return one[0] * other[1] - one[1] * other[0]


def _length(way: Point) -> float:
    return math.sqrt(way[0] ** 2 + way[1] ** 2)  # unlike hypot, the same to the last bit everywhere


def _fits(points: Sequence[Point]) -> bool:
    return all(0 <= value <= CANVAS for point in points for value in point)


def _fits_round(middle: Point, radius: float) -> bool:
    return all(radius <= value <= CANVAS - radius for value in middle)


def _has_plain_corners(points: Sequence[Point]) -> bool:
    """Whether no edge is short, and no corner so flat or so sharp that the edges beside it look like one."""
    ways = [_way(points[place - 1], point) for place, point in enumerate(points)]
    lengths = [_length(way) for way in ways]
    sharp = [abs(_cross(ways[n - 1], way)) >= FLATTEST * lengths[n - 1] * lengths[n] for n, way in enumerate(ways)]
    return min(lengths) >= SHORTEST and all(sharp)


# --- shapes: each draws one, or None where what the dice gave is not one ---------------------------------------------


def _line(rng: SeededRng) -> Drawing | None:
    start, end = _anywhere(rng), _anywhere(rng)
    return Drawing(start, (Step("L", end),)) if _length(_way(start, end)) >= SHORTEST else None


def _polygon(rng: SeededRng, corners: int) -> Drawing | None:
    """A polygon without crossings: its corners as they are met when looking around from their middle.

    The middle is inside their hull, so where each corner lies strictly further around than the one before, every edge
    has a part of the view of its own.
    """
    points = [_anywhere(rng) for _ in range(corners)]
    middle = sum(x for x, _ in points), sum(y for _, y in points)
    views = {point: _way(middle, (corners * point[0], corners * point[1])) for point in points}
    around = sorted(points, key=lambda point: math.atan2(views[point][1], views[point][0]))
    if any(_cross(views[around[place - 1]], views[point]) <= 0 for place, point in enumerate(around)):
        return None
    return _outline(rng, around)


def _kite(rng: SeededRng) -> Drawing | None:
    """Two pairs of equal neighbouring sides; the wings cross the spine off its middle, so it is no rhombus."""
    top, tail = _anywhere(rng), _anywhere(rng)
    spine, wing = _way(top, tail), rng.between(20, 70) / 100
    joint = _moved(top, spine, rng.between(15, 35) / 100)
    return _outline(rng, [top, _moved(joint, _across(spine), wing), tail, _moved(joint, _across(spine), -wing)])


def _rectangle(rng: SeededRng) -> Drawing | None:
    """Four right angles, and no square: a square would be a kite as well."""
    one, two = _anywhere(rng), _anywhere(rng)
    side, share = _across(_way(one, two)), rng.between(25, 80) / 100
    return _outline(rng, [one, two, _moved(two, side, share), _moved(one, side, share)])


def _outline(rng: SeededRng, points: list[Point]) -> Drawing | None:
    """The closed path through corners, from any of them, either way around."""
    if not (_fits(points) and _has_plain_corners(points)):
        return None
    there = points if rng.chance(0.5) else points[::-1]
    return _closed(rng, [Step("L", point) for point in there])


def _circle(rng: SeededRng) -> Drawing | None:
    return _oval(rng, 1.0)


def _ellipse(rng: SeededRng) -> Drawing | None:
    share = rng.between(30, 75) / 100
    return _oval(rng, share if rng.chance(0.5) else 1 / share)


def _oval(rng: SeededRng, share: float) -> Drawing | None:
    """Two half turns between the ends of an axis; the other axis is a share of it."""
    one, other = _anywhere(rng), _anywhere(rng)
    radius = _length(_way(one, other)) / 2
    large, small = max(radius, share * radius), min(radius, share * radius)
    if small < SHORTEST or not _fits_round(_moved(one, _way(one, other), 0.5), large):
        return None
    slope = 0.0 if share == 1 else math.degrees(math.atan2(*reversed(_way(one, other)))) % 180
    half_turn = _arc(radius, share * radius, slope, large=False, increasing=rng.chance(0.5))
    return _closed(rng, [Step(half_turn, other), Step(half_turn, one)])


def _sector(rng: SeededRng) -> Drawing | None:
    """A slice of a circle: out from the middle, along the circle, and back."""
    middle, one, toward = _anywhere(rng), _anywhere(rng), _anywhere(rng)
    radius, aim = _length(_way(middle, one)), _length(_way(middle, toward))
    if not (aim and radius >= 2 * SHORTEST and _fits_round(middle, radius)):
        return None
    other = _moved(middle, _way(middle, toward), radius / aim)
    turn = _cross(_way(middle, one), _way(middle, other))
    if abs(turn) < 2 * FLATTEST * radius**2:
        return None
    large = rng.chance(0.25)
    arc = _arc(radius, radius, 0.0, large=large, increasing=(turn > 0) != large)
    return _closed(rng, [Step("L", one), Step(arc, other), Step("L", middle)])


def _arc(radius: float, other: float, slope: float, *, large: bool, increasing: bool) -> str:
    """An arc as SVG writes it, but for its end: radii, slope of the first in degrees, and which of four it is."""
    return f"A {radius / UNIT:.2f},{other / UNIT:.2f} {slope:.2f} {int(large)},{int(increasing)}"


def _closed(rng: SeededRng, steps: list[Step]) -> Drawing:
    """The steps of a closed path, begun at any of its points."""
    first = rng.below(len(steps))
    turned = steps[first:] + steps[:first]
    return Drawing(turned[-1].end, tuple(turned))


def _cornered(corners: int) -> Callable[[SeededRng], Drawing | None]:
    return lambda rng: _polygon(rng, corners)


SHAPES: dict[str, Callable[[SeededRng], Drawing | None]] = {
    "line": _line,
    "triangle": _cornered(3),
    "kite": _kite,
    "rectangle": _rectangle,
    "pentagon": _cornered(5),
    "hexagon": _cornered(6),
    "heptagon": _cornered(7),
    "octagon": _cornered(8),
    "circle": _circle,
    "ellipse": _ellipse,
    "sector": _sector,
}


class ShapesDials(Section):
    """Which shapes are drawn, and how plainly."""

    shapes: tuple[str, ...] = Field(tuple(SHAPES), min_length=2)
    """What is drawn, each as often, and what is offered."""
    options: int = Field(5, ge=2, le=len(SHAPES))
    """Names to choose from."""
    break_share: float = Field(0.3, ge=0, le=1)
    """How often the pen is lifted between two strokes, to go on from the same point."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> ShapesDials:
        if unknown := [name for name in self.shapes if name not in SHAPES]:
            raise ValueError(f"unknown shapes {unknown}: choose from {', '.join(SHAPES)}")
        if len(set(self.shapes)) < max(len(self.shapes), self.options):
            raise ValueError(
                f"expected at least options = {self.options} different shapes, each once, found {list(self.shapes)}: "
                f"lower options or name more shapes"
            )
        return self


class GeometricShapes:
    """Draws one shape and asks for its name."""

    dials_model: ClassVar[type[Section]] = ShapesDials

    def __init__(self, dials: ShapesDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, place: str) -> Item:
        """One path with its question and options."""
        name, *others = rng.sample(self.dials.shapes, self.dials.options)
        drawing = _drawn(rng, name)
        options = rng.shuffled([name, *others])
        path = drawing.path(rng, self.dials.break_share)
        return Item(
            task="geometric_shapes",
            query=with_options(f'An image holds only <path d="{path}"/>. What shape is it?', options),
            references=accepted([options.index(name)], options),
            place=place,
            options=tuple(options),
            group=content_key("geometric_shapes", drawing),
            metadata={"shape": name, "breaks": path.count("M") - 1},
        )


def _drawn(rng: SeededRng, name: str) -> Drawing:
    while True:
        if drawing := SHAPES[name](rng):
            return drawing
