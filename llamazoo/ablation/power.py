"""The power of the whole rule, t-test and noise floor, by integration; and the number of seeds that reaches a given power."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llamazoo.ablation.paired import sign_flip
from llamazoo.errors import Problem, SpecError

__all__ = ["Sensitivity", "power", "seeds_needed"]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(48)
REACH = 9.0  # standard deviations: beyond lies less than float64 tells
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Sensitivity:
    """What this number of seeds can show, and how many more it takes."""

    smallest: float
    """The smallest difference that matters."""
    target: float
    """The power that was asked for."""
    power: float | None
    """With the seeds there are; None where no spread is known."""
    needed: int | None
    """The seeds that reach the target; None where no spread is known, or no number that is worth a search does."""


def power(
    effect: float,
    spread: float,
    seeds: int,
    *,
    comparisons: int = 1,
    alpha: float = 0.05,
    noise: float = 0.0,
    noise_seeds: int | None = None,
) -> float:
    """The chance that a true mean difference `effect` is shown, in either direction, by this many seeds.

    spread is the standard deviation of one paired difference, noise that of one A/A difference (0: no A/A runs), of which there are
    noise_seeds (as many as seeds, unless given); effect, spread and noise are in the outcome's units. Shown means

        |mean| sqrt(n) > max(t(1 - alpha / 2m, n - 1) s_d, t(1 - alpha / 2, k) s_aa),

    Bonferroni's bound for m comparisons and the noise floor: a lower bound for Holm's procedure, which rejects whatever Bonferroni's does.
    For normal differences the mean and both spreads are independent, so the chance is one integral over the mean, of the product of
    two chi distributions; without A/A runs it is the noncentral t's. A/A runs that share the base's runs make them dependent, which
    raises the power by three points at most. Raises SpecError for numbers that cannot be.
    """
    _share("alpha", alpha)
    for name, value, least in (("effect", abs(effect), 0), ("spread", spread, 0), ("noise", noise, 0), ("comparisons", comparisons, 1)):
        _size(name, value, least)
    _size("seeds", seeds, 2)
    k = seeds if noise_seeds is None else noise_seeds
    each = alpha / comparisons
    floor = float(special.stdtrit(k, 1 - alpha / 2)) * noise if k > 0 else 0.0  # times sqrt(seeds)
    shift = abs(effect) * math.sqrt(seeds)
    if spread == 0:
        return float(_below(shift, floor, k)) if effect and sign_flip(seeds) < each else 0.0
    critical, shift, floor = float(special.stdtrit(seeds - 1, 1 - each / 2)), shift / spread, floor / spread

    def integrand(y: Array) -> Array:
        density = np.exp(-((y - shift) ** 2) / 2) + np.exp(-((y + shift) ** 2) / 2)
        return density / math.sqrt(2 * math.pi) * _below(y, critical, seeds - 1) * _below(y, floor, k)

    return min(1.0, _integral(integrand, _pieces(shift, (critical, seeds - 1), (floor, k))))


def seeds_needed(
    effect: float,
    spread: float,
    *,
    target: float = 0.8,
    comparisons: int = 1,
    alpha: float = 0.05,
    noise: float = 0.0,
    most: int = 10_000,
) -> int | None:
    """The smallest number of seeds, with an A/A run each, whose power is at least `target`; None if `most` are not enough."""
    _share("target", target)

    def enough(seeds: int) -> bool:
        return power(effect, spread, seeds, comparisons=comparisons, alpha=alpha, noise=noise) >= target

    few, many = 1, 2
    while not enough(many):
        if many == most:
            return None
        few, many = many, min(2 * many, most)
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many


def _below(y: float | Array, bound: float, df: int) -> Array | float:
    """P(bound S < y), where S^2 is chi-squared over its degrees of freedom; y >= 0."""
    return special.gammainc(df / 2, df / 2 * np.square(np.divide(y, bound))) if bound > 0 else 1.0


def _pieces(shift: float, *bounds: tuple[float, int]) -> list[float]:
    """Where to cut the integral, so that no piece hides a steep rise: around the mean, and around each bound as wide as its chi is."""
    cuts = [shift + step for step in (-REACH, -3.0, 0.0, 3.0, REACH)]
    for bound, df in bounds:
        if bound > 0:
            cuts += [bound * (1 + step / math.sqrt(2 * df)) for step in (-6.0, -2.0, 2.0, 6.0)]
    low, high = max(0.0, shift - REACH), shift + REACH
    return sorted({low, high, *(cut for cut in cuts if low < cut < high)})


def _integral(f: Callable[[Array], Array], cuts: list[float]) -> float:
    edges = np.asarray(cuts)
    half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
    return float((half * WEIGHTS * f(middle + half * NODES)).sum())


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise SpecError(Problem((name,), f"found {value}; must be between 0 and 1"))


def _size(name: str, value: float, least: float = 0) -> None:
    if not least <= value < math.inf:
        raise SpecError(Problem((name,), f"found {value}; must be {least:g} or more, and finite"))
