"""What a model makes of examples that it was not trained on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
import torch.nn.functional as F

from llamazoo.data.example import IGNORED, Example, Examples, stacked
from llamazoo.decoder import Decoder
from llamazoo.errors import DataError, InputError

__all__ = ["Evaluated", "Score", "evaluate", "evaluated", "evaluated_examples"]


@dataclass(frozen=True)
class Score:
    """Means over all targets."""

    loss: float
    """Cross-entropy, nats."""
    accuracy: float
    """The share of targets that the model thinks likeliest."""
    targets: int


@dataclass(frozen=True)
class Evaluated:
    """How much an evaluation is made of."""

    documents: int
    """Those of which at least one token was to be predicted."""
    tokens: int
    """That were to be predicted."""


def evaluated_examples(count: int, length: int, tokens: int | None = None) -> list[int]:
    """Which of `count` examples of this length an evaluation reads: as many as hold `tokens`, spread evenly over all, or all of them.

    The first of them would be the first documents only, of a split that may have hundreds. The choice follows from these numbers alone,
    so every evaluation of a split reads the same.
    """
    read = count if tokens is None else min(count, max(1, tokens // length))
    return [number * count // read for number in range(read)]


def evaluated(examples: Examples, tokens: int | None = None) -> Evaluated:
    """How many documents and targets an evaluation of so many tokens judges by; counted, without a model."""
    documents: set[int] = set()
    targets = 0
    for example in _read(examples, tokens):
        learned = example.targets != IGNORED
        targets += int(learned.sum())
        documents.update(example.segments[learned].unique().tolist())
    return Evaluated(len(documents), targets)


def _read(examples: Examples, tokens: int | None) -> Iterator[Example]:
    """The examples of an evaluation. Raises DataError if there are none."""
    if len(examples) == 0:
        raise DataError("there is nothing to evaluate on: the validation split has no examples")
    return (examples[number] for number in evaluated_examples(len(examples), len(examples[0].tokens), tokens))


@torch.no_grad()
def evaluate(
    model: Decoder, examples: Examples, *, rows: int, tokens: int | None = None, between: Callable[[], None] | None = None
) -> Score:
    """Loss and accuracy over examples that hold so many tokens, spread evenly over all there are, or over all, `rows` at once.

    `between` is called after each batch, and may end the evaluation by raising. The model stays in the mode it was in.
    """
    for name, number in (("rows", rows), ("tokens", 1 if tokens is None else tokens)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{name} is a whole number from 1, found {number!r}")
    read = _read(examples, tokens)
    was_training = model.training
    model.eval()
    try:
        loss, right, targets = 0.0, 0, 0
        while batch := list(islice(read, rows)):
            added = _batch(model, stacked(batch).to(model.device))
            loss, right, targets = loss + added[0], right + added[1], targets + added[2]
            if between is not None:
                between()
    finally:
        model.train(was_training)
    if targets == 0:
        raise DataError("there is nothing to evaluate on: no example of the validation split has a target")
    return Score(loss / targets, right / targets, targets)


def _batch(model: Decoder, batch: Example) -> tuple[float, int, int]:
    """The summed loss, how many targets were predicted right, and how many there are."""
    logits = model(batch.tokens, segments=batch.segments)
    learned = batch.targets != IGNORED
    loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="sum")
    right = (logits.argmax(-1) == batch.targets) & learned
    return float(loss), int(right.sum()), int(learned.sum())
