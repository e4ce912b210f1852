"""Where axes begin and end, which numbers stand at them, and how labels are kept apart."""

import math
from collections.abc import Iterable, Sequence

from llamazoo.ablation.report.marks import Axis, Tick
from llamazoo.ablation.report.spelling import fixed

__all__ = ["apart", "around", "axis", "common", "ticks"]

THOUSANDS = ("", "k", "M", "B", "T", "P")


def around(values: Iterable[float], margin: float = 0.06) -> tuple[float, float]:
    """From below the least to above the greatest; something to either side of a single value."""
    found = list(values)
    if not found:
        return 0.0, 1.0
    low, high = min(found), max(found)
    room = (high - low) * margin or abs(high) * 0.05 or 1.0
    return low - room, high + room


def ticks(low: float, high: float, most: int = 6) -> tuple[Tick, ...]:
    """Round numbers between two ends, at most so many, in thousands or millions where they are large."""
    step = _step((high - low) / max(1, most))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    power = min(len(THOUSANDS) - 1, max(0, int(math.log10(max(abs(low), abs(high), 1)) // 3)))
    places = max(0, -math.floor(math.log10(step / 1000**power) + 1e-9))
    numbers = [i * step for i in range(first, last + 1)]
    return tuple((x, "0" if x == 0 else fixed(x / 1000**power, places) + THOUSANDS[power]) for x in numbers)


def _step(least: float) -> float:
    """The least of 1, 2, 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least * (1 - 1e-9))


def axis(title: str, low: float, high: float, most: int = 6, *, lines: bool = True) -> Axis:
    return Axis(title, low, high, ticks(low, high, most), lines)


def common(values: Sequence[float], factor: float = 3.0, least: float = 0.0) -> float:
    """The greatest value that still lies among the others: above it, a gap of `factor` times all that is below, and of `least`."""
    ordered = sorted(values)
    for i in range(max(1, len(ordered) // 2), len(ordered)):
        if ordered[i] - ordered[i - 1] > max(factor * (ordered[i - 1] - ordered[0]), least):
            return ordered[i - 1]
    return ordered[-1]


def apart(wanted: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """As near as can be to where each wants to be, in the same order, `room` apart, within the two ends if all fit."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    groups: list[tuple[float, list[int]]] = []  # the middle of each, and who stands in it
    for i in order:
        middle, members = wanted[i], [i]
        middle = _within(middle, 1, room, low, high)
        while groups and middle - groups[-1][0] < room * (len(groups[-1][1]) + len(members)) / 2:
            members = groups.pop()[1] + members
            middle = sum(wanted[j] for j in members) / len(members)
            middle = _within(middle, len(members), room, low, high)
        groups.append((middle, members))
    placed = [0.0] * len(wanted)
    for middle, members in groups:
        for rank, i in enumerate(members):
            placed[i] = middle + room * (rank - (len(members) - 1) / 2)
    return placed


def _within(middle: float, count: int, room: float, low: float, high: float) -> float:
    half = room * (count - 1) / 2
    return min(max(middle, low + half), max(high - half, low + half))
