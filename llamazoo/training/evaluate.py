"""What a model makes of examples that it was not trained on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from llamazoo.data.example import IGNORED, Example, Examples, stacked
from llamazoo.decoder import Decoder
from llamazoo.errors import DataError, InputError

__all__ = ["Score", "evaluate"]


@dataclass(frozen=True)
class Score:
    """Means over all targets."""

    loss: float
    """Cross-entropy, nats."""
    accuracy: float
    """The share of targets that the model thinks likeliest."""
    targets: int


@torch.no_grad()
def evaluate(
    model: Decoder, examples: Examples, *, rows: int, tokens: int | None = None, between: Callable[[], None] | None = None
) -> Score:
    """Loss and accuracy over the first examples that hold so many tokens, or all of them, `rows` at once.

    `between` is called after each batch, and may end the evaluation by raising. The model stays in the mode it was in.
    """
    for name, number in (("rows", rows), ("tokens", 1 if tokens is None else tokens)):
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise InputError(f"{name} is a whole number from 1, found {number!r}")
    if len(examples) == 0:
        raise DataError("there is nothing to evaluate on: the validation split has no examples")
    length = len(examples[0].tokens)
    count = len(examples) if tokens is None else min(len(examples), max(1, tokens // length))
    was_training = model.training
    model.eval()
    try:
        loss, right, targets = 0.0, 0, 0
        for first in range(0, count, rows):
            batch = stacked(examples[index] for index in range(first, min(first + rows, count))).to(model.device)
            added = _batch(model, batch)
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
