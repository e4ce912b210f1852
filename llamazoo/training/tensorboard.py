"""Metrics for TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamazoo.extras import optional
from llamazoo.training.optimizer import Update
from llamazoo.training.watch import Point, Watcher

__all__ = ["TensorBoard"]


class TensorBoard(Watcher):
    """Writes events into a folder; what was written of steps that are done again is superseded."""

    def __init__(self, folder: Path) -> None:
        self.module = optional("torch.utils.tensorboard", "tensorboard")
        self.folder = folder
        self.writer: Any = None

    def begin(self, step: int, steps: int, points: Sequence[Point]) -> None:
        self.writer = self.module.SummaryWriter(str(self.folder), purge_step=step)
        for point in points:
            if point.step >= step:  # purged with the updates of that number, and not computed again
                self.evaluated(point)

    def updated(self, step: int, update: Update, seconds: float) -> None:
        for name, value in (("loss", update.loss), ("learning rate", update.lr), ("gradient norm", update.norm)):
            if value is not None:
                self.writer.add_scalar(f"training/{name}", value, step)

    def evaluated(self, point: Point) -> None:
        self.writer.add_scalar("validation/loss", point.loss, point.step)
        self.writer.add_scalar("validation/accuracy", point.accuracy, point.step)
        self.writer.flush()  # before a checkpoint is saved that has this behind it

    def end(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
