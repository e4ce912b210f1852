"""The tables of results for papers, in Markdown, with the figures, and a footnote on how they were made."""

import re
from collections.abc import Sequence

from llamazoo.ablation.report.answer import answer, design, question, verdicts, warnings
from llamazoo.ablation.report.footnote import footnote
from llamazoo.ablation.report.marks import Chart
from llamazoo.ablation.report.spelling import in_one_line
from llamazoo.ablation.report.tables import Table, effects, summaries
from llamazoo.ablation.results import Results

__all__ = ["escaped", "markdown"]

# What a reader of CommonMark, of GitHub's tables, strikes, formulas and addresses, or of Liquid's braces would take for something else.
MEANT = re.compile(
    r"""
    [\\`*\[\]<|~$]                      # wherever they stand
    | (?<![^\W_])_ | _(?![^\W_])        # emphasis begins and ends at words, not within them
    | &(?=\#?\w+;)                      # an entity
    | (?<!\S)\#                         # a heading's beginning, or its end
    | (?<!\w)@ | @(?!\d+x(?![\w.-]))    # an address, but not loss@4x
    | (?<=\{)[{%] | \{(?=[{%])
    """,
    re.VERBOSE,
)


def markdown(results: Results, charts: Sequence[Chart] = ()) -> str:
    """report.md, with these figures, which lie in the folder figures beside it."""
    lines = [f"# {_begun(results.name)}", "", _begun(question(results)), "", f"**{escaped(answer(results))}**", ""]
    careful = list(warnings(results))
    if careful:
        lines += ["To be careful about:", "", *(f"- {_begun(warning)}" for warning in careful), ""]
    for outcome, table in summaries(results):
        told = [f"- **{escaped(name)}**: {escaped(comparison.sentence)}" for name, comparison in verdicts(results, outcome)]
        lines += [f"## {_begun(table.title)}", "", *told, "", *_rows(table), ""]
    factors = effects(results)
    lines += [f"## {_begun(factors.title)}", "", *_rows(factors), ""] if factors else []
    lines += [f"{_begun(design(results))}.", "", escaped(footnote(results)), ""]
    lines += ["## Figures", "", *(line for chart in charts for line in _figure(chart))] if charts else []
    return "\n".join(lines)


def _figure(chart: Chart) -> list[str]:
    told = " ".join(map(escaped, (chart.caption, *chart.notes)))
    return [f"![{escaped(chart.title)}](figures/{chart.key}.png)", "", f"**{escaped(chart.title)}.** {told}", ""]


def _rows(table: Table) -> list[str]:
    bars = [":---" if i in table.words else "---:" for i in range(len(table.head))]
    head = [f"| {' | '.join(map(escaped, table.head))} |", f"| {' | '.join(bars)} |"]
    return head + [f"| {' | '.join(escaped(cell.text) for cell in row)} |" for row in table.rows]


def escaped(text: str) -> str:
    """Text within a line, that no Markdown reader takes for anything else; what means nothing where it stands is left as it is."""
    return MEANT.sub(r"\\\g<0>", in_one_line(text))


def _begun(text: str) -> str:
    """The same where it begins a line, and could begin a list or a quotation."""
    return re.sub(r"^(\d*)([-+=:.)>])", r"\1\\\2", escaped(text))
