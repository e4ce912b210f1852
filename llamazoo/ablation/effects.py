"""Effects of factors: what one choice does over all choices of the others, and what two do together, over and above each alone.

Each seed ran the whole grid on its own data order, so each seed yields one estimate of each effect, by least squares on centred
codes, and these estimates are tested over seeds by the same paired t-test as variants are: every effect has its own error term,
with seeds - 1 degrees of freedom. Seeds are blocks in this (what they have in common cancels), and the population too. A residual
pooled over all cells and seeds would have many more degrees of freedom, but is only right where all cells vary alike and
independently (sphericity); runs that share first values and data orders do not, and the pooled test then finds what is not there
(Boik, Psychometrika 46 (1981) 241). Holm's correction and Bonferroni's intervals are over all effects of the outcome.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamazoo.ablation.findings import holm
from llamazoo.ablation.paired import paired_test
from llamazoo.ablation.results import Effect, Outcome
from llamazoo.errors import Problem, SpecError

__all__ = ["Cell", "effects"]

Array = NDArray[np.float64]
ROUNDING = 1e-9


@dataclass(frozen=True)
class Cell:
    """One run of a grid."""

    levels: dict[str, str]
    """The choice of each factor."""
    seed: int
    value: float | None
    """The outcome; None if the run diverged."""


@dataclass(frozen=True)
class Term:
    """An effect that the grid might tell: a factor's change to a choice, or two such changes together."""

    factors: tuple[str, ...]
    choices: tuple[str, ...]
    against: tuple[str, ...]
    column: Array  # [cell]

    @property
    def name(self) -> str:
        return " x ".join(f"{factor}={choice}" for factor, choice in zip(self.factors, self.choices, strict=True))


def effects(rows: Sequence[Cell], outcome: Outcome, *, alpha: float = 0.05) -> list[Effect]:
    """Main effects and two-way interactions of one outcome over a full or fractional grid.

    A main effect is the mean at the choice less the mean at the choice of the first row (the base's, if a cell is the base), over
    all choices of the others; an interaction is how much more the two changes do together than the sum of what each does alone (a
    difference of differences). Effects of three and more factors are taken to be none: in a full grid the others do not depend on
    it, in a fraction they do. `aliases` names the effects whose column in the model matrix depends on this one's: the estimate is
    of their sum or difference. Only seeds whose runs all finished count; with fewer than two of them there is nothing to test, and
    the list is empty. Raises SpecError for rows that are no grid, or a fraction that cannot tell one factor from another.
    """
    grid, seeds = _grid(rows)
    if len(seeds) < 2:
        return []
    terms, aliases = _estimable(_terms(grid))
    matrix = np.column_stack([np.ones(len(grid)), *(term.column for term in terms)])
    estimates = (np.linalg.pinv(matrix) @ np.asarray(list(seeds.values())).T)[1:]  # [term, seed]
    scale = max(abs(value) for values in seeds.values() for value in values)
    tests = [paired_test([float(x) for x in line], scale) for line in estimates]
    found = []
    for term, test, also, p in zip(terms, tests, aliases, holm([test.p for test in tests]), strict=True):
        low, high = test.interval(alpha / len(tests)) or (None, None)
        found.append(
            Effect(
                outcome=outcome,
                factors=list(term.factors),
                choices=list(term.choices),
                against=list(term.against),
                estimate=test.mean,
                low=low,
                high=high,
                p=test.p,
                p_adjusted=p,
                aliases=also,
            )
        )
    return found


def _grid(rows: Sequence[Cell]) -> tuple[list[dict[str, str]], dict[int, list[float]]]:
    """The cells in the order of their first rows, and of each seed that finished them all its values in that order."""
    if not rows or not rows[0].levels:
        raise _error("no factor in any row")
    names = set(rows[0].levels)
    cells: dict[tuple[tuple[str, str], ...], dict[int, float | None]] = {}
    for row in rows:
        if set(row.levels) != names:
            raise _error(f"a row has the factors {sorted(row.levels)}, the first one {sorted(names)}")
        if row.value is not None and not math.isfinite(row.value):
            raise _error(f"seed {row.seed} at {row.levels} has the value {row.value}; a run without a figure is None")
        of_seed = cells.setdefault(tuple((name, row.levels[name]) for name in rows[0].levels), {})
        if row.seed in of_seed:
            raise _error(f"seed {row.seed} at {row.levels} is given twice")
        of_seed[row.seed] = row.value
    seeds = {}
    for seed in sorted({row.seed for row in rows}):
        values = [cell.get(seed) for cell in cells.values()]
        if None not in values:
            seeds[seed] = [value for value in values if value is not None]
    return [dict(cell) for cell in cells], seeds


def _terms(grid: Sequence[dict[str, str]]) -> Iterator[Term]:
    """Main effects first. A choice's column is 1 where it was taken, less the share that a full grid gives it."""
    main: dict[str, list[Term]] = {}
    for factor in grid[0]:
        first, *others = dict.fromkeys(cell[factor] for cell in grid)
        if not others:
            raise _error(f"the factor {factor} is {first} in every row; a factor has two choices or more")
        main[factor] = []
        for choice in others:
            column = np.asarray([float(cell[factor] == choice) for cell in grid]) - 1 / (1 + len(others))
            main[factor].append(Term((factor,), (choice,), (first,), column))
    yield from itertools.chain.from_iterable(main.values())
    for one, two in itertools.combinations(main.values(), 2):
        for a, b in itertools.product(one, two):
            yield Term(a.factors + b.factors, a.choices + b.choices, a.against + b.against, a.column * b.column)


def _estimable(terms: Iterator[Term]) -> tuple[list[Term], list[list[str]]]:
    """The terms whose columns do not depend on those before them, and of each the names of those that depend on it."""
    kept: list[Term] = []
    aliases: list[list[str]] = []
    for term in terms:
        known = np.column_stack([np.ones(len(term.column)), *(other.column for other in kept)])
        weights = np.linalg.lstsq(known, term.column, rcond=None)[0]
        if np.abs(term.column - known @ weights).max() > ROUNDING:
            kept.append(term)
            aliases.append([])
            continue
        on = [number for number, weight in enumerate(weights[1:]) if abs(weight) > ROUNDING]
        if len(term.factors) == 1 or not on:
            told = " and ".join(kept[number].name for number in on) or "the mean"
            raise _error(f"{term.name} cannot be told from {told} by these cells; take a larger fraction")
        for number in on:
            aliases[number].append(term.name)
    return kept, aliases


def _error(message: str) -> SpecError:
    return SpecError(Problem(("factors",), message))
