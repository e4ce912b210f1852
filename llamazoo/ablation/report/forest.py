"""Differences with their intervals, one row each: of the variants to the base, and of the effects of factors."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from llamazoo.ablation.outcomes import digits
from llamazoo.ablation.report.cast import LABEL, Member, cast
from llamazoo.ablation.report.marks import Axis, Chart, Dots, Label, Mark, Panel, Patch, Row, Rule, Style
from llamazoo.ablation.report.scale import around, axis
from llamazoo.ablation.report.spelling import in_one_line, p_value, signed, unit, what
from llamazoo.ablation.results import Effect, Outcome, Results
from llamazoo.diagram.words import shortened, width

__all__ = ["COLOUR_OF", "differences", "effects"]

COLOUR_OF = {"better": "#00664b", "worse": "#a33d00", "unstable": "#a33d00"}
HIGH = 25  # pixels of a row
WIDEST = 4.0  # an interval is drawn to so many times what was seen of the seeds
FARTHEST = 10.0  # and one of an effect, of which no seeds are drawn, to so many times what half of the intervals reach
ARROWHEAD = "An arrowhead: the interval goes on beyond the edge."
NAMES = 286.0  # the most that names of effects may take, in pixels
TALL = 34  # pixels of a row whose name takes two lines


@dataclass(frozen=True)
class Line:
    """A row of a forest plot."""

    label: str
    style: Style
    mean: float | None
    low: float | None
    high: float | None
    noise: float | None
    seeds: Sequence[float]
    told: str
    shown: bool
    """Whether a difference was shown."""
    colour: str | None = None


def differences(results: Results) -> Chart | None:
    """The variants' differences to the base in every outcome that was compared."""
    rows = []
    for outcome in _outcomes(results):
        lines = [_line(member, outcome) for member in cast(results) if not member.is_base]
        better = next(c.better for v in results.variants for c in v.comparisons if c.outcome == outcome)
        rows.append(_row(f"{what(outcome)} ({better} is better)", f"difference from the base, {unit(outcome)}", lines))
    if not rows:
        return None
    caption = (
        "Each variant less the base, seed by seed: the mean with its simultaneous confidence interval; faint points are the seeds. "
        "Grey line: no difference. Grey area: what two runs of the base may differ by (the noise floor), where it was measured. "
        f"Filled: a difference was shown. {ARROWHEAD}"
    )
    return Chart("differences", "Differences from the base", caption, tuple(rows), left=148, right=196)


def _outcomes(results: Results) -> list[Outcome]:
    compared = [c.outcome for variant in results.variants for c in variant.comparisons]
    return [*(o for o in results.outcomes if o in compared), *sorted(set(compared) - set(results.outcomes))]


def _line(member: Member, outcome: Outcome) -> Line:
    found = next((c for c in member.variant.comparisons if c.outcome == outcome), None)
    if found is None:
        return Line(member.label, member.style, None, None, None, None, (), "not compared", shown=False)
    places = digits(outcome)
    told = found.verdict if found.mean is None else f"{signed(found.mean, places)} {found.verdict}"
    shown = found.verdict in ("better", "worse")
    colour = COLOUR_OF.get(found.verdict)
    return Line(member.label, member.style, found.mean, found.low, found.high, found.noise, found.differences, told, shown, colour)


def effects(results: Results) -> Chart | None:
    """The effects of factors, the largest first."""
    alpha = results.experiment.get("alpha")
    bound = alpha if isinstance(alpha, float) else 0.05
    rows = []
    for outcome in dict.fromkeys(effect.outcome for effect in results.effects):
        found = sorted((e for e in results.effects if e.outcome == outcome), key=lambda e: -abs(e.estimate))
        lines = [_effect_line(effect, bound) for effect in found]
        rows.append(_row(what(outcome), f"effect, {unit(outcome)}", lines))
    if not rows:
        return None
    names = [line for row in rows for panel in row.panels for _, name in panel.y.ticks for line in name.split("\n")]
    left = max(190.0, 14 + max(width(name, LABEL) for name in names))
    caption = (
        "What changing one factor, or two together, does over all choices of the others: the estimate with its confidence interval and "
        f"its p-value after Holm's correction over the effects on the same outcome, a family of their own. "
        f"Grey line: no effect. Filled: p below {bound:g}. {ARROWHEAD}"
    )
    return Chart("effects", "Effects of factors", caption, tuple(rows), left=left, right=140)


def _effect_line(effect: Effect, alpha: float) -> Line:
    places = digits(effect.outcome)
    changes = [in_one_line(f"{factor}={choice}") for factor, choice in zip(effect.factors, effect.choices, strict=False)]
    label = " × ".join(changes)
    if width(label, LABEL) > NAMES:
        label = "\n".join([*(f"{shortened(name, LABEL, NAMES - 16)} ×" for name in changes[:-1]), shortened(changes[-1], LABEL, NAMES)])
    told = f"{signed(effect.estimate, places)}, p {p_value(effect.p_adjusted)}"
    shown = effect.p_adjusted < alpha
    return Line(label, Style(), effect.estimate, effect.low, effect.high, None, (), told, shown)


def _row(title: str, below: str, lines: Sequence[Line]) -> Row:
    low, high = _reach(lines)
    marks: list[Mark] = [*_noise(lines, low, high), Rule(0.0)]
    for i, line in enumerate(lines):
        marks += _drawn(line, -float(i), low, high)
    names = tuple((-float(i), line.label) for i, line in enumerate(lines))
    y = Axis("", -len(lines) + 0.4, 0.6, names, lines=False)
    room = TALL if any("\n" in line.label for line in lines) else HIGH
    return Row(room * max(len(lines), 2), (Panel(title, axis(below, low, high, 7), y, tuple(marks)),), 1)


def _noise(lines: Sequence[Line], low: float, high: float) -> Iterator[Patch]:
    """One patch for all rows on end that have the same noise."""
    for noise, rows in groupby(enumerate(lines), key=lambda row: row[1].noise):
        at = [i for i, _ in rows]
        if noise is not None:
            yield Patch(max(-noise, low), min(noise, high), -at[-1] - 0.5, -at[0] + 0.5)


def _reach(lines: Sequence[Line]) -> tuple[float, float]:
    """All that was seen, zero, the noise, and intervals as far as they can be drawn without hiding the rest."""
    seen = [0.0, *(d for line in lines for d in line.seeds), *(line.mean for line in lines if line.mean is not None)]
    seen += [sign * line.noise for line in lines if line.noise is not None for sign in (-1, 1)]
    ends = [x for line in lines for x in (line.low, line.high) if x is not None]
    most = WIDEST * max(map(abs, seen)) or max(map(abs, ends), default=1.0)
    if ends and not any(line.seeds for line in lines):
        most = max(most, FARTHEST * statistics.median(map(abs, ends)))
    return around([*seen, *(min(max(x, -most), most) for x in ends)])


def _drawn(line: Line, y: float, low: float, high: float) -> list[Mark]:
    marks: list[Mark] = []
    seeds = tuple(line.seeds)
    if seeds:
        tips = tuple(f"{line.label}\n{d:+.5f}".replace("-", "−") for d in seeds)
        marks.append(Dots(line.style, seeds, (y - 0.24,) * len(seeds), tips=tips, size=4.5, faint=True, marker="circle"))
    if line.mean is not None:
        left = () if line.low is None else (max(line.low, low),)
        right = () if line.high is None else (min(line.high, high),)
        tips = (f"{line.label}\n{line.told}",)
        marks.append(Dots(line.style, (line.mean,), (y,), left=left, right=right, tips=tips, size=9, hollow=not line.shown))
        beyond = [(low, "triangle-left")] * (line.low is not None and line.low < low)
        beyond += [(high, "triangle-right")] * (line.high is not None and line.high > high)
        marks += [Dots(line.style, (x,), (y,), tips=tips, size=7, marker=marker) for x, marker in beyond]
    marks.append(Label(line.told, y, colour=line.colour or "#222222", bold=line.colour is not None, shift=(8, 0)))
    return marks
