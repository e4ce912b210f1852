"""How far a run came, as data."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from llamazoo.training.identity import Identity
from llamazoo.training.watch import Point

__all__ = ["Progress"]

Count = Annotated[int, Field(ge=0)]


class Progress(BaseModel):
    """How far a run came; floats are written so that they are read back exactly."""

    model_config = ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True)

    identity: Identity
    """What run it is."""
    step: Count
    """Steps that are behind it."""
    seconds: Annotated[FiniteFloat, Field(ge=0)] = 0.0
    """Spent on updates so far."""
    points: list[Point] = []
    """All evaluations so far."""
    taken: Count = 0
    """Steps that updated the model."""
    skipped: Count = 0
    """Steps that had to be left out, since loss or gradients were not finite."""
    skipped_in_a_row: Count = 0
    summed: FiniteFloat = 0.0
    """Of the batches' losses since the last evaluation."""
    counted: Count = 0
    """How many batches that was."""
    digest: str = ""
    """SHA-256 of the tensors beside it."""

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        steps = [point.step for point in self.points]
        if steps != sorted({step for step in steps if 0 <= step <= self.step}):
            raise ValueError(f"the evaluations are of the steps {steps[:20]}; they have to rise, up to {self.step}")
        if not (self.skipped_in_a_row <= self.skipped and self.counted <= self.taken <= self.step - self.skipped):
            told = f"{self.taken} steps taken, {self.counted} of them counted, {self.skipped} skipped, {self.skipped_in_a_row} in a row"
            raise ValueError(f"{told}, of {self.step}")
        return self
