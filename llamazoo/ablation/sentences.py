"""A verdict in words, with the figures that it rests on."""

import math

from llamazoo.ablation.cautions import REMEDY
from llamazoo.ablation.findings import Finding, Paired
from llamazoo.ablation.outcomes import digits, sort_of
from llamazoo.ablation.paired import PairedTest
from llamazoo.ablation.power import Sensitivity
from llamazoo.ablation.results import Verdict

__all__ = ["p_value", "sentence"]


def sentence(verdict: Verdict, finding: Finding, able: Sensitivity, alpha: float) -> str:
    """One line that can stand alone: the verdict, the difference, its interval, p, the noise, the seeds, and what is special."""
    pair, test = finding.paired, finding.test
    if pair.diverged:
        middle = f"diverged in {pair.diverged} of the {_seeds(len(pair.differences) - pair.base_diverged)} in which the base did not"
    elif test is None:
        middle = _untested(finding, able)
    elif finding.tied:
        middle = _tied(finding, test, alpha)
    elif test.same:
        middle = f"the same as the base in {'both seeds' if test.seeds == 2 else f'all {_seeds(test.seeds)}'}"
    elif finding.shown:
        middle = f"{_moved(finding, test)} ({_figures(finding, test, alpha)}){_beside(finding, test, able)}"
    else:
        middle = f"{_signed(test.mean, finding)} ({_figures(finding, test, alpha)}){_why(verdict, finding, able)}"
    left_out = f"; the base diverged in {_seeds(pair.base_diverged)}, left out" if pair.base_diverged else ""
    return f"{verdict}: {middle}{left_out}{_guessed(pair)}"


def _tied(finding: Finding, test: PairedTest, alpha: float) -> str:
    """Why equal figures are no evidence: at an end of the scale there is no room for a difference, elsewhere it was not seen yet."""
    accuracy = sort_of(finding.paired.outcome) == "accuracy"
    ends: dict[float | None, str] = {0.0: "both at the floor (0)", 1.0: "both at the ceiling (1)"} if accuracy else {}
    what = ends.get(finding.paired.base_mean, "the same figure as the base")
    told = f"{what} in {'both seeds' if test.seeds == 2 else f'all {_seeds(test.seeds)}'}, though the two do not compute the same"
    corrected = " simultaneous" if finding.family > 1 else ""
    bound = f"{100 * finding.may_differ(alpha):.0f} % of seeds ({100 * (1 - alpha):g} %{corrected} bound)"
    return f"{told}; how they vary was not seen, and they may differ in up to {bound}"


def p_value(p: float) -> str:
    """As papers print it: `= 0.012`, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"= {p:#.2g}" if p < 0.995 else "= 1"


def _guessed(pair: Paired) -> str:
    return "" if pair.guessed is None else f"; neither is above chance ({pair.guessed:.3g}): {REMEDY}"


def _untested(finding: Finding, able: Sensitivity) -> str:
    pair = finding.paired
    if not pair.finished:
        return "no seed has this figure for both"
    needed = f"; going by the A/A runs, about {able.needed} fresh seeds would decide" if able.needed else ""
    return f"{_signed(pair.finished[0], finding)} in the one seed that there is, which says nothing of others{needed}"


def _moved(finding: Finding, test: PairedTest) -> str:
    base, places = finding.paired.base_mean, _told_places(finding)
    than = "" if base is None else f" than the base's {base:.{places}f}"
    return f"{abs(test.mean):.{places}f}{_unit(finding)} {'lower' if test.mean < 0 else 'higher'}{than}"


def _signed(mean: float, finding: Finding) -> str:
    return f"{_number(mean, _told_places(finding))}{_unit(finding)}"


def _figures(finding: Finding, test: PairedTest, alpha: float) -> str:
    return ", ".join(
        (
            _interval(finding, test, alpha),
            f"p {p_value(finding.p_adjusted or 0.0)}" + (f" after Holm over {finding.family}" if finding.family > 1 else ""),
            _noise(finding),
            _seeds(test.seeds),
        )
    )


def _noise(finding: Finding) -> str:
    if finding.floor is None:
        return "all A/A runs diverged" if finding.paired.noise_lost else "no A/A runs"
    return f"noise {finding.floor:#.2g}"


def _interval(finding: Finding, test: PairedTest, alpha: float) -> str:
    """Of the size of the difference where one is shown, which `lower` or `higher` tells the direction of; else of the difference."""
    if finding.interval is None:
        return "equal in all seeds, so p is of a sign-flip test and there is no interval"
    low, high = finding.interval
    places = _places(finding)
    simultaneous = "simultaneous " if finding.family > 1 else ""
    if finding.shown:
        low, high = (-high, -low) if test.mean < 0 else (low, high)
        ends = f"{_number(low, places, plus='')} to {_number(high, places, plus='')}"
    else:
        ends = f"{_number(low, places)} to {_number(high, places)}"
    return f"{100 * (1 - alpha):g} % {simultaneous}interval {ends}"


def _beside(finding: Finding, test: PairedTest, able: Sensitivity) -> str:
    wide = finding.interval is not None and finding.interval[0] <= 0 <= finding.interval[1]
    return ("; the interval is Bonferroni's, wider than Holm's test" if wide else "") + (
        f"; less than the {able.smallest:g} that matters" if abs(test.mean) < able.smallest else ""
    )


def _why(verdict: Verdict, finding: Finding, able: Sensitivity) -> str:
    unknown = finding.floor is None  # it was to be measured, or there would be nothing to be inside of
    noise = f"; significant, but {'nothing is known of the noise' if unknown else 'inside the noise'}" if finding.significant else ""
    if verdict == "no difference shown":
        if finding.within(able.smallest):
            return f"{noise}; equivalent: the interval lies within the {able.smallest:g} that matters"
        return f"{noise}; a difference of {able.smallest:g} would have been shown with a chance of {_percent(able)}"
    if able.needed is None:
        more = "more seeds than are worth a search"
    else:
        # Fresh, as more seeds added to those that did not decide would be a second look at the same data.
        more = f"about {able.needed} fresh seeds{', each with an A/A run,' if finding.paired.noise else ''} would decide"
    return f"{noise}; shows a difference of {able.smallest:g} with a chance of {_percent(able)} only; {more}"


def _percent(able: Sensitivity) -> str:
    share = 100 * (able.power or 0.0)
    return "over 99 %" if share > 99 else "under 1 %" if share < 1 else f"{share:.0f} %"


def _seeds(number: int) -> str:
    return f"{number} seed" if number == 1 else f"{number} seeds"


def _unit(finding: Finding) -> str:
    return " nats" if finding.paired.outcome.split("@")[0] == "loss" else ""


def _places(finding: Finding) -> int:
    """Decimals that give the interval's half width two digits; without an interval, the largest difference."""
    if finding.interval is not None:
        size = (finding.interval[1] - finding.interval[0]) / 2
    else:
        size = max(map(abs, finding.paired.finished), default=0.0)
    return min(9, max(0, 1 - math.floor(math.log10(size)))) if size > 0 else 3


def _told_places(finding: Finding) -> int:
    """Of the difference itself: no fewer than a table has, however wide the interval is."""
    return max(digits(finding.paired.outcome), _places(finding))


def _number(value: float, places: int, plus: str = "+") -> str:
    """With its sign, but none on a zero."""
    rounded = round(value, places) + 0.0
    return f"{rounded:{plus if rounded else ''}.{places}f}"
