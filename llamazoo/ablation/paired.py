"""What one list of paired differences says: mean, spread, t-test, interval, effect size; and what A/A differences say of the noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from llamazoo.errors import Problem, SpecError

__all__ = ["PairedTest", "noise_floor", "noise_spread", "paired_test", "sign_flip"]

EXACT = 1e-9  # of the figures' size: what varies by less does not vary, or t would be made of rounding


@dataclass(frozen=True)
class PairedTest:
    """Two-sided, of the hypothesis that the mean over the population of seeds is zero."""

    seeds: int
    mean: float
    spread: float
    """The standard deviation of one difference; exactly 0 where differences agree to rounding."""
    p: float
    """By Student's t; where there is no spread, by the signs alone: see `sign_flip`."""

    @property
    def same(self) -> bool:
        """Every difference is zero, to rounding."""
        return self.mean == 0 == self.spread

    def interval(self, alpha: float) -> tuple[float, float] | None:
        """Student's interval of 1 - alpha for the mean; None where no spread was seen that it could be made of."""
        if self.spread == 0:
            return None
        half = float(special.stdtrit(self.seeds - 1, 1 - alpha / 2)) * self.spread / math.sqrt(self.seeds)
        return self.mean - half, self.mean + half

    @property
    def hedges_g(self) -> float | None:
        """Mean over spread, corrected for few seeds (Hedges 1981, eq. 6e); None for two seeds, which the correction leaves nothing of."""
        if self.same:
            return 0.0
        if self.spread == 0 or self.seeds < 3:
            return None
        df = self.seeds - 1
        return self.mean / self.spread * math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)


def paired_test(differences: Sequence[float], scale: float = 0.0) -> PairedTest:
    """The test of at least two differences; `scale` is the size of the figures that were subtracted, whose rounding is no spread.

    It does not depend on the order of the seeds, to the last bit. Raises SpecError for fewer than two, or what is not finite.
    """
    if len(differences) < 2 or not all(map(math.isfinite, differences)):
        raise SpecError(Problem(("differences",), f"found {list(differences)}; a paired test takes two finite numbers or more"))
    n, rounding = len(differences), EXACT * max(abs(scale), *map(abs, differences))
    mean = math.fsum(differences) / n
    spread = math.sqrt(math.fsum((d - mean) ** 2 for d in differences) / (n - 1))
    if spread <= rounding:
        return PairedTest(n, 0.0, 0.0, 1.0) if abs(mean) <= rounding else PairedTest(n, mean, 0.0, sign_flip(n))
    return PairedTest(n, mean, spread, float(2 * special.stdtr(n - 1, -abs(mean) / spread * math.sqrt(n))))


def sign_flip(seeds: int) -> float:
    """The p-value of differences that all agree: with no spread, t would be infinite, and only the signs are evidence.

    If the two did not differ, each seed's sign would be a coin's, and all would fall alike with this chance. It is the
    smallest that a sign-flip test (Fisher 1935) can give, so a constant difference needs six seeds to be shown at 5 %.
    """
    return 2.0 ** (1 - seeds)


def noise_spread(noise: Sequence[float]) -> float | None:
    """The standard deviation of A/A differences about zero, which is their mean by symmetry; None if there are none."""
    return float(np.sqrt(np.mean(np.square(np.sort(noise))))) if len(noise) else None


def noise_floor(noise: Sequence[float], seeds: int, alpha: float) -> float | None:
    """What a mean over seeds must exceed to be more than two runs of the base differ by; None without A/A differences.

    t(1 - alpha / 2, k) s / sqrt(seeds), where s is the root mean square of the k A/A differences: as zero is known to be
    their mean, none of the k degrees of freedom is spent. Uncorrected for many comparisons, as it only ever takes wins away.
    """
    spread = noise_spread(noise)
    if spread is None or seeds < 1:
        return None
    return float(special.stdtrit(len(noise), 1 - alpha / 2)) * spread / math.sqrt(seeds)
