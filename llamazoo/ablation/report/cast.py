"""The variants as figures show them: in which colour, with which name, and what their runs came to."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llamazoo.ablation.outcomes import probe_of
from llamazoo.ablation.report.marks import Style
from llamazoo.ablation.report.spelling import in_one_line
from llamazoo.ablation.results import Outcome, Results, Run, Variant
from llamazoo.diagram.words import shortened

__all__ = ["Member", "cast", "evaluations", "figures", "noise_figures", "spread"]

# Okabe & Ito 2008, less black, which is the base's, and yellow, which white paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
DASHES: tuple[Literal["solid", "dash", "dot"], ...] = ("solid", "dash", "dot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "triangle-down")
LABEL = 11.0  # the size of text in figures, in pixels
ROOM = 132.0  # that a name has beside a panel


@dataclass(frozen=True)
class Member:
    """A variant, what it looks like, and a name that is short and no other's."""

    variant: Variant
    style: Style
    label: str
    is_base: bool


def cast(results: Results) -> list[Member]:
    """The base and all variants, in the order of the experiment."""
    labels = list(_labels([variant.name for variant in results.variants]))
    members, others = [], 0
    for variant, label in zip(results.variants, labels, strict=True):
        is_base = variant.name == results.base
        members.append(Member(variant, Style() if is_base else _style(others), label, is_base))
        others += not is_base
    return members


def _style(i: int) -> Style:
    """Colours first; whoever shares a colour has another dash and marker."""
    return Style(COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)])


def _labels(names: Sequence[str]) -> Iterator[str]:
    taken = set[str]()
    for name in names:
        label, again = shortened(in_one_line(name), LABEL, ROOM) or "?", 1
        while label in taken:
            again += 1
            label = shortened(in_one_line(name), LABEL, ROOM - 24).removesuffix("…") + f"… {again}"
        taken.add(label)
        yield label


def evaluations(variant: Variant) -> list[Run]:
    return [run for run in variant.runs if run.role == "evaluation"]


def figures(variant: Variant, outcome: Outcome) -> list[tuple[Run, float | None]]:
    """An outcome of each run that has it: of the runs of a probe for a probe's accuracy, of evaluation for all else."""
    probe = probe_of(outcome)
    if probe is None:
        return [(run, run.outcomes.get(outcome)) for run in evaluations(variant)]
    runs = [run for run in variant.runs if run.probe == probe or outcome in run.outcomes]
    return [(run, run.outcomes.get(outcome, run.outcomes.get("accuracy"))) for run in runs]


def noise_figures(results: Results, outcome: Outcome) -> list[tuple[Run, float | None]]:
    """The same of the base's second runs, which on a probe are others than on the data; none where it was not measured in them."""
    probe = probe_of(outcome)
    runs = [run for run in (results.noise.runs if results.noise else ()) if run.probe == probe]
    return [(run, run.outcomes.get(outcome)) for run in runs] if any(outcome in run.outcomes for run in runs) else []


def spread(values: Sequence[float | None]) -> tuple[float | None, float | None]:
    """The mean of those that are there, and the standard deviation of the population they are from."""
    found = [value for value in values if value is not None]
    if not found:
        return None, None
    return statistics.fmean(found), statistics.stdev(found) if len(found) > 1 else None
