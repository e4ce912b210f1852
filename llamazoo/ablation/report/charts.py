"""All figures of a report, in the order in which they are read."""

from llamazoo.ablation.report.curves import curves
from llamazoo.ablation.report.forest import differences, effects
from llamazoo.ablation.report.lengths import lengths
from llamazoo.ablation.report.marks import Chart
from llamazoo.ablation.report.pareto import pareto
from llamazoo.ablation.report.probes import probes
from llamazoo.ablation.report.rates import rates
from llamazoo.ablation.results import Results, Timings

__all__ = ["KEYS", "charts"]

KEYS = ("differences", "effects", "loss-curves", "learning-rates", "cost-quality", "lengths", "probes")


def charts(results: Results, timings: Timings | None = None) -> list[Chart]:
    """The figures that these results have something to draw for."""
    found = (
        differences(results),
        effects(results),
        curves(results),
        rates(results),
        pareto(results, timings),
        lengths(results),
        probes(results),
    )
    return [chart for chart in found if chart is not None]
