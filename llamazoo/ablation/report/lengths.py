"""The loss on texts longer than those that were trained on."""

import math

from llamazoo.ablation.report.cast import Member, cast, figures, spread
from llamazoo.ablation.report.ends import End, end_labels
from llamazoo.ablation.report.marks import Axis, Chart, Curve, Mark, Panel, Row
from llamazoo.ablation.report.scale import around, axis
from llamazoo.ablation.report.spelling import fixed
from llamazoo.ablation.results import Results

__all__ = ["lengths"]

HIGH = 280


def lengths(results: Results) -> Chart | None:
    """Final loss at the trained length and its multiples, mean and range over seeds."""
    members = cast(results)
    factors = sorted({factor for member in members for run in member.variant.runs for factor in _factors(run.outcomes)})
    if len(factors) < 2:
        return None
    found = {member.label: [(f, *_seen(member, f)) for f in factors] for member in members}
    values = [end for seen in found.values() for _, mean, low, high in seen if mean is not None for end in (low, high)]
    if not values:
        return None
    low, high = around(values)
    left, right = math.log2(factors[0]) - 0.08, math.log2(factors[-1]) + 0.16
    height = max(HIGH, 15 * len(members) + 20)
    marks: list[Mark] = []
    ends = []
    for member in reversed(members):
        points = [(math.log2(f), mean, a, b) for f, mean, a, b in found[member.label] if mean is not None]
        if not points:
            continue
        x, y, below, above = (tuple(column) for column in zip(*points, strict=True))
        tips = tuple(f"{member.label}\n{2**at:g} times the trained length: {fixed(loss, 4)}" for at, loss in zip(x, y, strict=True))
        marks.append(Curve(member.style, x, y, below, above, tips, markers=True, faint=len(members) > 6))
        whole = x[-1] == math.log2(factors[-1])
        label = member.label if whole else f"{member.label} (to {2 ** x[-1]:g}×)"
        ends.append(End(label, member.style.colour, x[-1], y[-1], bold=member.is_base, led=whole))
    marks += end_labels(ends, low, high, height, right)
    ticks = tuple((math.log2(f), f"{f:g}×") for f in factors)
    x_axis = Axis(f"length of the text, in trained lengths{_trained(results)}", left, right, ticks)
    panel = Panel("", x_axis, axis("validation loss, nats a token", low, high), tuple(marks))
    caption = (
        "Loss at the trained length and on longer texts: mean over seeds. Bands: from the lowest to the highest seed. "
        "Each length is read in examples of its own, so compare models at a length, not lengths with each other."
    )
    return Chart("lengths", "Longer texts", caption, (Row(height, (panel,), 1),), right=184, notes=tuple(_missing(members, factors)))


def _factors(outcomes: dict[str, float | None]) -> list[float]:
    """The multiples of the trained length at which a loss was asked for."""
    longer = [float(name[5:-1]) for name in outcomes if name.startswith("loss@") and name.endswith("x")]
    return [1.0, *longer] if "loss" in outcomes else longer


def _outcome(factor: float) -> str:
    return "loss" if factor == 1 else f"loss@{factor:g}x"


def _seen(member: Member, factor: float) -> tuple[float | None, float, float]:
    values = [value for _, value in figures(member.variant, _outcome(factor)) if value is not None]
    mean, _ = spread(values)
    return mean, min(values, default=0.0), max(values, default=0.0)


def _missing(members: list[Member], factors: list[float]) -> list[str]:
    """Who has no loss at a length although its runs finished."""
    told = []
    for member in members:
        runs = [run for run, _ in figures(member.variant, "loss") if run.diverged is None]
        lacking = [f for f in factors if runs and all(run.outcomes.get(_outcome(f)) is None for run in runs)]
        if lacking:
            told.append(
                f"{member.label} has no loss at {' and '.join(f'{f:g}×' for f in lacking)} the trained length: "
                "it cannot be built for that, or fails there, or the loss is not finite."
            )
    return told


def _trained(results: Results) -> str:
    train = results.experiment.get("train")
    length = train.get("seq_len") if isinstance(train, dict) else None
    return f" of {length} tokens" if isinstance(length, int) else ""
