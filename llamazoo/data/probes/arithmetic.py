"""A probe of arithmetic: sums modulo a prime, learned from some pairs and asked for others."""

import functools
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from llamazoo.contract.options import Size
from llamazoo.data.draws import Purpose, draws
from llamazoo.data.probes.probe import Probe, Tasks, unanswered
from llamazoo.errors import Problem, SpecError

__all__ = ["ModularAddition"]


class ModularAddition(Probe):
    """a + b = c modulo a number. Power et al. 2022 (grokking, arXiv 2201.02177).

    After `a + b =` the sum is due. Pairs themselves are split, (a, b) together with (b, a), so validation asks only for sums
    that training never showed.
    """

    source: Literal["modular_addition"] = "modular_addition"
    modulus: Annotated[Size, Field(ge=3, le=4096)] = 97
    """The numbers are from 0 to one less."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """The share of pairs that are held out."""

    @model_validator(mode="after")
    def _has_both(self) -> Self:
        if any(not len(pairs) for pairs in held_pairs(self.modulus, self.validation)):
            raise SpecError(Problem(("validation",), f"a share of {self.validation} of {self.modulus}**2 pairs leaves one side empty"))
        return self

    @property
    def task_length(self) -> int:
        return 4

    @property
    def ids(self) -> int:
        return 3 + self.modulus

    @property
    def chance(self) -> float:
        a, b = np.divmod(held_pairs(self.modulus, self.validation)[1], self.modulus)
        return float(np.bincount((a + b) % self.modulus).max() / len(a))  # sums are not equally frequent among the pairs held out

    @property
    def shortcut(self) -> float:
        """Of a sum with the number that comes first which training did not show; each is another one."""
        held = held_pairs(self.modulus, self.validation)[1]
        return len(np.unique(held // self.modulus)) / len(held)

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        pairs = held_pairs(self.modulus, self.validation)[validation]
        a, b = np.divmod(pairs[rng.integers(len(pairs), size=count)], self.modulus)
        plus, equals = np.full(count, 1), np.full(count, 2)
        tokens = np.stack([3 + a, plus, 3 + b, equals], axis=1)
        targets = unanswered(tokens)
        targets[:, -1] = 3 + (a + b) % self.modulus
        return Tasks(tokens, targets)


@functools.lru_cache(maxsize=4)
def held_pairs(modulus: int, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs to train on and those to validate on, each as a * modulus + b; one draw for each unordered pair decides."""
    drawn = draws(modulus, Purpose.VALIDATION_PAIRS, 0).random((modulus, modulus))
    held = np.triu(drawn < share)
    held = (held | held.T).reshape(-1)
    return np.flatnonzero(~held), np.flatnonzero(held)
