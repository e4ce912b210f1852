"""A part as a box: its name and kind, what is told of it, its parameters, and the boxes of the parts within."""

from llamazoo.diagram.scene import Shown
from llamazoo.diagram.shapes import Box, Sketch, Words
from llamazoo.diagram.words import short, shortened, width, wrapped

__all__ = ["FILLS", "GREY", "INK", "box", "pill"]

INK, GREY = "#222222", "#666666"
TITLE, SMALL = 13.0, 11.0
PAD, LEADING = 9.0, 15.0
LEAST, MOST = 150.0, 280.0  # widths of a box
FILLS = {
    "norm": ("#fdf6d8", "#b59b2c"),
    "attention": ("#fde3d0", "#c2703a"),
    "feed_forward": ("#d9ecf7", "#3f7fa6"),
    "embedding": ("#e4f0d9", "#6b9440"),
    "position": ("#eee7f6", "#8465ab"),
    "router": ("#f9dfe4", "#b0586c"),
    "head": ("#e4f0d9", "#6b9440"),
}
OTHER = ("#ececec", "#7d7d7d")
SHORT_KINDS = {"feed_forward": "feed-forward", "norm": ""}  # a norm's name says that it is one


def box(shown: Shown, least: float = LEAST) -> Sketch:
    """A box around (0, 0) at the middle of its lower edge."""
    rows = [(_title(shown), TITLE, INK, True)]
    rows += [(line, SMALL, INK, False) for fact in shown.facts for line in wrapped(fact, SMALL, MOST - 2 * PAD)]
    counted = f"{short(shown.parameters)} parameters" if shown.parameters else ""
    inner = _row([box(part, least=90.0) for part in shown.inner])
    left, top, right, bottom = inner.reach if inner.shapes else (0.0, 0.0, 0.0, 0.0)
    wide = max(least, 2 * PAD + max(right - left, *(width(text, size, bold) for text, size, _, bold in rows), width(counted, SMALL)))
    below = [(counted, SMALL, GREY, False)] if counted else []
    high = 2 * PAD - 3 + LEADING * (len(rows) + len(below)) + (bottom - top + 8 if inner.shapes else 0)
    made, y = Sketch(), -high + PAD - 3
    made.add(Box(-wide / 2, -high, wide, high, *FILLS.get(shown.kind, OTHER)))
    for text, size, colour, bold in rows:
        y += LEADING
        made.add(Words(0, y - 1, text, size, colour, "middle", bold))
    if inner.shapes:
        made.place(inner, -(left + right) / 2, y + 6 - top)
        y += bottom - top + 8
    for text, size, colour, bold in below:
        made.add(Words(0, y + LEADING - 1, text, size, colour, "middle", bold))
    return made


def _title(shown: Shown) -> str:
    kind = SHORT_KINDS.get(shown.kind, shown.kind.replace("_", " "))
    return shortened(f"{shown.role} {shown.name} {kind}".strip(), TITLE, MOST - 2 * PAD, bold=True)


def _row(boxes: list[Sketch]) -> Sketch:
    """Boxes side by side, their lower edges in line."""
    made, x = Sketch(), 0.0
    for each in boxes:
        left, _, right, _ = each.reach
        made.place(each, x - left, 0)
        x += right - left + 8
    return made


def pill(text: str) -> Sketch:
    """What goes in or comes out, around (0, 0) at the middle of its lower edge."""
    wide, high = width(text, TITLE) + 28, 26.0
    return Sketch([Box(-wide / 2, -high, wide, high, "#ffffff", GREY), Words(0, -8.5, text, TITLE, INK, "middle")])
