"""Whether longer texts are longer: in how much of them a token has more behind it than models were trained on."""

import re
from collections.abc import Iterator, Mapping, Sequence

import torch

from llamazoo.data.example import IGNORED, DataSet
from llamazoo.training.evaluate import evaluated_examples
from llamazoo.training.recipe import Training

__all__ = ["shares", "short_documents"]

FACT = re.compile(r"share of targets at (\d+)x with more than the trained length behind them")


def shares(data: DataSet, training: Training, lengths: Sequence[int]) -> dict[str, float]:
    """Facts of the data at each length above 1: of the targets, the share with at least `seq_len` tokens of their document before them."""
    found: dict[str, float] = {}
    for length in lengths:
        if length == 1:
            continue
        tokens = length * training.seq_len
        examples = data.validation(tokens)
        place, beyond, learned = torch.arange(tokens), 0, 0
        for _, targets, segments in (examples[n] for n in evaluated_examples(len(examples), tokens, training.evaluate_tokens)):
            begins = torch.cat((torch.ones(1, dtype=torch.bool), segments[1:] != segments[:-1]))
            behind = place - torch.where(begins, place, 0).cummax(0).values
            due = targets != IGNORED
            beyond, learned = beyond + int((due & (behind >= training.seq_len)).sum()), learned + int(due.sum())
        found[f"share of targets at {length}x with more than the trained length behind them"] = beyond / max(1, learned)
    return found


def short_documents(facts: Mapping[str, str | int | float]) -> Iterator[str]:
    """One sentence for each length at which less than half as many targets as could be are beyond what was trained."""
    for name, share in facts.items():
        found = FACT.fullmatch(name)
        if found is None or not isinstance(share, float):
            continue
        length = int(found[1])
        if share < (length - 1) / length / 2:
            told = f"only {share:.1%} of its targets have more than the trained length of their document behind them"
            yield f"documents are too short for loss@{length}x to say much of longer texts: {told}"
