"""How the figures of a report were made, in the words that stand below its tables."""

from llamazoo.ablation.report.answer import rates_of
from llamazoo.ablation.report.spelling import rate
from llamazoo.ablation.results import Results

__all__ = ["footnote", "rates_told"]

FOOTNOTE = (
    "Differences are the variant's less the base's, paired by seed: both saw the same data in the same order. Intervals are "
    "t-intervals of the mean difference, simultaneous over all that the experiment compares (Bonferroni); p is of a two-sided paired "
    "t-test, corrected by Holm over the same comparisons. Noise is what the mean difference must exceed to be more than two runs of the "
    "base differ by. A variant is called better or worse only if p is below the level that was set and the difference exceeds the "
    "noise."
)


def footnote(results: Results) -> str:
    """What was tested, and where the learning rates come from."""
    return f"{FOOTNOTE} {rates_told(results)}"


def rates_told(results: Results) -> str:
    """Whether learning rates were chosen, and by what."""
    tried = rates_of(results)
    if len(tried) > 1:
        told = "Each seed of each variant took the learning rate that was best in its own trials, apart from the runs that are compared."
    elif tried:
        told = f"There was one learning rate, {rate(tried[0])}: none was chosen, and there were no trials."
    else:
        told = "There were no trials of learning rates."
    apart = _on_probes(results)
    return told if apart is None else f"{told} On probes it was {rate(apart)}."


def _on_probes(results: Results) -> float | None:
    """The learning rate that the experiment gives for probes, if it gives one of their own."""
    training = results.experiment.get("probe_train")
    found = training.get("lr") if isinstance(training, dict) and results.experiment.get("probes") else None
    return found if isinstance(found, float) else None
