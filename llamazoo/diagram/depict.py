"""A spec as a drawing: the model on the left, each sort of its layers in full beside it."""

from llamazoo.diagram.boxes import GREY, INK
from llamazoo.diagram.column import COLOURS, model_column, panel
from llamazoo.diagram.scene import Scene, scene_of
from llamazoo.diagram.shapes import Box, Line, Sketch, Words
from llamazoo.diagram.svg import svg
from llamazoo.diagram.words import short, shortened
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["depict", "layout"]

APART = 46.0
WIDEST = 1500.0  # a row of panels is broken here
TITLE_ROOM = 900.0


def depict(spec: ArchitectureSpec, title: str | None = None) -> str:
    """An SVG of a model's architecture, headed by `title`, or by where the spec was read from. Builds nothing but shapes.

    It draws what parts say of themselves: their `facts`, and the `wiring` of blocks. PluginError if a block tells one that it has not.
    """
    scene = scene_of(spec, title)
    return svg(layout(scene), scene.title)


def layout(scene: Scene) -> Sketch:
    """Where everything stands on the page."""
    column, panels = model_column(scene), _panels(scene)
    (c_left, c_top, c_right, c_bottom), (_, _, _, p_bottom) = column.reach, panels.reach
    page = Sketch()
    high = max(c_bottom - c_top, p_bottom)
    down = (high - (c_bottom - c_top)) / 2 - c_top
    page.place(column, -c_left, down)
    page.place(panels, c_right - c_left + APART, (high - p_bottom) / 2)
    if len(scene.layers) == 1:
        _enlarged(page)
    widths = dict(scene.widths)
    told = f"{short(scene.parameters)} parameters, context {widths.pop('context'):,}"
    legend = ", ".join(["b batch", "t tokens", *(f"{name} = {number:,}" for name, number in widths.items())])
    page.add(Words(0, -48, shortened(scene.title, 18, TITLE_ROOM, bold=True), 18, INK, bold=True), Words(0, -28, told, 12, GREY))
    page.add(Words(0, high + 26, legend, 11, GREY))
    return page


def _panels(scene: Scene) -> Sketch:
    """All sorts of layers, in rows from (0, 0) on."""
    made, x, y, lowest = Sketch(), 0.0, 0.0, 0.0
    for number, layer in enumerate(scene.layers):
        each = panel(layer, COLOURS[number % len(COLOURS)])
        left, top, right, bottom = each.reach
        if x and x + right - left > WIDEST:
            x, y = 0.0, lowest + 24
        made.place(each, x - left, y - top)
        x, lowest = x + right - left + 24, max(lowest, y + bottom - top)
    return made


def _enlarged(page: Sketch) -> None:
    """Lines from the one box of layers to the panel that shows one of them."""
    frame = next(shape for shape in page.shapes if isinstance(shape, Box) and shape.role == "frame")
    run = next(shape for shape in page.shapes if isinstance(shape, Box) and shape.stroke == frame.stroke and shape is not frame)
    (_, top, right, bottom), (left, upper, _, lower) = run.reach, frame.reach
    page.add(Line(((right, top), (left, upper)), arrow=False, faint=True), Line(((right, bottom), (left, lower)), arrow=False, faint=True))
