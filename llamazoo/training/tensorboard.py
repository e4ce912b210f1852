"""Metrics for TensorBoard."""

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

    def begin(self, step: int, steps: int) -> None:
        self.writer = self.module.SummaryWriter(str(self.folder), purge_step=step)

    def updated(self, step: int, update: Update, seconds: float) -> None:
        for name, value in (("loss", update.loss), ("learning rate", update.lr), ("gradient norm", update.norm)):
            self.writer.add_scalar(f"training/{name}", value, step)

    def evaluated(self, point: Point) -> None:
        self.writer.add_scalar("validation/loss", point.loss, point.step)
        self.writer.add_scalar("validation/accuracy", point.accuracy, point.step)

    def end(self) -> None:
        self.writer.close()
