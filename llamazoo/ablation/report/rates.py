"""How the learning rate was chosen: every rate that was tried, a small panel for each variant."""

import math

from llamazoo.ablation.report.cast import LABEL, Member, cast, spread
from llamazoo.ablation.report.marks import Axis, Chart, Curve, Dots, Mark, Panel, Row, Rule, Style
from llamazoo.ablation.report.scale import around, axis, common
from llamazoo.ablation.report.spelling import fixed, rate
from llamazoo.ablation.results import LearningRate, Results
from llamazoo.diagram.words import shortened

__all__ = ["rates"]

COLUMNS = 3
HIGH = 120
PALE = Style("#9a9a9a", "dot")


def rates(results: Results) -> Chart | None:
    """Final losses of each seed's trials against the learning rate, with the best mean."""
    members = [member for member in cast(results) if len(member.variant.learning_rates) > 1]
    if not members:
        return None
    tried = sorted({tried.lr for member in members for tried in member.variant.learning_rates})
    losses = [loss for member in members for tried in member.variant.learning_rates for loss in tried.losses if loss is not None]
    if not losses:
        return None
    chosen = [loss for m in members for tried in m.variant.learning_rates if tried.lr == m.variant.lr for loss in tried.losses]
    low, high = around([min(losses), common(losses, 2.0), *(loss for loss in chosen if loss is not None)], 0.12)
    marks = tuple((math.log10(lr), rate(lr)) for lr in tried[:: -(-len(tried) // 5)])
    left, right = around([math.log10(lr) for lr in tried], 0.12)
    base = next((member for member in members if member.is_base), None)
    panels = []
    for i, member in enumerate(members):
        y = axis("loss" if i % COLUMNS == 0 else "", low, high, 4)
        y = y if i % COLUMNS == 0 else Axis("", low, high, tuple((at, "") for at, _ in y.ticks))
        bottom = i + COLUMNS >= len(members)
        x = Axis("learning rate" if bottom else "", left, right, marks)
        behind = _means(base, high)[:1] if base and not member.is_base else []
        panels.append(_panel(member, x, y, behind))
    rows = []
    for i in range(0, len(panels), COLUMNS):
        rows.append(Row(HIGH, tuple(panels[i : i + COLUMNS]), COLUMNS, last=any(panel.x.title for panel in panels[i : i + COLUMNS])))
    caption = (
        "Final validation loss at every learning rate in the trials of each seed, which are apart from its evaluation; points are seeds, "
        "lines their means; the dotted grey line is the base's. Each seed takes the best of its own trials; a ring marks the best mean, a "
        "cross at the top a run that diverged, a triangle there a loss beyond the panel."
    )
    return Chart("learning-rates", "Learning rates", caption, tuple(rows), notes=tuple(_edges(members)))


def _panel(member: Member, x: Axis, y: Axis, behind: list[Mark]) -> Panel:
    marks: list[Mark] = [*behind, *_means(member, y.high)]
    for tried in member.variant.learning_rates:
        marks += _seeds(member, tried, y)
    chosen = next((t for t in member.variant.learning_rates if t.lr == member.variant.lr), None)
    assert chosen is not None
    mean = spread(chosen.losses)[0]
    at = math.log10(member.variant.lr)
    marks.append(Rule(at, dashed=True))
    if mean is not None and mean <= y.high:
        tip = f"{member.label}\n{rate(member.variant.lr)}: mean loss {fixed(mean, 4)}, taken by {_seeds_told(chosen.chosen)}"
        marks.append(Dots(member.style, (at,), (mean,), tips=(tip,), size=15, hollow=True, marker="ring"))
    title = f"{shortened(member.label, LABEL, 100)} (edge)" if member.variant.at_edge else member.label
    return Panel(title, x, y, tuple(marks), warn=member.variant.at_edge)


def _means(member: Member, top: float) -> list[Mark]:
    """The line through the means of the rates at which something finished, as far as it is within the panel."""
    found = [(tried.lr, spread(tried.losses)[0]) for tried in sorted(member.variant.learning_rates, key=lambda t: t.lr)]
    seen = [(math.log10(lr), mean) for lr, mean in found if mean is not None and mean <= top]
    style = PALE if member.is_base else member.style
    return [Curve(style, tuple(x for x, _ in seen), tuple(y for _, y in seen))] if seen else []


def _seeds(member: Member, tried: LearningRate, y: Axis) -> list[Mark]:
    at, edge = math.log10(tried.lr), y.high - (y.high - y.low) * 0.05
    marks: list[Mark] = []
    for loss in tried.losses:
        told = f"{member.label}\n{rate(tried.lr)}: {'diverged' if loss is None else fixed(loss, 4)}"
        if loss is None:
            marks.append(Dots(member.style, (at,), (edge,), tips=(told,), marker="cross", size=8))
        elif loss > y.high:
            marks.append(Dots(member.style, (at,), (edge,), tips=(told,), marker="triangle-up", size=8))
        else:
            marks.append(Dots(member.style, (at,), (loss,), tips=(told,), size=6))
    return marks


def _seeds_told(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _edges(members: list[Member]) -> list[str]:
    told = [f"{m.label} ({rate(m.variant.lr)})" for m in members if m.variant.at_edge]
    return [f"Best at the end of what was tried, so that a wider grid might find a better one: {', '.join(told)}."] if told else []
