"""A figure as plotly takes it: plain maps and lists, equal for equal figures."""

from html import escape
from typing import Any

from llamazoo.ablation.report.cast import LABEL
from llamazoo.ablation.report.marks import INK, Axis, Chart, Curve, Dots, Frame, Label, Mark, Panel, Patch, Rule, Stroke

__all__ = ["interactive"]

WIDTH = 900.0  # what fractions are computed for; a narrower page keeps margins and shares what is left
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
SYMBOLS = {"cross": "x", "ring": "circle-open"}
GRID, SHADE, WARN = "#ececec", "#e4e4e4", "#a33d00"


def interactive(chart: Chart) -> dict[str, Any]:
    """`data` and `layout` of the figure."""
    data: list[dict[str, Any]] = []
    layout: dict[str, Any] = {
        "height": round(chart.height),
        "autosize": True,
        "margin": {"l": chart.left, "r": chart.right, "t": 0, "b": 0, "autoexpand": False},
        "font": {"family": FONT, "size": LABEL, "color": INK},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"bgcolor": "white", "bordercolor": "#999999", "font": {"color": INK}, "align": "left", "namelength": 0},
        "annotations": [],
        "shapes": [],
    }
    for number, frame in enumerate(chart.frames(WIDTH), 1):
        n = "" if number == 1 else str(number)
        layout[f"xaxis{n}"] = _axis(frame.panel.x, f"y{n}", _across(chart, frame), frame.panel.bare)
        layout[f"yaxis{n}"] = _axis(frame.panel.y, f"x{n}", _down(chart, frame), frame.panel.bare)
        if frame.panel.title:
            layout["annotations"].append(_title(frame, n))
        for mark in frame.panel.marks:
            _add(mark, frame.panel, n, data, layout)
    return {"data": data, "layout": layout}


def _across(chart: Chart, frame: Frame) -> list[float]:
    inside = WIDTH - chart.left - chart.right
    return [round((x - chart.left) / inside, 5) for x in (frame.left, frame.left + frame.width)]


def _down(chart: Chart, frame: Frame) -> list[float]:
    return [round(1 - y / chart.height, 5) for y in (frame.top + frame.height, frame.top)]


def _axis(axis: Axis, anchor: str, domain: list[float], bare: bool) -> dict[str, Any]:
    return {
        "visible": not bare,
        "anchor": anchor,
        "domain": domain,
        "range": [axis.low, axis.high],
        "title": {"text": _text(axis.title), "standoff": 6},
        "tickmode": "array",
        "tickvals": [at for at, _ in axis.ticks],
        "ticktext": [_text(told).replace("\n", "<br>") for _, told in axis.ticks],
        "showgrid": axis.lines,
        "gridcolor": GRID,
        "zeroline": False,
        "ticks": "outside" if axis.lines and any(told for _, told in axis.ticks) else "",
        "ticklen": 3,
        "tickcolor": "#bbbbbb",
        "fixedrange": bare,
    }


def _title(frame: Frame, n: str) -> dict[str, Any]:
    text = f"<b>{_text(frame.panel.title)}</b>"
    where = {"xref": f"x{n} domain", "yref": f"y{n} domain", "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom", "yshift": 4}
    return {"text": text, "showarrow": False, "font": {"color": WARN if frame.panel.warn else INK, "size": LABEL + 1}, **where}


def _add(mark: Mark, panel: Panel, n: str, data: list[dict[str, Any]], layout: dict[str, Any]) -> None:
    on = {"xaxis": f"x{n}", "yaxis": f"y{n}"}
    match mark:
        case Curve():
            data.extend({"type": "scatter", **trace, **on} for trace in _curve(mark))
        case Dots():
            data.append({"type": "scatter", **_dots(mark), **on})
        case Stroke():
            line = {"color": mark.colour, "width": 0.8}
            data.append({"type": "scatter", "mode": "lines", "x": mark.x, "y": mark.y, "line": line, "hoverinfo": "skip", **on})
        case Label():
            layout["annotations"].append(_label(mark, n))
        case Patch():
            where = {"x0": mark.x0, "x1": mark.x1, "y0": mark.y0, "y1": mark.y1, "xref": f"x{n}", "yref": f"y{n}"}
            layout["shapes"].append({"type": "rect", "layer": "below", "fillcolor": SHADE, "line": {"width": 0}, **where})
        case Rule():
            data.append({"type": "scatter", "mode": "lines", "hoverinfo": "skip", **_rule(mark, panel), **on})


def _curve(mark: Curve) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    if mark.low:
        around = {"x": [*mark.x, *mark.x[::-1]], "y": [*mark.high, *mark.low[::-1]]}
        fill = {"fill": "toself", "fillcolor": _pale(mark.style.colour, 0.08 if mark.faint else 0.16)}
        traces.append({"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", **around, **fill})
    line = {"color": mark.style.colour, "dash": mark.style.dash, "width": 1.4 if mark.faint else 2}
    marker = {"color": mark.style.colour, "symbol": mark.style.marker, "size": _size(mark.style.marker, 8)}
    mode = "lines+markers" if mark.markers else "lines"
    return [*traces, {"mode": mode, "x": mark.x, "y": mark.y, "line": line, "marker": marker, **_tips(mark.tips)}]


def _dots(mark: Dots) -> dict[str, Any]:
    symbol = mark.marker or mark.style.marker
    outline = {"color": mark.style.colour, "width": 1.6 if mark.hollow else 0}
    filling = "white" if mark.hollow and symbol != "ring" else mark.style.colour
    marker = {
        "symbol": SYMBOLS.get(symbol, symbol),
        "size": _size(symbol, mark.size),
        "color": filling,
        "line": outline,
        "opacity": 0.45 if mark.faint else 1,
    }
    trace = {"mode": "markers", "x": mark.x, "y": mark.y, "marker": marker, "cliponaxis": False, **_tips(mark.tips)}
    for name, at, less, more in (("error_x", mark.x, mark.left, mark.right), ("error_y", mark.y, mark.below, mark.above)):
        if less:
            array = {"array": [b - a for a, b in zip(at, more, strict=True)], "arrayminus": [a - b for a, b in zip(at, less, strict=True)]}
            trace[name] = {"type": "data", "symmetric": False, "color": mark.style.colour, "thickness": 1.6, "width": 0, **array}
    return trace


def _size(symbol: str, size: float) -> float:
    """plotly's triangles are smaller than all else of that size."""
    return size * 1.25 if symbol.startswith("triangle") else size


def _tips(tips: tuple[str, ...]) -> dict[str, Any]:
    return {"hoverinfo": "text", "hovertext": [_text(tip).replace("\n", "<br>") for tip in tips]} if tips else {"hoverinfo": "skip"}


def _label(mark: Label, n: str) -> dict[str, Any]:
    text = f"<b>{_text(mark.text)}</b>" if mark.bold else _text(mark.text)
    where = {"xref": f"x{n} domain", "x": 1} if mark.x is None else {"xref": f"x{n}", "x": mark.x}
    shift = {"xshift": mark.shift[0], "yshift": mark.shift[1], "xanchor": mark.anchor, "yanchor": "middle"}
    return {"text": text, "showarrow": False, "yref": f"y{n}", "y": mark.y, "font": {"color": mark.colour, "size": LABEL}, **where, **shift}


def _rule(mark: Rule, panel: Panel) -> dict[str, Any]:
    """A trace from edge to edge: a shape would lie above all points, or below what is shaded."""
    line = {"color": "#777777", "width": 1, "dash": "dot" if mark.dashed else "solid"}
    at, ends = [mark.at, mark.at], [panel.y.low, panel.y.high] if mark.upright else [panel.x.low, panel.x.high]
    return {"x": at if mark.upright else ends, "y": ends if mark.upright else at, "line": line}


def _pale(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _text(text: str) -> str:
    """plotly reads a few tags and entities of HTML in every text."""
    return escape(text, quote=False)
