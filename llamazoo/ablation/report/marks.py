"""What a figure consists of, whoever draws it: rows of panels, and in each curves, dots, patches, rules and labels.

All coordinates are linear; a logarithmic scale is one of logarithms, with ticks that say so. Lengths are in pixels, of which a figure
on paper has a hundred to the inch. Text is plain: whoever draws escapes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Axis", "Chart", "Curve", "Dots", "Frame", "Label", "Mark", "Panel", "Patch", "Row", "Rule", "Stroke", "Style", "Tick"]

FAINT, INK = "#8a8a8a", "#222222"
TITLE, FOOT, GAP, TOP = 30, 46, 26, 4  # above a panel, below it, between two, above all


@dataclass(frozen=True)
class Style:
    """What a variant looks like in every figure."""

    colour: str = INK
    dash: Literal["solid", "dash", "dot"] = "solid"
    marker: str = "circle"


Tick = tuple[float, str]


@dataclass(frozen=True)
class Axis:
    title: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    lines: bool = True
    """Whether a faint line leads through the panel from each tick."""


@dataclass(frozen=True)
class Curve:
    """A line through points, with a band around it if `low` and `high` are given."""

    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    tips: tuple[str, ...] = ()
    """What is told of each point when one points at it."""
    markers: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Dots:
    """Points, each with an interval to the left and right, or below and above, if these are given."""

    style: Style
    x: tuple[float, ...]
    y: tuple[float, ...]
    left: tuple[float, ...] = ()
    right: tuple[float, ...] = ()
    below: tuple[float, ...] = ()
    above: tuple[float, ...] = ()
    tips: tuple[str, ...] = ()
    size: float = 8
    hollow: bool = False
    faint: bool = False
    marker: str | None = None
    """In place of the style's."""


@dataclass(frozen=True)
class Patch:
    """A shaded rectangle behind everything."""

    x0: float
    x1: float
    y0: float
    y1: float


@dataclass(frozen=True)
class Rule:
    """A straight line through the panel: upright at an x, or level at a y."""

    at: float
    upright: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Stroke:
    """A thin line from one point to another, such as from a label to what it is about."""

    x: tuple[float, ...]
    y: tuple[float, ...]
    colour: str = FAINT


@dataclass(frozen=True)
class Label:
    """Words beside a point; at the panel's right edge if it has no x."""

    text: str
    y: float
    x: float | None = None
    colour: str = INK
    bold: bool = False
    anchor: Literal["left", "right", "center"] = "left"
    shift: tuple[float, float] = (6, 0)
    """Pixels to the right, and up."""


Mark = Curve | Dots | Patch | Rule | Stroke | Label


@dataclass(frozen=True)
class Panel:
    title: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    warn: bool = False
    """Whether the title is a warning."""
    bare: bool = False
    """Without axes, such as a key."""


@dataclass(frozen=True)
class Row:
    height: float
    """Of the panels' insides."""
    panels: tuple[Panel, ...]
    columns: int
    """Into how many the row is divided; it may have fewer panels."""
    last: bool = True
    """Whether room is left for titles of axes below it."""


@dataclass(frozen=True)
class Frame:
    """Where a panel's inside lies, from the figure's left upper corner."""

    panel: Panel
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class Chart:
    """A figure. `key` is its name in file names, `caption` says how to read it."""

    key: str
    title: str
    caption: str
    rows: tuple[Row, ...]
    left: float = 62
    right: float = 20
    gap: float = GAP
    notes: tuple[str, ...] = field(default=())
    """What could not be drawn, or is to be warned of."""

    @property
    def height(self) -> float:
        return TOP + sum(self._room(row) for row in self.rows)

    def frames(self, width: float) -> Iterator[Frame]:
        """All panels, in a figure of that width."""
        top = float(TOP)
        for row in self.rows:
            above = TITLE if any(panel.title for panel in row.panels) else 10
            wide = (width - self.left - self.right - (row.columns - 1) * self.gap) / row.columns
            for i, panel in enumerate(row.panels):
                yield Frame(panel, self.left + i * (wide + self.gap), top + above, wide, row.height)
            top += self._room(row)

    @staticmethod
    def _room(row: Row) -> float:
        above = TITLE if any(panel.title for panel in row.panels) else 10
        below = 4 if all(panel.bare for panel in row.panels) else FOOT if row.last else 24
        return above + row.height + below
