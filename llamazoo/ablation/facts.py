"""What results tell of the data: all of it, and how much of the validation split the runs are judged by."""

from collections.abc import Mapping

from llamazoo.ablation.experiment import Experiment
from llamazoo.ablation.longer import shares
from llamazoo.data.example import DataSet
from llamazoo.training.evaluate import Evaluated, evaluated

__all__ = ["EVALUATED_DOCUMENTS", "EVALUATED_TOKENS", "evaluated_of", "facts_of"]

EVALUATED_DOCUMENTS, EVALUATED_TOKENS = "evaluated documents", "evaluated tokens"


def evaluated_of(experiment: Experiment, data: Mapping[str | None, DataSet], probe: str | None = None) -> Evaluated:
    """The documents and tokens of the validation split, of the data or of a probe, that each evaluation at the trained length reads."""
    recipe = experiment.training_on(probe)
    return evaluated(data[probe].validation(recipe.seq_len), recipe.evaluate_tokens)


def facts_of(experiment: Experiment, data: Mapping[str | None, DataSet]) -> dict[str, str | int | float]:
    """What each data set says of itself, what of it is evaluated, and how much of longer texts is longer; of probes, under their names."""
    found: dict[str, str | int | float] = {}
    for probe, each in data.items():
        read = evaluated_of(experiment, data, probe)
        told = {**each.facts(), EVALUATED_DOCUMENTS: read.documents, EVALUATED_TOKENS: read.tokens}
        found |= {f"{probe}: {key}" if probe else key: value for key, value in told.items()}
    return found | shares(data[None], experiment.train, experiment.lengths)
