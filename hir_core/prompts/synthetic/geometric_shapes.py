"""The synthetic task `geometric_shapes`: name the shape that an SVG path draws.

Shapes of straight lines differ by their number of corners (line 2, triangle 3 ... octagon 8); four corners are a
rectangle where all angles are right angles, else a kite. The others differ by their arcs. A path may lift the pen and
go on from the same point, which changes nothing. Coordinates are integers, in hundredths of a canvas of 100 x 100, so
every check is made on the coordinates that are written.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from hir_core.config import Section
from hir_core.prompts.items import Item
from hir_core.prompts.options import option_references, with_options
from hir_core.prompts.rng import SeededRng
from hir_core.prompts.synthetic.dials import require_known
from hir_core.schemas import content_key

UNIT = 100  # coordinates are in hundredths
CANVAS = 100 * UNIT
SHORTEST = 5 * UNIT
"""Shortest edge of a shape."""
FLATTEST = 0.2
"""Smallest sine of the angle at a corner: the angle is at least about 12 degrees away from 0 and from 180 degrees."""

Point = tuple[int, int]
Vector = tuple[int, int]


class Stroke(NamedTuple):
    """One stroke of the pen: its SVG command without the end point, and its end point."""

    command: str
    end: Point


class Drawing(NamedTuple):
    """A starting point and the strokes from it."""

    start: Point
    strokes: tuple[Stroke, ...]

    def path(self, rng: SeededRng, break_share: float) -> str:
        """The attribute `d` of the path; between two strokes the pen may be lifted and set down again."""
        commands, pen = [f"M {_coordinates(self.start)}"], self.start
        for number, (command, end) in enumerate(self.strokes):
            if number and rng.chance(break_share):
                commands.append(f"M {_coordinates(pen)}")
            commands.append(f"{command} {_coordinates(end)}")
            pen = end
        return " ".join(commands)


def _coordinates(point: Point) -> str:
    return ",".join(f"{value / UNIT:.2f}" for value in point)


# --- points and vectors ----------------------------------------------------------------------------------------------


def _random_point(rng: SeededRng) -> Point:
    return rng.below(CANVAS + 1), rng.below(CANVAS + 1)


def _moved(point: Point, vector: Vector, share: float = 1.0) -> Point:
    """The point moved by a share of the vector, rounded to the hundredth."""
    return round(point[0] + share * vector[0]), round(point[1] + share * vector[1])


def _vector(start: Point, end: Point) -> Vector:
    return end[0] - start[0], end[1] - start[1]


def _turned(vector: Vector) -> Vector:
    """The vector turned by a right angle."""
    return -vector[1], vector[0]


def _cross(vector: Vector, other: Vector) -> int:
    return vector[0] * other[1] - vector[1] * other[0]


def _length(vector: Vector) -> float:
    return math.sqrt(vector[0] ** 2 + vector[1] ** 2)  # unlike hypot, the same to the last bit on every machine


def _circle_fits(middle: Point, radius: float) -> bool:
    """Whether a circle lies on the canvas."""
    return all(radius <= value <= CANVAS - radius for value in middle)


# --- shapes: each function returns None where the points that it draws do not make a clear shape ---------------------


def _line(rng: SeededRng) -> Drawing | None:
    start, end = _random_point(rng), _random_point(rng)
    return Drawing(start, (Stroke("L", end),)) if _length(_vector(start, end)) >= SHORTEST else None


def _polygon(rng: SeededRng, corners: int) -> Drawing | None:
    """A polygon whose edges do not cross: its corners in the order of their directions, seen from their centre.

    The centre is inside the convex hull of the corners. Where each corner lies strictly further around than the one
    before, every edge covers an angle of its own, so no two edges cross.
    """
    points = [_random_point(rng) for _ in range(corners)]
    centre = sum(x for x, _ in points), sum(y for _, y in points)  # times the number of corners, to stay an integer
    directions = {point: _vector(centre, (corners * point[0], corners * point[1])) for point in points}
    ordered = sorted(points, key=lambda point: math.atan2(directions[point][1], directions[point][0]))
    if any(_cross(directions[ordered[n - 1]], directions[point]) <= 0 for n, point in enumerate(ordered)):
        return None
    return _outline(rng, ordered)


def _kite(rng: SeededRng) -> Drawing | None:
    """Two pairs of equal neighbouring sides; the diagonals cross off the middle of the spine, so it is no rhombus."""
    top, tail = _random_point(rng), _random_point(rng)
    spine, wing = _vector(top, tail), rng.between(20, 70) / 100
    joint = _moved(top, spine, rng.between(15, 35) / 100)
    return _outline(rng, [top, _moved(joint, _turned(spine), wing), tail, _moved(joint, _turned(spine), -wing)])


def _rectangle(rng: SeededRng) -> Drawing | None:
    """Four right angles, but no square: a square would be a kite as well."""
    corner, next_corner = _random_point(rng), _random_point(rng)
    side, share = _turned(_vector(corner, next_corner)), rng.between(25, 80) / 100
    return _outline(rng, [corner, next_corner, _moved(next_corner, side, share), _moved(corner, side, share)])


def _outline(rng: SeededRng, corners: list[Point]) -> Drawing | None:
    """The closed path through corners, from any of them, in either direction.

    None where a corner lies off the canvas, where an edge is short, or where a corner is so flat or so sharp that the
    two edges beside it look like one.
    """
    if not all(0 <= value <= CANVAS for corner in corners for value in corner):
        return None
    edges = [_vector(corners[n - 1], corner) for n, corner in enumerate(corners)]
    lengths = [_length(edge) for edge in edges]
    clear = (abs(_cross(edges[n - 1], edge)) >= FLATTEST * lengths[n - 1] * lengths[n] for n, edge in enumerate(edges))
    if min(lengths) < SHORTEST or not all(clear):
        return None
    ordered = corners if rng.chance(0.5) else corners[::-1]
    return _closed(rng, [Stroke("L", corner) for corner in ordered])


def _circle(rng: SeededRng) -> Drawing | None:
    return _oval(rng, 1.0)


def _ellipse(rng: SeededRng) -> Drawing | None:
    ratio = rng.between(30, 75) / 100
    return _oval(rng, ratio if rng.chance(0.5) else 1 / ratio)


def _oval(rng: SeededRng, ratio: float) -> Drawing | None:
    """Two half turns between the ends of one axis; the other axis is `ratio` times as long."""
    start, end = _random_point(rng), _random_point(rng)
    axis = _vector(start, end)
    radius = _length(axis) / 2
    large, small = max(radius, ratio * radius), min(radius, ratio * radius)
    if small < SHORTEST or not _circle_fits(_moved(start, axis, 0.5), large):
        return None
    slope = 0.0 if ratio == 1 else math.degrees(math.atan2(axis[1], axis[0])) % 180
    half_turn = _arc(radius, ratio * radius, slope, large=False, increasing=rng.chance(0.5))
    return _closed(rng, [Stroke(half_turn, end), Stroke(half_turn, start)])


def _sector(rng: SeededRng) -> Drawing | None:
    """A sector of a circle: from the middle to the circle, along it, and back."""
    middle, start, toward = _random_point(rng), _random_point(rng), _random_point(rng)
    radius, distance = _length(_vector(middle, start)), _length(_vector(middle, toward))
    if distance == 0 or radius < 2 * SHORTEST or not _circle_fits(middle, radius):
        return None
    end = _moved(middle, _vector(middle, toward), radius / distance)
    turn = _cross(_vector(middle, start), _vector(middle, end))
    if abs(turn) < 2 * FLATTEST * radius**2:
        return None
    large = rng.chance(0.25)
    arc = _arc(radius, radius, 0.0, large=large, increasing=(turn > 0) != large)
    return _closed(rng, [Stroke("L", start), Stroke(arc, end), Stroke("L", middle)])


def _arc(radius: float, other: float, slope: float, *, large: bool, increasing: bool) -> str:
    """The SVG command of an arc: both radii, the slope of the first in degrees, the flags for size and direction."""
    return f"A {radius / UNIT:.2f},{other / UNIT:.2f} {slope:.2f} {int(large)},{int(increasing)}"


def _closed(rng: SeededRng, strokes: list[Stroke]) -> Drawing:
    """A closed path that begins at any of its points."""
    first = rng.below(len(strokes))
    rotated = strokes[first:] + strokes[:first]
    return Drawing(rotated[-1].end, tuple(rotated))


SHAPES: dict[str, Callable[[SeededRng], Drawing | None]] = {
    "line": _line,
    "triangle": partial(_polygon, corners=3),
    "kite": _kite,
    "rectangle": _rectangle,
    "pentagon": partial(_polygon, corners=5),
    "hexagon": partial(_polygon, corners=6),
    "heptagon": partial(_polygon, corners=7),
    "octagon": partial(_polygon, corners=8),
    "circle": _circle,
    "ellipse": _ellipse,
    "sector": _sector,
}


# --- the task --------------------------------------------------------------------------------------------------------


class ShapesDials(Section):
    """Which shapes are drawn, and how."""

    shapes: tuple[str, ...] = Field(tuple(SHAPES), min_length=2)
    """The shapes that are drawn, each equally often, and offered as options."""
    options: int = Field(5, ge=2, le=len(SHAPES))
    """Names to choose from."""
    break_share: float = Field(0.3, ge=0, le=1)
    """How often the pen is lifted between two strokes, to go on from the same point."""

    @model_validator(mode="after")
    def _enough_shapes(self) -> ShapesDials:
        require_known("shapes", self.shapes, SHAPES)
        if len(set(self.shapes)) < max(len(self.shapes), self.options):
            raise ValueError(
                f"expected at least options = {self.options} different shapes, each once, found {list(self.shapes)}: "
                f"lower options or name more shapes"
            )
        return self


class GeometricShapes:
    """Draws a shape and asks for its name."""

    dials_model: ClassVar[type[Section]] = ShapesDials

    def __init__(self, dials: ShapesDials) -> None:
        self.dials = dials

    def draw(self, rng: SeededRng, origin: str) -> Item:
        """One path with its question and options."""
        name, *others = rng.sample(self.dials.shapes, self.dials.options)
        drawing = None
        while drawing is None:
            drawing = SHAPES[name](rng)
        options = rng.shuffled([name, *others])
        path = drawing.path(rng, self.dials.break_share)
        return Item(
            task="geometric_shapes",
            query=with_options(f'An image holds only <path d="{path}"/>. What shape is it?', options),
            references=option_references([options.index(name)], options),
            origin=origin,
            options=tuple(options),
            group=content_key("geometric_shapes", drawing),
            metadata={"shape": name, "breaks": path.count("M") - 1},
        )
