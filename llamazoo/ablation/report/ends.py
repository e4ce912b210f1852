"""Names at the ends of lines, beside the panel, moved apart where they would overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

from llamazoo.ablation.report.marks import Label, Mark, Stroke
from llamazoo.ablation.report.scale import apart

__all__ = ["End", "end_labels"]

LINE = 14.0  # pixels from one label to the next


@dataclass(frozen=True)
class End:
    text: str
    colour: str
    x: float
    y: float
    bold: bool = False
    led: bool = True
    """Whether a thin line leads to it."""


def end_labels(ends: Sequence[End], low: float, high: float, height: float, edge: float) -> list[Mark]:
    """A label for each end, at a panel that reaches from `low` to `high` in so many pixels and to `edge` on the right."""
    placed = apart([end.y for end in ends], (high - low) * LINE / height, low, high)
    marks: list[Mark] = []
    for end, y in zip(ends, placed, strict=True):
        if end.led:
            marks.append(Stroke((end.x, edge), (end.y, y), end.colour))
        marks.append(Label(end.text, y, colour=end.colour, bold=end.bold, shift=(4, 0)))
    return marks
