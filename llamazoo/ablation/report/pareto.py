"""What quality costs: loss against parameters, operations, cache, and what was measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from llamazoo.ablation.report.cast import LABEL, Member, cast, figures, spread
from llamazoo.ablation.report.marks import FAINT, Axis, Chart, Dots, Label, Mark, Panel, Row, Stroke
from llamazoo.ablation.report.scale import around, axis
from llamazoo.ablation.report.spelling import amount, fixed
from llamazoo.ablation.results import Costs, Results, Timing, Timings
from llamazoo.diagram.words import width

__all__ = ["pareto"]

COLUMNS, HIGH, NARROW = 2, 200, 260  # the last: of a panel's inside, where a figure is narrowest
KEY = 4  # names in a row of the key
NAMED = 6  # up to so many variants, each is named in every panel
ALIKE = 0.01  # values of an axis that differ by a lesser share are as good as equal
SIDES: tuple[tuple[Literal["left", "right"], float], ...] = (("left", 1.0), ("right", -1.0))
Box = tuple[float, float, float, float]
Spot = tuple[Literal["left", "right"], float, float]
# Where a name may stand, in pixels from its point; the line along the front passes right of it or left of it.
ASIDE: tuple[Spot, ...] = (
    ("left", 6.0, 11.0), ("right", -6.0, 11.0), ("left", 6.0, -11.0), ("right", -6.0, -11.0), ("left", 9.0, 0.0), ("right", -9.0, 0.0),
)  # fmt: skip
# Farther away, at the end of a line from the point: to either side of it, the nearest heights first.
AWAY: tuple[Spot, ...] = tuple(
    (anchor, sign * reach, rise)
    for reach in (24.0, 48.0)
    for height in range(12)
    for rise in (15.0 * height, -15.0 * height)
    for anchor, sign in SIDES
)


@dataclass(frozen=True)
class Cost:
    title: str
    of: Callable[[Costs, Timing | None], float | None]
    less_is_better: bool = True


COSTS = (
    Cost("parameters", lambda costs, _: costs.parameters),
    Cost("FLOPs a token", lambda costs, _: costs.flops_per_token),
    Cost("cache, bytes a token", lambda costs, _: costs.cache_bytes_per_token),
    Cost("training, tokens a second", lambda _, timing: timing.train_tokens_per_second if timing else None, False),
    Cost("decoding, tokens a second", lambda _, timing: timing.decode_tokens_per_second if timing else None, False),
    Cost("peak memory in training, bytes", lambda _, timing: timing.peak_memory_bytes if timing else None),
)


@dataclass(frozen=True)
class Place:
    """A variant in one panel: where it stands, and how far its seeds spread."""

    member: Member
    x: float
    y: float
    sd: float


def pareto(results: Results, timings: Timings | None) -> Chart | None:
    """The mean loss against each cost; a line leads along those that nobody beats in both."""
    outcome = "loss"
    members = [(member, *spread([value for _, value in figures(member.variant, outcome)])) for member in cast(results)]
    drawn = [(member, mean, sd or 0.0) for member, mean, sd in members if mean is not None]
    if not drawn:
        return None
    low, high = around([end for _, mean, sd in drawn for end in (mean - sd, mean + sd)], 0.1)
    panels: list[Panel] = []
    for cost in COSTS:
        found = [(m, cost.of(m.variant.costs, timings.variants.get(m.variant.name) if timings else None), y, sd) for m, y, sd in drawn]
        places = [Place(m, x, y, sd) for m, x, y, sd in found if x is not None]
        if places:
            panels.append(_panel(cost, places, low, high, first=len(panels) % COLUMNS == 0))
    rows = [Row(HIGH, tuple(panels[i : i + COLUMNS]), COLUMNS) for i in range(0, len(panels), COLUMNS)]
    lost = [member.label for member, mean, _ in members if mean is None]
    caption = (
        "Mean final loss and its standard deviation over seeds against what each variant costs. The grey line joins those that no other "
        "beats in both, by their means alone: whether a difference was shown is told above."
    )
    notes = (f"Not drawn, since no run finished: {', '.join(lost)}.",) if lost else ()
    key = _key([member for member, _, _ in drawn])
    if len(drawn) > NAMED:
        caption += " These and the base are named at their points where there is room; the key above the panels has everyone."
    return Chart("cost-quality", "What quality costs", caption, (key, *rows), gap=34, notes=notes)


def _panel(cost: Cost, places: Sequence[Place], low: float, high: float, *, first: bool) -> Panel:
    left, right, alike = _span([place.x for place in places])
    x = axis(f"{cost.title}{'' if cost.less_is_better else ' (more is better)'}{alike}", left, right, 4)
    y = axis("validation loss, nats a token" if first else "", low, high)
    front = _front(cost, places)
    marks: list[Mark] = [_staircase(front)] if len(front) > 1 else []
    for place in places:
        tip = f"{place.member.label}\n{cost.title}: {amount(place.x)}\nloss {fixed(place.y, 4)} ± {fixed(place.sd, 4)}"
        below, above = (place.y - place.sd,), (place.y + place.sd,)
        marks.append(Dots(place.member.style, (place.x,), (place.y,), below=below, above=above, tips=(tip,), size=9))
    also = [place for place in places if place not in front and (place.member.is_base or len(places) <= NAMED)]
    marks += _names([*front, *also], places, front, x, y)
    return Panel("", x, y if first else Axis("", low, high, tuple((at, "") for at, _ in y.ticks)), tuple(marks))


def _span(values: Sequence[float]) -> tuple[float, float, str]:
    """The ends of an axis, and words for values that are as good as equal: these are not drawn as if they lay far apart."""
    low, high = min(values), max(values)
    if len(values) < 2 or high - low >= ALIKE * abs(high):
        return *around(values, 0.14), ""
    middle = (low + high) / 2
    room = abs(middle) * 5 * ALIKE or 1.0
    return middle - room, middle + room, " (equal)" if low == high else f" (equal within {100 * (high - low) / abs(high):.1g} %)"


def _front(cost: Cost, places: Sequence[Place]) -> list[Place]:
    """Those that no other beats in both, from the cheapest."""
    sign = 1 if cost.less_is_better else -1
    front: list[Place] = []
    for place in sorted(places, key=lambda p: (sign * p.x, p.y)):
        if not front or place.y < front[-1].y:
            front.append(place)
    return front


def _staircase(front: Sequence[Place]) -> Stroke:
    x, y = [front[0].x], [front[0].y]
    for before, place in pairwise(front):
        x += [place.x, place.x]
        y += [before.y, place.y]
    return Stroke(tuple(x), tuple(y), FAINT)


def _names(named: Sequence[Place], places: Sequence[Place], front: Sequence[Place], x: Axis, y: Axis) -> list[Mark]:
    """A name for each, where it covers neither a point nor another name in the narrowest figure: beside its point, or at a thin line."""
    across, up = NARROW / (x.high - x.low), HIGH / (y.high - y.low)
    at = {id(place): ((place.x - x.low) * across, (place.y - y.low) * up) for place in places}
    points = [(px - 6, py - 6, px + 6, py + 6) for px, py in at.values()]
    bars = [(px - 1, py - place.sd * up, px + 1, py + place.sd * up) for place in places for px, py in (at[id(place)],)]
    lines = []
    for a, b in pairwise(front):
        (ax, ay), (bx, by) = at[id(a)], at[id(b)]
        lines += [(min(ax, bx), ay - 1, max(ax, bx), ay + 1), (bx - 1, min(ay, by), bx + 1, max(ay, by))]
    taken = [*points, *lines]
    marks: list[Mark] = []
    for place in named:
        px, py = at[id(place)]
        wide = width(place.member.label, LABEL, place.member.is_base)
        spot = _spot(px, py, wide, taken, bars)
        if spot is None:
            continue
        anchor, dx, dy = spot
        begin = px + dx - (wide if anchor == "right" else 0)
        taken.append((begin, py + dy - 7, begin + wide, py + dy + 7))
        colour = place.member.style.colour
        if (dx, dy) in {(near, high) for _, near, high in ASIDE}:
            marks.append(Label(place.member.label, place.y, place.x, colour, place.member.is_base, anchor, (dx, dy)))
        else:
            end_x, end_y = place.x + dx / across, place.y + dy / up
            marks.append(Stroke((place.x, end_x), (place.y, end_y), colour))
            marks.append(Label(place.member.label, end_y, end_x, colour, place.member.is_base, anchor, (3 if anchor == "left" else -3, 0)))
    return marks


def _spot(px: float, py: float, wide: float, taken: Sequence[Box], bars: Sequence[Box]) -> Spot | None:
    """Where a name has room: across nobody's spread if that can be, and then as near as can be."""
    for avoided in ([*taken, *bars], taken):
        for spots, line in ((ASIDE, 0.0), (AWAY, 3.0)):
            for anchor, dx, dy in spots:
                begin = px + dx - (wide + line if anchor == "right" else -line)
                box = (begin, py + dy - 7, begin + wide, py + dy + 7)
                inside = box[0] >= 0 and box[2] <= NARROW and box[1] >= 0 and box[3] <= HIGH
                if inside and not any(_meet(box, other) for other in avoided):
                    return anchor, dx, dy
    return None


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _key(members: Sequence[Member]) -> Row:
    """Which mark is whose."""
    lines = -(-len(members) // KEY)
    marks: list[Mark] = []
    for i, member in enumerate(members):
        x, y = float(i % KEY), -float(i // KEY)
        marks += [Dots(member.style, (x,), (y,)), Label(member.label, y, x, bold=member.is_base, shift=(9, 0))]
    across, down = Axis("", -0.05, float(KEY), (), lines=False), Axis("", -lines + 0.4, 0.6, (), lines=False)
    return Row(19.0 * lines, (Panel("", across, down, tuple(marks), bare=True),), 1)
