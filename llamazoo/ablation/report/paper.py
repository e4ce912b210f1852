"""A figure on paper, with matplotlib: the width of a page, 200 points to the inch, white."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font

from llamazoo.ablation.report.cast import LABEL
from llamazoo.ablation.report.marks import INK, Chart, Curve, Dots, Frame, Label, Mark, Patch, Rule, Stroke

__all__ = ["png"]

WIDTH = 720.0  # pixels of the description: 7.2 inches
POINT = 0.72  # points in such a pixel
DPI = 200
DASHES = {"solid": "-", "dash": (0, (4.5, 2)), "dot": (0, (1.2, 1.6))}
MARKERS = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "triangle-down": "v",
    "triangle-left": "<",
    "triangle-right": ">",
    "cross": "x",
    "ring": "o",
}
GRID, SHADE, WARN = "#ececec", "#e4e4e4", "#a33d00"
SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # which matplotlib brings along
    "font.size": LABEL * POINT,
    "text.parse_math": False,  # a dollar in a name is a dollar
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
}


def png(chart: Chart) -> bytes:
    """The figure as a PNG file."""
    with _settings():
        figure = Figure(figsize=(WIDTH / 100, chart.height / 100), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        for frame in chart.frames(WIDTH):
            _panel(figure, frame, chart.height)
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


@contextmanager
def _settings() -> Iterator[None]:
    """What matplotlib was shipped with, whatever the user's own settings are, and ours on top."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def _panel(figure: Figure, frame: Frame, height: float) -> None:
    panel = frame.panel
    axes = figure.add_axes((frame.left / WIDTH, 1 - (frame.top + frame.height) / height, frame.width / WIDTH, frame.height / height))
    axes.set_xlim(panel.x.low, panel.x.high)
    axes.set_ylim(panel.y.low, panel.y.high)
    axes.set_axisbelow(True)
    if panel.bare:
        axes.set_axis_off()
    axes.spines[:].set_visible(False)
    for axis, of in ((panel.x, axes.xaxis), (panel.y, axes.yaxis)):
        length = 2.0 if axis.lines and any(told for _, told in axis.ticks) else 0.0
        of.set_ticks([at for at, _ in axis.ticks], [_drawable(told) for _, told in axis.ticks])
        of.set_tick_params(length=length, width=0.5, color="#bbbbbb", pad=3)
        if axis.lines:
            of.grid(color=GRID, linewidth=0.6)
        of.set_label_text(_drawable(axis.title))
    if panel.title:
        axes.annotate(
            _drawable(panel.title), (0, 1), (0, 4 * POINT), "axes fraction", "offset points",
            fontweight="bold", fontsize=(LABEL + 1) * POINT, color=WARN if panel.warn else INK,
        )  # fmt: skip
    for i, mark in enumerate(panel.marks):
        _add(axes, mark, 3 + i / 1000)


def _add(axes: Axes, mark: Mark, order: float) -> None:
    match mark:
        case Curve():
            _curve(axes, mark, order)
        case Dots():
            _dots(axes, mark, order)
        case Stroke():
            axes.plot(mark.x, mark.y, color=mark.colour, linewidth=0.8 * POINT, zorder=order)
        case Label():
            _label(axes, mark)
        case Patch():
            axes.fill_between([mark.x0, mark.x1], mark.y0, mark.y1, color=SHADE, linewidth=0, zorder=0.5)
        case Rule():
            draw = axes.axvline if mark.upright else axes.axhline
            draw(mark.at, color="#777777", linewidth=POINT, linestyle=":" if mark.dashed else "-", zorder=1)


def _curve(axes: Axes, mark: Curve, order: float) -> None:
    if mark.low:
        pale = 0.08 if mark.faint else 0.16
        axes.fill_between(mark.x, mark.low, mark.high, color=mark.style.colour, alpha=pale, linewidth=0, zorder=order)
    thick = (1.4 if mark.faint else 2) * POINT
    how: dict[str, Any] = {"color": mark.style.colour, "linestyle": DASHES[mark.style.dash], "linewidth": thick}
    marker: dict[str, Any] = {"marker": MARKERS[mark.style.marker], "markersize": 8 * POINT} if mark.markers else {}
    axes.plot(mark.x, mark.y, zorder=order, **how, **marker)


def _dots(axes: Axes, mark: Dots, order: float) -> None:
    symbol = mark.marker or mark.style.marker
    colour = mark.style.colour
    for at, less, more, draw in ((mark.y, mark.left, mark.right, axes.hlines), (mark.x, mark.below, mark.above, axes.vlines)):
        if less:
            draw(at, less, more, color=colour, linewidth=1.6 * POINT, zorder=order)
    filling = "none" if symbol == "ring" else "white" if mark.hollow else colour
    thick = (2.0 if symbol == "cross" else 1.6 if mark.hollow else 0.0) * POINT
    small = 0.87 if symbol in ("square", "diamond") else 1.0  # of equal height, they look larger
    axes.plot(
        mark.x, mark.y, linestyle="none", marker=MARKERS[symbol], markersize=mark.size * POINT * small, markerfacecolor=filling,
        markeredgecolor=colour, markeredgewidth=thick, alpha=0.45 if mark.faint else 1.0, clip_on=False, zorder=order,
    )  # fmt: skip


def _label(axes: Axes, mark: Label) -> None:
    where, coordinates = ((1.0, mark.y), axes.get_yaxis_transform()) if mark.x is None else ((mark.x, mark.y), axes.transData)
    axes.annotate(
        _drawable(mark.text), where, (mark.shift[0] * POINT, mark.shift[1] * POINT), coordinates, "offset points", color=mark.colour,
        fontweight="bold" if mark.bold else "normal", ha=mark.anchor, va="center", annotation_clip=False, zorder=10,
    )  # fmt: skip


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(FT2Font(Path(findfont("DejaVu Sans"))).get_charmap())


def _drawable(text: str) -> str:
    """The text with an empty box for what the font has no glyph for."""
    return "".join(c if c == "\n" or ord(c) in _glyphs() else "▯" for c in text)
