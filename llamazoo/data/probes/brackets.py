"""A probe of nesting: which bracket closes."""

import functools
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from llamazoo.contract.options import Size
from llamazoo.data.draws import Purpose, draws
from llamazoo.data.example import IGNORED
from llamazoo.data.probes.probe import Probe, Tasks
from llamazoo.errors import Problem, SpecError

__all__ = ["Brackets"]

TOKENS = 32_768  # on which a rule is scored: to about a hundredth


class Brackets(Probe):
    """Well-nested brackets of several sorts. Suzgun et al. 2019 (arXiv 1911.03329); Hewitt et al. 2020 (arXiv 2010.07515), Dyck-(k, m).

    Where a bracket closes next, its sort is due; not where it was opened just before, for which no memory is needed.
    """

    source: Literal["brackets"] = "brackets"
    length: Annotated[Size, Field(ge=4)] = 64
    """Brackets of a task, an even number."""
    sorts: Annotated[Size, Field(ge=2)] = 8
    """Sorts of brackets: k."""
    depth: Annotated[Size, Field(ge=2)] = 8
    """How many may be open at once: m."""

    @model_validator(mode="after")
    def _closes(self) -> Self:
        if self.length % 2:
            raise SpecError(Problem(("length",), f"{self.length} is odd, and every bracket that opens closes"))
        return self

    @property
    def task_length(self) -> int:
        return self.length

    @property
    def ids(self) -> int:
        return 1 + 2 * self.sorts

    @property
    def chance(self) -> float:
        return 1 / self.sorts

    @property
    def shortcut(self) -> float:
        """Of the nearest opening that was not closed at once and is of a sort that opened more often than it closed."""
        return without_a_stack(self)

    def tasks(self, rng: np.random.Generator, count: int, *, validation: bool) -> Tasks:
        opens = rng.random((count, self.length)) < 0.5
        sorts = rng.integers(self.sorts, size=(count, self.length))
        drawn = [self._nested(*row) for row in zip(opens.tolist(), sorts.tolist(), strict=True)]
        tokens, targets = zip(*drawn, strict=True)
        return Tasks(np.array(tokens, dtype=np.int64), np.array(targets, dtype=np.int64))

    def _nested(self, opens: list[bool], sorts: list[int]) -> tuple[list[int], list[int]]:
        """One task, by a walk up and down that ends where it began."""
        tokens: list[int] = []
        targets = [IGNORED] * self.length
        stack: list[int] = []
        just_opened = False
        for at in range(self.length):
            room = len(stack) < self.depth and len(stack) < self.length - at
            if not stack or (room and opens[at]):
                stack.append(sorts[at])
                tokens.append(1 + sorts[at])
                just_opened = True
            else:
                closing = 1 + self.sorts + stack.pop()
                if not just_opened:
                    targets[at - 1] = closing
                tokens.append(closing)
                just_opened = False
        return tokens, targets


@functools.lru_cache(maxsize=8)
def without_a_stack(probe: Brackets) -> float:
    """The share that counters answer rightly, one for each sort, with the place where each was last opened and not closed at once."""
    drawn = probe.tasks(draws(0, Purpose.SHORTCUT_TASKS, 0), -(-TOKENS // probe.length), validation=True)
    right = due = 0
    for tokens, targets in zip(drawn.tokens.tolist(), drawn.targets.tolist(), strict=True):
        open_now, last = [0] * probe.sorts, [-1] * probe.sorts
        for at, (token, target) in enumerate(zip(tokens, targets, strict=True)):
            sort = (token - 1) % probe.sorts
            opened = token <= probe.sorts
            open_now[sort] += 1 if opened else -1
            if opened and tokens[at + 1] != token + probe.sorts:
                last[sort] = at
            if target != IGNORED:
                due += 1
                answer = max(range(probe.sorts), key=lambda sort: last[sort] if open_now[sort] > 0 else -1)
                right += 1 + probe.sorts + answer == target
    return right / due
