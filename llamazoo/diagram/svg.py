"""A sketch as SVG: plain shapes and text, no script, no style sheet, nothing that a viewer would have to fetch."""

from collections.abc import Iterator
from html import escape

from llamazoo.diagram.shapes import Box, Line, Sketch, Sum, Words
from llamazoo.diagram.words import plain

__all__ = ["svg"]

INK, FAINT, PAPER = "#333333", "#b5b5b5", "#ffffff"
FONTS = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


def svg(sketch: Sketch, title: str, margin: float = 24) -> str:
    """The whole file, with a white page below it that is as large as the sketch and a margin."""
    left, top, right, bottom = sketch.reach
    wide, high = right - left + 2 * margin, bottom - top + 2 * margin
    drawn = Sketch()
    drawn.place(sketch, margin - left, margin - top)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_n(wide)}" height="{_n(high)}" viewBox="0 0 {_n(wide)} {_n(high)}" '
            f'font-family="{FONTS}">',
            f"<title>{_text(title)}</title>",
            f'<defs><marker id="llamazoo-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0.8 8 4 0 7.2z" fill="{INK}"/></marker></defs>',
            f'<rect width="{_n(wide)}" height="{_n(high)}" fill="{PAPER}"/>',
            *(line for shape in drawn.shapes for line in _drawn(shape)),
            "</svg>\n",
        ]
    )


def _drawn(shape: Box | Words | Line | Sum) -> Iterator[str]:
    match shape:
        case Box():
            dashes = ' stroke-dasharray="5 4"' if shape.dashed else ""
            where = f'x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.w)}" height="{_n(shape.h)}" rx="6"'
            yield f'<rect {where} fill="{shape.fill}" stroke="{shape.stroke}"{dashes}/>'
        case Words():
            bold = ' font-weight="bold"' if shape.bold else ""
            where = f'x="{_n(shape.x)}" y="{_n(shape.y)}" font-size="{_n(shape.size)}" text-anchor="{shape.anchor}"'
            yield f'<text {where} fill="{shape.colour}"{bold}>{_text(shape.text)}</text>'
        case Line():
            path = "M" + " ".join(f"{_n(x)} {_n(y)}" for x, y in shape.points)
            how = f'stroke="{FAINT}" stroke-dasharray="3 3"' if shape.faint else f'stroke="{INK}" stroke-width="1.3"'
            end = ' marker-end="url(#llamazoo-arrow)"' if shape.arrow else ""
            yield f'<path d="{path}" fill="none" stroke-linejoin="round" {how}{end}/>'
        case Sum():
            x, y, r, arm = _n(shape.x), _n(shape.y), _n(shape.radius), shape.radius - 3.5
            cross = f"M{_n(shape.x - arm)} {y}H{_n(shape.x + arm)}M{x} {_n(shape.y - arm)}V{_n(shape.y + arm)}"
            yield f'<circle cx="{x}" cy="{y}" r="{r}" fill="{PAPER}" stroke="{INK}" stroke-width="1.3"/>'
            yield f'<path d="{cross}" stroke="{INK}" stroke-width="1.3"/>'


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(text: str) -> str:
    return escape(plain(text))
