"""Boxes above each other with the stream through them: how a block wires its parts, and how a model stacks its layers.

b batch, t tokens, d model width, v vocabulary.
"""

from itertools import zip_longest

from llamazoo.contract.wiring import Residual
from llamazoo.diagram.boxes import GREY, INK, box, pill
from llamazoo.diagram.runs import Group, Run
from llamazoo.diagram.scene import Layer, Scene, Shown
from llamazoo.diagram.shapes import Box, Line, Sketch, Sum, Words
from llamazoo.diagram.words import short, shortened, width

__all__ = ["COLOURS", "model_column", "panel"]

COLOURS = ("#b3541e", "#2f6f9f", "#4e8a3a", "#8a4fa3", "#a38a1c", "#3b8f8a", "#a33a5c", "#555b9c")
GAP, RADIUS, LANE, BETWEEN = 24.0, 8.0, 22.0, 22.0
LABEL = 11.0
STREAM, TOKENS, LOGITS = "[b t d]", "[b t]", "[b t v]"
MOST_LABEL = 220.0


class Column:
    """Grows upwards from (0, 0), around x = 0, along the stream."""

    def __init__(self) -> None:
        self.sketch = Sketch()
        self.y = 0.0

    def arrow(self, label: str = "", rise: float = GAP, arrow: bool = True) -> None:
        """The stream goes on, and is of this shape."""
        high = rise + (6 if label else 0)
        self.sketch.add(Line(((0, self.y), (0, self.y - high)), arrow))
        if label:
            self.sketch.add(Words(7, self.y - high / 2 + 2, label, LABEL, GREY))
        self.y -= high

    def put(self, made: Sketch) -> None:
        """A box, or several with a frame, whose lower edge is where the stream has come to."""
        self.sketch.place(made, 0, self.y)
        self.y += made.reach[1]


def panel(layer: Layer, colour: str) -> Sketch:
    """One sort of layer in full, in a frame with a heading; around x = 0."""
    column = Column()
    column.arrow(STREAM, rise=20, arrow=not layer.wiring or isinstance(layer.wiring[0], str))
    if layer.wiring is None:
        column.put(_untold(layer))
        column.arrow(STREAM, rise=20)
    else:
        half = max((_half(item, layer.parts) for item in layer.wiring), default=0.0)
        for item, following in zip_longest(layer.wiring, layer.wiring[1:]):
            if isinstance(item, Residual):
                _residual(column, item, layer.parts, half + LANE)
            else:
                column.put(box(layer.parts[item]))
            column.arrow("" if following else STREAM, rise=20, arrow=not isinstance(following, Residual))
    return _framed(column.sketch, layer, colour)


def _untold(layer: Layer) -> Sketch:
    """A block that tells no wiring: its parts in one box, and no line between them."""
    stack, y = Sketch(), 0.0
    note = "how these are wired, the block does not tell"
    for part in reversed(layer.parts.values()):
        made = box(part)
        stack.place(made, 0, y)
        y += made.reach[1] - 8
    parts = stack.reach if stack.shapes else (-75.0, 0.0, 75.0, 0.0)
    half = max(parts[2], -parts[0], width(note, LABEL) / 2) + 12
    made = Sketch([Box(-half, parts[1] - 30, 2 * half, 42 - parts[1], "#f7f7f7", GREY, "frame", dashed=True)])
    made.add(Words(0, parts[1] - 12, note, LABEL, GREY, "middle"))
    made.place(stack, 0, 0)
    lifted = Sketch()
    lifted.place(made, 0, -12)
    return lifted


def _half(item: Residual | str, parts: dict[str, Shown]) -> float:
    """How far the boxes of one step of a wiring reach from the stream."""
    if not isinstance(item, Residual):
        return box(parts[item]).reach[2]
    shared = max((box(parts[name]).reach[2] for name in item.shared), default=0.0)
    return max(shared, sum(_branch_widths(item, parts)) / 2 + BETWEEN * (len(item.branches) - 1) / 2)


def _branch_widths(item: Residual, parts: dict[str, Shown]) -> list[float]:
    return [max((2 * box(parts[name]).reach[2] for name in branch), default=20.0) for branch in item.branches]


def _residual(column: Column, item: Residual, parts: dict[str, Shown], lane: float) -> None:
    """Branches that are added to the stream; the stream itself passes them on the right."""
    split = column.y
    for name in item.shared:
        column.arrow()
        column.put(box(parts[name]))
    if len(item.branches) == 1:
        for name in item.branches[0]:
            column.arrow()
            column.put(box(parts[name]))
        column.arrow(rise=GAP - RADIUS)
    else:
        _abreast(column, item, parts)
    if item.scale != 1:
        made = Sketch([Box(-34, -20, 68, 20, "#ffffff", INK), Words(0, -6, f"× {item.scale:g}", LABEL, INK, "middle")])
        column.put(made)
        column.arrow(rise=GAP - RADIUS)
    plus = column.y - RADIUS
    column.sketch.add(Line(((0, split), (lane, split), (lane, plus), (RADIUS, plus))), Sum(0, plus, RADIUS))
    column.y = plus - RADIUS


def _abreast(column: Column, item: Residual, parts: dict[str, Shown]) -> None:
    """Several branches side by side, summed before the stream is added."""
    widths = _branch_widths(item, parts)
    begin = column.y - (12 if item.shared else 14)
    column.sketch.add(Line(((0, column.y), (0, begin)), arrow=False))
    x = -(sum(widths) + BETWEEN * (len(widths) - 1)) / 2
    tops = []
    for wide, branch in zip(widths, item.branches, strict=True):
        points = [(0.0, begin), (x + wide / 2, begin)]
        for name in branch:
            points.append((points[-1][0], points[-1][1] - GAP))
            column.sketch.add(Line(tuple(points)))
            made = box(parts[name])
            column.sketch.place(made, *points[-1])
            points = [(points[-1][0], points[-1][1] + made.reach[1])]
        tops.append(points)
        x += wide + BETWEEN
    plus = min(points[-1][1] for points in tops) - GAP - RADIUS
    for points in tops:
        centre = points[-1][0]
        side = (centre > 0) - (centre < 0)
        end = [(centre, plus), (side * RADIUS, plus)] if side else [(0.0, plus + RADIUS)]
        column.sketch.add(Line((*points, *end)))
    column.sketch.add(Sum(0, plus, RADIUS))
    column.y = plus - RADIUS
    column.arrow(rise=GAP - RADIUS)


def _framed(content: Sketch, layer: Layer, colour: str) -> Sketch:
    left, top, right, bottom = content.reach
    name = shortened(f"{layer.label} layer" if layer.label else "layer", 14, 320, bold=True)
    told = f"{layer.block} block, {short(layer.parameters)} parameters"
    told = shortened(f"{told} in each of {layer.count}" if layer.count > 1 else told, LABEL, 360)
    centre = (left + right) / 2
    half = max((right - left) / 2, width(name, 14, bold=True) / 2, width(told, LABEL) / 2) + 18
    made = Sketch([Box(centre - half, top - 56, 2 * half, bottom - top + 70, "#fbfbfb", colour, "frame")])
    made.add(Words(centre, top - 34, name, 14, colour, "middle", bold=True), Words(centre, top - 17, told, LABEL, GREY, "middle"))
    made.place(content, 0, 0)
    return made


def model_column(scene: Scene) -> Sketch:
    """The whole model, from tokens up to logits; around x = 0."""
    column = Column()
    # A box of layers is as wide as any other, so that the lines to its enlargement cross none.
    runs = [run for item in scene.stack for run in ((item,) if isinstance(item, Run) else item.runs)]
    names = (width(_named(run, scene), 13, bold=True) + 28 for run in runs)
    least = max(170.0, *names, *(2 * box(part).reach[2] for part in (*scene.before, *scene.after)))
    column.put(pill("tokens"))
    column.arrow(TOKENS)
    for part, following in zip_longest(scene.before, scene.before[1:]):
        column.put(box(part))
        column.arrow(STREAM, arrow=following is not None or not isinstance(scene.stack[0], Group))
    for item, following in zip_longest(scene.stack, scene.stack[1:]):
        column.put(_run(item, scene, least) if isinstance(item, Run) else _group(item, scene, least))
        column.arrow(STREAM, arrow=not isinstance(following, Group))
    norm, *rest = scene.after
    column.put(box(norm))
    for part in rest:
        column.arrow(STREAM)
        column.put(box(part))
    column.arrow(LOGITS)
    column.put(pill("logits"))
    return column.sketch


def _run(run: Run, scene: Scene, least: float) -> Sketch:
    """Equal layers as one box."""
    layer, colour = scene.layers[run.sort], COLOURS[run.sort % len(COLOURS)]
    told = f"{short(run.count * layer.parameters)} parameters"
    return Sketch(
        [
            Box(-least / 2, -46, least, 46, "#ffffff", colour),
            Words(0, -27, _named(run, scene), 13, colour, "middle", bold=True),
            Words(0, -10, told, LABEL, GREY, "middle"),
        ]
    )


def _named(run: Run, scene: Scene) -> str:
    name = shortened(scene.layers[run.sort].label or "layer", 13, MOST_LABEL, bold=True)
    return f"{name} × {run.count:,}" if run.count > 1 else name


def _group(group: Group, scene: Scene, least: float) -> Sketch:
    """Runs that repeat, in a frame that says how often."""
    inner = Column()
    inner.arrow(rise=14)
    for place, run in enumerate(group.runs):
        inner.put(_run(run, scene, least))
        inner.arrow(rise=14 if place + 1 == len(group.runs) else 18, arrow=place + 1 < len(group.runs))
    left, top, right, bottom = inner.sketch.reach
    said = f"× {group.times}"
    wide = width(said, 16, bold=True)
    half = max(right, -left) + 14
    made = Sketch([Box(-half, top, 2 * half + wide + 4, bottom - top, "#f5f5f5", GREY, "frame", dashed=True)])
    made.add(Words(half, (top + bottom) / 2 + 6, said, 16, INK, bold=True))
    made.place(inner.sketch, 0, 0)
    return made
