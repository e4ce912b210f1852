"""What the synthetic probes say: the accuracy of every seed."""

from llamazoo.ablation.outcomes import on_probe
from llamazoo.ablation.report.cast import LABEL, Member, cast, figures, spread
from llamazoo.ablation.report.marks import Axis, Chart, Dots, Label, Mark, Panel, Row, Rule
from llamazoo.ablation.report.spelling import fixed, in_one_line
from llamazoo.ablation.results import Results
from llamazoo.diagram.words import shortened

__all__ = ["probes"]

HIGH = 21
MOST = 3  # panels side by side
TITLE = 135  # pixels that a probe's name has
TICKS = ((0.0, "0"), (0.25, ""), (0.5, "0.5"), (0.75, ""), (1.0, "1"))


def probes(results: Results) -> Chart | None:
    """A panel for each probe, a row for each variant, a point for each seed."""
    members = cast(results)
    names = list(dict.fromkeys(run.probe for member in members for run in member.variant.runs if run.probe is not None))
    if not names:
        return None
    columns = min(MOST, len(names))
    chances = {name: guess.chance for name in names if (guess := results.guessing.get(on_probe(name)))}
    panels = [_panel(name, members, chances.get(name), first=i % columns == 0) for i, name in enumerate(names)]
    height = float(HIGH * max(2, len(members)))
    rows = tuple(Row(height, tuple(panels[i : i + columns]), columns) for i in range(0, len(panels), columns))
    caption = "Accuracy in each probe: faint points are seeds, full ones their means. A cross at nought stands for runs that diverged."
    caption += " The dotted line is what guessing comes to." if chances else ""
    return Chart("probes", "Probes", caption, rows, left=148, right=24)


def _panel(probe: str, members: list[Member], chance: float | None, *, first: bool) -> Panel:
    marks: list[Mark] = [] if chance is None else [Rule(chance, dashed=True)]
    for i, member in enumerate(members):
        found = figures(member.variant, f"accuracy:{probe}")
        seen = tuple(value for _, value in found if value is not None)
        mean, sd = spread(seen)
        tips = tuple(f"{member.label}, seed {run.seed}: {fixed(value, 3)}" for run, value in found if value is not None)
        marks.append(Dots(member.style, seen, (-i - 0.2,) * len(seen), tips=tips, size=4.5, faint=True, marker="circle"))
        if mean is not None:
            tip = f"{member.label}\nmean {fixed(mean, 3)}" + (f" ± {fixed(sd, 3)}" if sd is not None else "")
            marks.append(Dots(member.style, (mean,), (-float(i),), tips=(tip,), size=9))
        lost = [run for run, value in found if value is None]
        if lost:
            tip = f"{member.label}\n{len(lost)} of {len(found)} runs diverged"
            marks += [
                Dots(member.style, (0.0,), (-float(i),), tips=(tip,), size=8, marker="cross"),
                Label(f"{len(lost)} of {len(found)} diverged", -float(i), 0.0, member.style.colour, shift=(9, 0)),
            ]
    names = tuple((-float(i), member.label if first else "") for i, member in enumerate(members))
    y = Axis("", -len(members) + 0.4, 0.6, names, lines=False)
    return Panel(shortened(in_one_line(probe), LABEL + 1, TITLE, bold=True), Axis("accuracy", -0.04, 1.04, TICKS), y, tuple(marks))
