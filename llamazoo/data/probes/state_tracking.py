"""A probe of state: the product of permutations so far."""

import functools
import itertools
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from llamazoo.contract.options import Size
from llamazoo.data.probes.probe import Probe, Tasks, unanswered

__all__ = ["StateTracking"]

Group = Literal["s3", "s4", "a5", "s5"]


class StateTracking(Probe):
    """The word problem of a group of permutations. Merrill et al. 2024 (The Illusion of State, arXiv 2404.08819).

    Random permutations, each an id; after every one but the first, the product of all so far is due, the latest applied last.
    A5 and S5 are not solvable groups, so their products are NC1-complete, and out of reach (as far as is known) of transformers
    and of linear recurrences of fixed depth; S3 and S4 are solvable.
    """

    source: Literal["state_tracking"] = "state_tracking"
    group: Group = "s3"
    """Which permutations: all of 3, 4 or 5 things, or the even ones of 5."""
    length: Annotated[Size, Field(ge=2)] = 32
    """How many of them."""

    @property
    def task_length(self) -> int:
        return self.length

    @property
    def ids(self) -> int:
        return 1 + len(elements(self.group))

    @property
    def chance(self) -> float:
        return 1 / len(elements(self.group))

    @property
    def shortcut(self) -> float:
        """Of the product of the first two, and then of a guess that knows how many odd permutations there were, in whatever order."""
        guess = (1 if self.group[0] == "a" else 2) / len(elements(self.group))
        return (1 + (self.length - 2) * guess) / (self.length - 1)

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        products = table(self.group)
        drawn = rng.integers(len(products), size=(count, self.length))
        state, reach = drawn.copy(), 1
        while reach < self.length:  # each holds the product of the last `reach`, which doubles (Hillis & Steele 1986)
            state[:, reach:] = products[state[:, reach:], state[:, :-reach]]
            reach *= 2
        targets = unanswered(drawn)
        targets[:, 1:] = 1 + state[:, 1:]
        return Tasks(1 + drawn, targets)


@functools.cache
def elements(group: Group) -> tuple[tuple[int, ...], ...]:
    """The permutations of a group, in lexical order; a token is 1 + the number of its permutation."""
    found = itertools.permutations(range(int(group[1])))
    return tuple(each for each in found if group[0] == "s" or not _odd(each))


def _odd(permutation: tuple[int, ...]) -> bool:
    return sum(a > b for a, b in itertools.combinations(permutation, 2)) % 2 == 1


@functools.cache
def table(group: Group) -> NDArray[np.int64]:
    """The number of `later` after `earlier`, [later earlier]."""
    known = elements(group)
    number = {each: i for i, each in enumerate(known)}
    return np.array([[number[tuple(later[i] for i in earlier)] for earlier in known] for later in known])
