"""What guessing comes to where answers are counted: an accuracy within its reach shows nothing that was learned."""

from collections.abc import Iterator, Mapping

from llamazoo.ablation.experiment import Experiment
from llamazoo.ablation.facts import evaluated_of
from llamazoo.ablation.outcomes import probe_of, sort_of
from llamazoo.ablation.results import Guessing, Outcome
from llamazoo.data.example import DataSet
from llamazoo.extras import optional

__all__ = ["guessing"]

LUCK = 0.001  # the chance with which guessing comes to more than `most`


def guessing(experiment: Experiment, data: Mapping[str | None, DataSet]) -> dict[Outcome, Guessing]:
    """For each declared accuracy, what guessing comes to on the answers that are counted; of data that say what chance is."""
    return dict(_guessing(experiment, data))


def _guessing(experiment: Experiment, data: Mapping[str | None, DataSet]) -> Iterator[tuple[Outcome, Guessing]]:
    for outcome in experiment.outcomes:
        probe = probe_of(outcome)
        chance = data[probe].facts().get("chance") if sort_of(outcome) == "accuracy" else None
        if isinstance(chance, float) and 0 <= chance <= 1:
            answers = evaluated_of(experiment, data, probe).tokens
            most = optional("scipy.stats", "ablation").binom.isf(LUCK, answers, chance)
            yield outcome, Guessing(chance=chance, answers=answers, most=float(most) / answers)
