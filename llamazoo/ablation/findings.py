"""What the tests find: each comparison's t-test, Holm's correction over all of them, simultaneous intervals, noise floors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from llamazoo.ablation.paired import PairedTest, noise_floor, paired_test
from llamazoo.ablation.results import Outcome
from llamazoo.errors import Problem, SpecError
from llamazoo.extras import expected, optional

__all__ = ["Finding", "Paired", "findings", "holm"]

expected("statsmodels", "ablation")


@dataclass(frozen=True)
class Paired:
    """A variant and the base in one outcome: all that the verdict follows from."""

    variant: str
    outcome: Outcome
    better: Literal["lower", "higher"]
    differences: Sequence[float | None]
    """Variant less base, one a seed; None where either diverged."""
    noise: Sequence[float] = ()
    """A/A differences of this outcome, one for each seed in which both runs of the base finished."""
    noise_lost: int = 0
    """A/A pairs of which a run diverged. If all did, nothing is known of the noise, and nothing is shown to exceed it."""
    diverged: int = 0
    """Seeds in which the variant diverged and the base did not."""
    base_diverged: int = 0
    base_mean: float | None = None
    """The base's figure, averaged over seeds: the scale of rounding, and for the sentence."""
    guessed: float | None = None
    """What guessing comes to, if neither of the two is above it; for the sentence."""

    identical: bool = False
    """All losses of the two, in every seed and of all that was measured, are equal to the bit: they compute the same."""

    def __post_init__(self) -> None:
        for name in ("differences", "noise"):
            for seed, value in enumerate(getattr(self, name)):
                if value is not None and not math.isfinite(value):
                    raise self._error(name, f"found {value} for seed {seed}; a run without a figure is None")
        missing = list(self.differences).count(None)
        if min(self.diverged, self.base_diverged) < 0 or self.diverged + self.base_diverged > missing:
            raise self._error("diverged", f"{self.diverged} and of the base {self.base_diverged}, but {missing} seeds have no difference")

    def _error(self, field: str, message: str) -> SpecError:
        return SpecError(Problem((self.variant, self.outcome, field), message))

    @property
    def finished(self) -> list[float]:
        """The differences of the seeds that both finished."""
        return [d for d in self.differences if d is not None]


@dataclass(frozen=True)
class Finding:
    """What the tests say of one comparison, before any words."""

    paired: Paired
    test: PairedTest | None
    """None for fewer than two seeds, or a variant that diverged."""
    p_adjusted: float | None
    interval: tuple[float, float] | None
    floor: float | None
    family: int
    """How many comparisons were corrected for."""
    significant: bool
    outside_noise: bool

    @property
    def shown(self) -> bool:
        """It differs from the base: significantly, and by more than the noise."""
        return self.significant and self.outside_noise

    @property
    def tied(self) -> bool:
        """The figures are equal in all seeds, though the two do not compute the same: what they differ by was not seen."""
        return self.test is not None and self.test.same and not self.paired.identical

    def may_differ(self, alpha: float) -> float:
        """The share of seeds in which a tied pair may differ after all: with more, all these would be equal with less than alpha / m.

        1 - (alpha / m)^(1 / n), the exact bound (Clopper & Pearson 1934) of which 3 / n is the rule of thumb. Raises ValueError if untied.
        """
        if self.test is None or not self.tied:
            raise ValueError("only figures that are equal in all seeds have this bound")
        return float(1 - (alpha / self.family) ** (1 / self.test.seeds))

    def within(self, smallest: float) -> bool:
        """Equivalent to the base: the whole interval lies within the smallest difference that matters."""
        return self.interval is not None and max(map(abs, self.interval)) < smallest


def findings(pairs: Sequence[Paired], *, alpha: float = 0.05) -> list[Finding]:
    """The tests alone, for each pair in order: t, Holm's correction over all of them, simultaneous intervals, noise floors."""
    if not 0 < alpha < 1:
        raise SpecError(Problem(("alpha",), f"found {alpha}; must be between 0 and 1"))
    tests = [None if pair.diverged or len(pair.finished) < 2 else paired_test(pair.finished, scale=pair.base_mean or 0.0) for pair in pairs]
    family = sum(test is not None for test in tests)
    adjusted = iter(holm([test.p for test in tests if test]))
    found = []
    for pair, test in zip(pairs, tests, strict=True):
        p = next(adjusted) if test else None
        floor = noise_floor(pair.noise, len(pair.finished), alpha)
        found.append(
            Finding(
                paired=pair,
                test=test,
                p_adjusted=p,
                interval=test.interval(alpha / family) if test else None,
                floor=floor,
                family=family,
                significant=p is not None and p < alpha,
                outside_noise=test is not None and abs(test.mean) > (math.inf if floor is None and pair.noise_lost else floor or 0.0),
            )
        )
    return found


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    if len(ps) < 2:
        return list(ps)  # alone there is nothing to correct
    corrected = optional("statsmodels.stats.multitest", "ablation").multipletests(ps, method="holm")[1]
    return [float(p) for p in corrected]
