"""The validation loss while training: the whole, and the end close up."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from llamazoo.ablation.report.cast import Member, cast, evaluations
from llamazoo.ablation.report.ends import End, end_labels
from llamazoo.ablation.report.marks import Chart, Curve, Dots, Mark, Panel, Row
from llamazoo.ablation.report.scale import around, axis, common
from llamazoo.ablation.report.spelling import amount, fixed
from llamazoo.ablation.results import CurvePoint, Results, Run

__all__ = ["curves"]

CLOSE = 0.4  # the share of training that is shown close up
HIGH = 300


@dataclass(frozen=True)
class Course:
    """A variant's runs together: mean and range over seeds wherever all that finished were evaluated, and those that did not finish."""

    member: Member
    tokens: tuple[float, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    diverged: tuple[Run, ...]

    def after(self, start: float) -> "Course":
        kept = [i for i, at in enumerate(self.tokens) if at >= start]
        tokens, mean, low, high = ([values[i] for i in kept] for values in (self.tokens, self.mean, self.low, self.high))
        return Course(self.member, tuple(tokens), tuple(mean), tuple(low), tuple(high), self.diverged)


def curves(results: Results) -> Chart | None:
    """Mean loss over seeds against tokens, with the range of the seeds."""
    courses = [_course(member) for member in cast(results)]
    ran = [run for member in cast(results) for run in evaluations(member.variant) if run.curve]
    if not ran:
        return None
    end = max((course.tokens[-1] for course in courses if course.tokens), default=max(run.curve[-1].tokens for run in ran))
    height = max(HIGH, 15 * len(courses) + 20)
    whole = _whole(courses, ran, end)
    close = _close([course.after((1 - CLOSE) * end) for course in courses], end, height)
    caption = "Validation loss, mean over the seeds that finished. Bands: from the lowest to the highest seed. "
    caption += "Right: the end of training close up." if close else ""
    caption += " A cross ends a run that diverged." if any(course.diverged for course in courses) else ""
    panels = (whole, close) if close else (whole,)
    return Chart("loss-curves", "Loss while training", caption.strip(), (Row(height, panels, len(panels)),), right=176, gap=62)


def _course(member: Member) -> Course:
    runs = [run for run in evaluations(member.variant) if run.curve]
    finished = [{p.tokens: p.loss for p in run.curve} for run in runs if run.diverged is None]
    shared = sorted(set.intersection(*(set(curve) for curve in finished))) if finished else []
    seen = [[curve[t] for curve in finished] for t in shared]
    return Course(
        member,
        tuple(map(float, shared)),
        tuple(statistics.fmean(losses) for losses in seen),
        tuple(min(losses) for losses in seen),
        tuple(max(losses) for losses in seen),
        tuple(run for run in runs if run.diverged is not None),
    )


def _whole(courses: Sequence[Course], ran: Sequence[Run], end: float) -> Panel:
    calm = [loss for course in courses for loss in course.high] or [p.loss for run in ran for p in run.curve]
    floor = min([loss for course in courses for loss in course.low] + [p.loss for run in ran for p in run.curve])
    low, high = around([floor, max(calm)])
    marks = [mark for course in courses for mark in _lost(course, high - (high - low) * 0.04)]
    marks += [mark for course in courses[::-1] for mark in _drawn(course, len(courses))]
    return Panel(
        "All of training", axis("tokens trained on", 0.0, end * 1.02, 4), axis("validation loss, nats a token", low, high), tuple(marks)
    )


def _close(courses: Sequence[Course], end: float, height: float) -> Panel | None:
    """The end, as close as the variants that lie together allow; whoever lies above is named at the upper edge."""
    seen = [course for course in courses if len(course.tokens) > 1]
    if not seen:
        return None
    finals = [course.mean[-1] for course in seen]
    width = max(course.high[-1] - course.low[-1] for course in seen)
    top = common(finals, least=3 * width)
    within = [course for course in seen if course.mean[-1] <= top]
    low, high = around([*(x for course in within for x in (*course.low, *course.mean)), *(course.high[-1] for course in within)])
    marks: list[Mark] = [mark for course in within[::-1] for mark in _drawn(course, len(seen))]
    ends = []
    for course in seen:
        final, label = course.mean[-1], course.member.label
        beyond = course not in within
        text = f"{label} {fixed(final, 3)}{' ↑' if beyond else ''}"
        y = high if beyond else final
        ends.append(End(text, course.member.style.colour, course.tokens[-1], y, bold=course.member.is_base, led=not beyond))
    marks += end_labels(ends, low, high, height, edge=end * (1 + CLOSE * 0.07))
    x = axis("tokens trained on", min(course.tokens[0] for course in seen), end * (1 + CLOSE * 0.07), 3)
    return Panel("The end", x, axis("", low, high), tuple(marks))


def _drawn(course: Course, among: int) -> list[Mark]:
    if not course.tokens:
        return []
    tips = tuple(f"{course.member.label}\n{amount(t)} tokens: {fixed(loss, 4)}" for t, loss in zip(course.tokens, course.mean, strict=True))
    return [Curve(course.member.style, course.tokens, course.mean, course.low, course.high, tips, faint=among > 6)]


def _lost(course: Course, top: float) -> list[Mark]:
    """The runs that diverged, each by itself, up to the top of the panel."""
    marks: list[Mark] = []
    for run in course.diverged:
        points: list[CurvePoint] = list(run.curve)
        x, y = tuple(float(p.tokens) for p in points), tuple(min(p.loss, top) for p in points)
        tip = f"{course.member.label}, seed {run.seed}\ndiverged at {amount(x[-1])} tokens"
        marks += [
            Curve(course.member.style, x, y, faint=True),
            Dots(course.member.style, x[-1:], y[-1:], tips=(tip,), size=10, marker="cross"),
        ]
    return marks
