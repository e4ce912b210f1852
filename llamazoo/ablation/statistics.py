"""The verdicts of an ablation: which variants differ from the base, by numbers alone.

1. The unit is the seed: variant and base share its data order, and their difference is one observation (paired t-test).
2. All comparisons of an experiment, variants times declared outcomes, are one family: Holm's correction (Holm 1979).
3. Intervals are simultaneous: Bonferroni's, at 1 - alpha / m each. Holm rejects whatever they exclude zero from, and at times more.
4. Noise floor: A/A runs, the base again on the same data from other first values; it must be exceeded too (`noise_floor`).
5. better, worse: adjusted p < alpha and |mean| > floor. There is no win inside the noise.
6. no difference shown: else, if the rule had the power asked for to show the smallest difference that matters, or if the whole
   interval lies within that difference (equivalence: Schuirmann 1987; Lakens 2017), or if the variant computes the same as the base, to
   the last bit of all losses. Else: too few seeds, and how many would do. Figures that are merely equal (both at the ceiling) say
   nothing of how they vary: no power follows from them, only a bound on how often the two may differ.
7. unstable: the variant diverged where the base did not. No p, no place in the family; seeds in which the base diverged are left out.
8. Power is that of the whole rule for a difference named in advance, never for the one that was found (Hoenig & Heisey 2001).
9. Effect sizes are Hedges' g of the paired differences (Hedges 1981). Differences that do not vary are judged by `sign_flip`.
10. Normal differences are assumed; what follows where they are not, and what is not claimed, is in docs/statistics.md.

References: Holm, Scand. J. Statist. 6 (1979) 65. Hedges, J. Educ. Statist. 6 (1981) 107. Schuirmann, J. Pharmacokinet. Biopharm. 15
(1987) 657. Lakens, Front. Psychol. 4 (2013) 863; Soc. Psychol. Personal. Sci. 8 (2017) 355. Hoenig & Heisey, Am. Statist. 55 (2001) 19.
"""

from collections.abc import Mapping, Sequence

from llamazoo.ablation.findings import Finding, Paired, findings
from llamazoo.ablation.outcomes import SMALLEST, smallest_of
from llamazoo.ablation.paired import noise_spread
from llamazoo.ablation.power import Sensitivity, seeds_needed
from llamazoo.ablation.power import power as power_of
from llamazoo.ablation.results import Comparison, Outcome, Verdict
from llamazoo.ablation.sentences import sentence
from llamazoo.errors import Problem, SpecError

__all__ = ["compare"]


def compare(
    pairs: Sequence[Paired], *, alpha: float = 0.05, power: float = 0.8, smallest: float | Mapping[Outcome, float] = SMALLEST
) -> list[Comparison]:
    """Judges all comparisons of an experiment, as one family; see the module for the rule.

    Returns one comparison for each pair, in their order. `power` is what is asked for, `smallest` the smallest difference that
    matters: one number for all outcomes, or one by outcome (`loss` speaks for `loss@4x` too, `accuracy` for `accuracy:copying`).
    The intervals are Bonferroni's t-intervals, at alpha / m each: all of them together hold the true means with a chance of
    1 - alpha. Whatever they exclude zero from is significant; Holm's test, which has more power, may find more.
    Raises SpecError for shares that are not between 0 and 1, an outcome without a smallest difference, or one that is not positive.
    """
    if not 0 < power < 1:
        raise SpecError(Problem(("power",), f"found {power}; must be between 0 and 1"))
    least = [smallest_of(pair.outcome, smallest) for pair in pairs]
    found = findings(pairs, alpha=alpha)
    planned = max(1, sum(not pair.diverged for pair in pairs))
    return [_told(f, _sensitivity(f, size, alpha, power, planned), alpha) for f, size in zip(found, least, strict=True)]


def _sensitivity(finding: Finding, smallest: float, alpha: float, target: float, family: int) -> Sensitivity:
    """Power and seeds for the smallest difference that matters, with the spreads that were seen.

    None where all figures are equal to the base's: there is no spread that would say what seeds can show.
    Before there are two seeds the spread of A/A differences, if there are two, stands for that of the differences.
    """
    pair, test = finding.paired, finding.test
    noise = noise_spread(pair.noise) or 0.0
    if pair.diverged or (test.same if test else len(pair.noise) < 2):
        return Sensitivity(smallest, target, None, None)
    needed = seeds_needed(smallest, test.spread if test else noise, target=target, comparisons=family, alpha=alpha, noise=noise)
    if test is None:
        return Sensitivity(smallest, target, None, needed)
    reached = power_of(smallest, test.spread, test.seeds, comparisons=family, alpha=alpha, noise=noise, noise_seeds=len(pair.noise))
    return Sensitivity(smallest, target, reached, needed)


def _verdict(finding: Finding, able: Sensitivity) -> Verdict:
    pair, test = finding.paired, finding.test
    if pair.diverged:
        return "unstable"
    if test is None:
        return "too few seeds"
    if finding.shown:
        return "better" if (test.mean < 0) == (pair.better == "lower") else "worse"
    if finding.tied:
        return "too few seeds"
    if test.same or finding.within(able.smallest) or (able.power is not None and able.power >= able.target):
        return "no difference shown"
    return "too few seeds"


def _told(finding: Finding, able: Sensitivity, alpha: float) -> Comparison:
    pair, test = finding.paired, finding.test
    verdict = _verdict(finding, able)
    low, high = finding.interval or (None, None)
    return Comparison(
        outcome=pair.outcome,
        better=pair.better,
        differences=pair.finished,
        mean=_mean(finding),
        low=low,
        high=high,
        p=test.p if test else None,
        p_adjusted=finding.p_adjusted,
        effect=test.hedges_g if test and not finding.tied else None,
        noise=finding.floor,
        power=able.power,
        seeds_needed=able.needed,
        verdict=verdict,
        sentence=sentence(verdict, finding, able, alpha),
    )


def _mean(finding: Finding) -> float | None:
    """None for a variant that diverged: the seeds that it survived are the easy ones."""
    if finding.test:
        return finding.test.mean
    return finding.paired.finished[0] if finding.paired.finished and not finding.paired.diverged else None
