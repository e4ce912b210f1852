"""What a drawing is made of: boxes, words and lines at places on a page. x grows to the right, y downwards; units are pixels."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Self

from llamazoo.diagram.words import width

__all__ = ["Box", "Line", "Sketch", "Sum", "Words"]


@dataclass(frozen=True)
class Box:
    """A rectangle with its upper left corner at (x, y). A `part` holds words; a `frame` holds boxes."""

    x: float
    y: float
    w: float
    h: float
    fill: str
    stroke: str
    role: Literal["part", "frame"] = "part"
    dashed: bool = False

    def moved(self, dx: float, dy: float) -> Self:
        return replace(self, x=self.x + dx, y=self.y + dy)

    @property
    def reach(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.x, self.y, self.x + self.w, self.y + self.h


@dataclass(frozen=True)
class Words:
    """One line of text; y is its baseline."""

    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: Literal["start", "middle", "end"] = "start"
    bold: bool = False

    def moved(self, dx: float, dy: float) -> Self:
        return replace(self, x=self.x + dx, y=self.y + dy)

    @property
    def reach(self) -> tuple[float, float, float, float]:
        wide = width(self.text, self.size, self.bold)
        left = self.x - {"start": 0.0, "middle": wide / 2, "end": wide}[self.anchor]
        return left, self.y - 0.8 * self.size, left + wide, self.y + 0.25 * self.size


@dataclass(frozen=True)
class Line:
    """Straight pieces through these points, the last with an arrowhead if it is one."""

    points: tuple[tuple[float, float], ...]
    arrow: bool = True
    faint: bool = False

    def moved(self, dx: float, dy: float) -> Self:
        return replace(self, points=tuple((x + dx, y + dy) for x, y in self.points))

    @property
    def reach(self) -> tuple[float, float, float, float]:
        xs, ys = zip(*self.points, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


@dataclass(frozen=True)
class Sum:
    """A plus sign in a circle around (x, y)."""

    x: float
    y: float
    radius: float

    def moved(self, dx: float, dy: float) -> Self:
        return replace(self, x=self.x + dx, y=self.y + dy)

    @property
    def reach(self) -> tuple[float, float, float, float]:
        return self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius


@dataclass
class Sketch:
    """Shapes in the order in which they are drawn."""

    shapes: list[Box | Words | Line | Sum] = field(default_factory=list)

    def add(self, *shapes: Box | Words | Line | Sum) -> None:
        self.shapes += shapes

    def place(self, other: "Sketch", dx: float, dy: float) -> None:
        """Add all of another sketch, moved."""
        self.shapes += [shape.moved(dx, dy) for shape in other.shapes]

    @property
    def reach(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of all shapes."""
        return _around(shape.reach for shape in self.shapes)


def _around(reaches: Iterable[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    lefts, tops, rights, bottoms = zip(*reaches, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
