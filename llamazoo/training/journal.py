"""metrics.jsonl: how a run went, for programs."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from llamazoo.errors import SaveError, TrainingError
from llamazoo.spec.problems import explain
from llamazoo.training.optimizer import Update
from llamazoo.training.watch import Point, Watcher

__all__ = ["Journal"]


class Line(BaseModel):
    """What every line has, whatever else it tells."""

    model_config = ConfigDict(strict=True, extra="allow")

    step: int


class Journal(Watcher):
    """A line for each step and each evaluation, none twice, however often the run is resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None

    def begin(self, step: int, steps: int, points: Sequence[Point]) -> None:
        updates = [line.model_dump() for line in self._lines() if line.step < step and "evaluation" not in (line.model_extra or {})]
        # An evaluation at step n comes before the update of that number.
        kept = sorted([*map(_told, points), *updates], key=lambda line: (line["step"], "evaluation" not in line))
        draft = self.path.with_name(f".{self.path.name}.draft")
        with self._kept():
            draft.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
            draft.replace(self.path)
            self.file = open(self.path, "a", encoding="utf-8", buffering=1)  # noqa: SIM115 - closed by end()

    def updated(self, step: int, update: Update, seconds: float) -> None:
        told = {"step": step, "loss": _finite(update.loss), "lr": update.lr, "norm": _finite(update.norm)}
        self._write({**told, "targets": update.targets, "taken": update.taken, "seconds": seconds})

    def evaluated(self, point: Point) -> None:
        self._write(_told(point))

    def end(self) -> None:
        file, self.file = self.file, None
        if file is not None:
            with self._kept():
                file.close()

    def _write(self, told: dict[str, Any]) -> None:
        with self._kept():
            self.file.write(json.dumps(told) + "\n")

    @contextmanager
    def _kept(self) -> Iterator[None]:
        """Raise SaveError where the disk takes no more, or the file cannot be written for another reason."""
        try:
            yield
        except OSError as error:
            raise SaveError(f"{self.path}: {error.strerror or error}; what was saved before is whole") from None

    def _lines(self) -> Iterator[Line]:
        """What is there already, but for a last line that was cut off. Raises TrainingError for any other that is none."""
        try:
            lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be read ({error.strerror}); remove it, or choose another folder") from None
        for number, line in enumerate(lines, 1):
            try:
                if line:
                    yield Line.model_validate_json(line)
            except ValidationError as error:
                if number == len(lines):
                    return
                found = "; ".join(map(str, explain(error, Line).problems))
                told = f"line {number} is none of ours ({found})"
                raise TrainingError(f"{self.path}: {told}; remove the line, or the file") from None


def _told(point: Point) -> dict[str, Any]:
    told = asdict(point)
    return {"step": told.pop("step"), "evaluation": told}


def _finite(value: float | None) -> float | None:
    """JSON has neither NaN nor infinity."""
    return value if value is not None and math.isfinite(value) else None
