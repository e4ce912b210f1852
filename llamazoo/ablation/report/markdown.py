"""The tables of results for papers, in Markdown, with a footnote on how they were made."""

import re

from llamazoo.ablation.report.answer import answer, design, question, verdicts, warnings
from llamazoo.ablation.report.spelling import in_one_line
from llamazoo.ablation.report.tables import Table, effects, summaries
from llamazoo.ablation.results import Results

__all__ = ["FOOTNOTE", "escaped", "markdown"]

FOOTNOTE = (
    "Differences are the variant's less the base's, paired by seed: both saw the same data in the same order. Intervals are "
    "t-intervals of the mean difference, simultaneous over all that the experiment compares (Bonferroni); p is of a two-sided paired "
    "t-test, corrected by Holm over the same comparisons. Noise is what the mean difference must exceed to be more than two runs of the "
    "base differ by. A variant is called better or worse only if p is below the level that was set and the difference exceeds the "
    "noise. Learning rates were chosen on other seeds."
)


def markdown(results: Results) -> str:
    """report.md"""
    lines = [f"# {_begun(results.name)}", "", _begun(question(results)), "", f"**{escaped(answer(results))}**", ""]
    careful = list(warnings(results))
    if careful:
        lines += ["To be careful about:", "", *(f"- {_begun(warning)}" for warning in careful), ""]
    for outcome, table in summaries(results):
        told = [f"- **{escaped(name)}**: {escaped(comparison.sentence)}" for name, comparison in verdicts(results, outcome)]
        lines += [f"## {_begun(table.title)}", "", *told, "", *_rows(table), ""]
    factors = effects(results)
    lines += [f"## {_begun(factors.title)}", "", *_rows(factors), ""] if factors else []
    lines += [f"{_begun(design(results))}.", "", FOOTNOTE, ""]
    return "\n".join(lines)


def _rows(table: Table) -> list[str]:
    bars = [":---" if i in table.words else "---:" for i in range(len(table.head))]
    head = [f"| {' | '.join(map(escaped, table.head))} |", f"| {' | '.join(bars)} |"]
    return head + [f"| {' | '.join(escaped(cell.text) for cell in row)} |" for row in table.rows]


def escaped(text: str) -> str:
    """Text within a line, that no Markdown reader takes for anything else."""
    return re.sub(r"[\\`*_{}\[\]<>()#|~$&@!^]", r"\\\g<0>", in_one_line(text))


def _begun(text: str) -> str:
    """The same where it begins a line, and could begin a list."""
    return re.sub(r"^(\d*)([-+=:.])", r"\1\\\2", escaped(text))
