"""Who is told how a run goes: a file of metrics, TensorBoard, a progress bar, or anybody else's watcher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from llamazoo.training.optimizer import Update

__all__ = ["Point", "Watcher"]


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    step: int
    tokens: int
    """Trained on until then."""
    loss: float
    accuracy: float
    training_loss: float | None
    """The mean of the batches' losses since the evaluation before; None if no batch had a target."""


class Watcher:
    """Does nothing; a subclass says what it wants to hear."""

    def begin(self, step: int, steps: int, points: Sequence[Point]) -> None:
        """The run begins at a step, or is resumed there with these evaluations behind it; what else was told is to be forgotten."""

    def updated(self, step: int, update: Update, seconds: float) -> None:
        """A step was taken, or refused."""

    def evaluated(self, point: Point) -> None:
        """An evaluation came out."""

    def end(self) -> None:
        """The run is over, however it ended."""
