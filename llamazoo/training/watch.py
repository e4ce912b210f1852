"""Who is told how a run goes: a file of metrics, TensorBoard, a progress bar, or anybody else's watcher."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llamazoo.training.optimizer import Update

__all__ = ["Journal", "Point", "Watcher"]


@dataclass(frozen=True)
class Point:
    """One evaluation."""

    step: int
    tokens: int
    """Trained on until then."""
    loss: float
    accuracy: float
    training_loss: float | None
    """The mean of the batches' losses since the evaluation before."""


class Watcher:
    """Does nothing; a subclass says what it wants to hear."""

    def begin(self, step: int, steps: int) -> None:
        """The run begins at a step, or is resumed there; what was told of later steps is to be forgotten."""

    def updated(self, step: int, update: Update, seconds: float) -> None:
        """A step was taken, or refused."""

    def evaluated(self, point: Point) -> None:
        """An evaluation came out."""

    def end(self) -> None:
        """The run is over, however it ended."""


class Journal(Watcher):
    """metrics.jsonl: a line for each step and each evaluation, none twice, however often the run is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def begin(self, step: int, steps: int) -> None:
        kept = [line for line in self._lines() if line["step"] < step or ("evaluation" in line and line["step"] == step)]
        draft = self.path.with_name(f".{self.path.name}.draft")
        draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        draft.replace(self.path)
        self.file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by end()

    def updated(self, step: int, update: Update, seconds: float) -> None:
        loss, norm = (value if math.isfinite(value) else None for value in (update.loss, update.norm))  # JSON has no NaN
        self._write({"step": step, "loss": loss, "lr": update.lr, "norm": norm, "taken": update.taken, "seconds": seconds})

    def evaluated(self, point: Point) -> None:
        told = asdict(point)
        self._write({"step": told.pop("step"), "evaluation": told})

    def end(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _write(self, told: dict[str, Any]) -> None:
        self.file.write(json.dumps(told) + "\n")

    def _lines(self) -> Iterable[dict[str, Any]]:
        """What is there already, but for a last line that was cut off."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                return
