"""The verdicts of an ablation: how often they are wrong where nothing differs, how often they find what does, and every edge."""

import gc
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import statsmodels.api
from scipy import integrate, special, stats

from llamazoo.ablation.effects import Cell, effects
from llamazoo.ablation.experiment import read_experiment
from llamazoo.ablation.findings import Paired, findings, holm
from llamazoo.ablation.paired import noise_floor, noise_spread, paired_test, sign_flip
from llamazoo.ablation.plan import choose
from llamazoo.ablation.power import power, seeds_needed
from llamazoo.ablation.results import Comparison, Run
from llamazoo.ablation.statistics import compare
from llamazoo.errors import SpecError

PAGE = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text()
EXPERIMENTS = 2_000
Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
DRAWS: dict[str, Draw] = {
    "normal": lambda g, shape: g.standard_normal(shape),
    "heavy-tailed": lambda g, shape: g.standard_t(5, shape),
    "skewed": lambda g, shape: g.standard_exponential(shape),
}


@pytest.fixture(autouse=True, scope="module")
def nothing_old_to_collect() -> Iterator[None]:
    """statsmodels collects garbage at each correction, which with all that a test run has loaded takes a tenth of a second."""
    gc.freeze()
    yield
    gc.unfreeze()


def paired(differences: Sequence[float | None], noise: Sequence[float] = (), **more: Any) -> Paired:
    given = {"variant": "v", "outcome": "loss", "better": "lower", "noise": [float(x) for x in noise]} | more
    return Paired(differences=[None if d is None else float(d) for d in differences], **given)


def one(differences: Sequence[float | None], noise: Sequence[float] = (), **more: Any) -> Comparison:
    keywords = {key: more.pop(key) for key in ("alpha", "power", "smallest") if key in more}
    (comparison,) = compare([paired(differences, noise, **more)], **keywords)
    return comparison


def experiment(g: np.random.Generator, draw: Draw, variants: int, seeds: int, effect: float = 0.0, noisy: bool = True) -> list[Paired]:
    """Losses as a trainer makes them: seeds differ, all variants share the base's runs, and A/A runs share them too."""
    of_seed = 3 * g.standard_normal(seeds)
    base, again, *others = of_seed + draw(g, (2 + variants, seeds))
    return [paired(run + effect - base, again - base if noisy else (), variant=f"v{n}") for n, run in enumerate(others)]


# Where nothing differs


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("noisy", [True, False], ids=["with A/A runs", "without"])
@pytest.mark.parametrize("draw", DRAWS)
def test_at_most_one_in_fifteen_experiments_without_a_difference_declares_one(draw: str, noisy: bool, seeds: int) -> None:
    g = np.random.default_rng(seeds)
    declared = sum(any(f.shown for f in findings(experiment(g, DRAWS[draw], 3, seeds, noisy=noisy))) for _ in range(EXPERIMENTS))
    assert declared <= 0.065 * EXPERIMENTS


@pytest.mark.parametrize("delta", [0.0, 1.0])
@pytest.mark.parametrize("noisy", [True, False], ids=["with A/A runs", "without"])
def test_choosing_the_learning_rate_declares_no_more(noisy: bool, delta: float) -> None:
    """A variant that is the base again; of three rates two are worse by delta standard deviations, and each model has to find out."""
    g, seeds, rates, declared = np.random.default_rng(7), 10, (1e-3, 2e-3, 4e-3), 0
    experiments = 1_000
    given = {"variants": {"v": {"norm.eps": 0.1}}, "train": {"tokens": 4096, "lr": list(rates)}, "seeds": seeds, "match": "none"}
    asked = read_experiment({"base": "llama-tiny", "data": {"source": "stdlib"}, **given})
    worse = delta * np.asarray([1.0, 0.0, 1.0])
    for _ in range(experiments):
        trials, runs = (5 + worse[:, None] + g.standard_normal((3, 3, seeds)) for _ in range(2))  # base, variant, base again
        tuned = [
            Run(variant=name, role="tuning", seed=seed, lr=lr, tokens=1, outcomes={"loss": trials[m, r, seed]}, curve=[])
            for m, name in enumerate(("base", "v"))
            for r, lr in enumerate(rates)
            for seed in range(seeds)
        ]
        taken = {name: [rates.index(lr) for lr in choice.by_seed.values()] for name, choice in choose(asked, tuned).items()}
        base, variant = (runs[m, taken[name], range(seeds)] for m, name in enumerate(("base", "v")))
        again = runs[2, taken["base"], range(seeds)]
        declared += findings([paired(variant - base, again - base if noisy else ())])[0].shown
    assert declared <= 0.065 * experiments


def test_nothing_exceeds_a_noise_that_could_not_be_measured() -> None:
    far = [1.0, 1.1, 0.9, 1.05, 1.0]
    assert one(far).verdict == "worse"
    lost = one(far, noise_lost=5)
    assert lost.verdict == "too few seeds"
    assert "all A/A runs diverged" in lost.sentence
    assert "significant, but nothing is known of the noise" in lost.sentence
    assert one(far, [0.01], noise_lost=4).verdict == "worse"


def test_verdicts_say_what_the_tests_found() -> None:
    g, said = np.random.default_rng(0), Counter[str]()
    for effect in (-3.0, 0.0, 3.0):
        for _ in range(40):
            pairs = experiment(g, DRAWS["normal"], 3, 5, effect)
            for found, comparison in zip(findings(pairs), compare(pairs, smallest=2.0), strict=True):
                assert found.shown == (comparison.verdict in ("better", "worse"))
                assert comparison.sentence.startswith(comparison.verdict + ": ")
                said[comparison.verdict] += 1
    assert set(said) == {"better", "worse", "too few seeds", "no difference shown"}


def test_the_intervals_hold_all_true_means_at_once() -> None:
    g = np.random.default_rng(1)
    missed = 0
    for _ in range(EXPERIMENTS):
        ends = [f.interval for f in findings(experiment(g, DRAWS["normal"], 3, 5, effect=0.7))]
        missed += any(not low < 0.7 < high for low, high in ends)
    assert missed <= 0.065 * EXPERIMENTS


@pytest.mark.parametrize(("seeds", "chance"), [(3, 0.3), (5, 0.6), (10, 0.8), (30, 0.85)])
def test_no_difference_shown_is_seldom_said_of_a_difference_that_matters(seeds: int, chance: float) -> None:
    spread = spread_for(chance, seeds)
    g, times = np.random.default_rng(seeds), 400
    said = Counter(one(line, smallest=1.0).verdict for line in 1 + spread * g.standard_normal((times, seeds)))
    assert said["no difference shown"] <= {3: 0.05, 5: 0.07, 10: 0.09, 30: 0.12}[seeds] * times  # at most 1 - power, however many seeds
    assert said["better"] <= 0.03 * times


CEILING = {"outcome": "accuracy:recall", "better": "higher", "base_mean": 1.0}


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_a_variant_that_fails_now_and_then_is_seldom_said_to_be_as_good_as_a_base_that_never_does(seeds: int) -> None:
    """The base answers all, the variant four fifths in one of ten seeds: a difference of 0.02, which is what matters."""
    fails = np.random.default_rng(seeds).random((500, seeds)) < 0.1
    said = Counter(one(np.where(line, -0.2, 0.0), [0.0] * seeds, **CEILING).verdict for line in fails)
    assert said["no difference shown"] <= 0.06 * 500
    assert said["too few seeds"] >= 0.9 * 500


# A row of docs/statistics.md: how often a seed's accuracy is 0.25 lower, what runs vary by otherwise, how many experiments err.
TWO_GROUPS = re.findall(r"^\| (\d+) % of seeds, ([\d.]+) \| (\d+) % \| (\d+) % \| (\d+) % \| (\d+) % \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("row", TWO_GROUPS, ids=" ".join)
def test_the_page_says_how_often_figures_in_two_groups_are_called_different(row: tuple[str, ...]) -> None:
    """The variant's mean is the base's; there are A/A runs."""
    g, share, spread = np.random.default_rng(1), int(row[0]) / 100, float(row[1])
    for seeds, told in zip((3, 5, 10, 20), row[2:], strict=True):
        base, again, variant = spread * g.standard_normal((3, EXPERIMENTS, seeds))
        variant += np.where(g.random(variant.shape) < share, -0.25, 0.0) + 0.25 * share
        lines = zip(variant - base, again - base, strict=True)
        declared = sum(findings([paired(line, noise, **CEILING)])[0].shown for line, noise in lines)
        assert declared / EXPERIMENTS == pytest.approx(int(told) / 100, abs=0.03)


def test_the_page_has_rows_of_figures_in_two_groups() -> None:
    assert len(TWO_GROUPS) == 4


# Where something does


def spread_for(chance: float, seeds: int, comparisons: int = 1, noise: float = 0.0) -> float:
    """The spread with which a difference of 1 is shown with that chance; noise is a multiple of it."""
    few, many = 0.01, 100.0
    for _ in range(60):
        middle = math.sqrt(few * many)
        enough = power(1, middle, seeds, comparisons=comparisons, noise=noise * middle) > chance
        few, many = (middle, many) if enough else (few, middle)
    return few


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("seeds", "chance"), [(3, 0.8), (5, 0.3), (5, 0.8), (10, 0.5), (10, 0.9), (30, 0.8)])
def test_a_difference_is_found_as_often_as_the_power_says(seeds: int, chance: float, noise: float) -> None:
    spread = spread_for(chance, seeds, noise=noise)
    g = np.random.default_rng(round(100 * chance) + seeds)
    differences = 1 + spread * g.standard_normal((EXPERIMENTS, seeds))
    aa = noise * spread * g.standard_normal((EXPERIMENTS, seeds))
    found = sum(findings([paired(d, a if noise else ())])[0].shown for d, a in zip(differences, aa, strict=True))
    assert found / EXPERIMENTS == pytest.approx(chance, abs=0.03)


@pytest.mark.parametrize(("variants", "seeds", "chance"), [(1, 5, 0.8), (3, 3, 0.5), (3, 5, 0.8), (8, 10, 0.8)])
def test_one_of_many_is_found_at_least_as_often_as_the_power_says_though_all_share_the_base(
    variants: int, seeds: int, chance: float
) -> None:
    spread = spread_for(chance, seeds, variants, noise=1.0)
    g = np.random.default_rng(variants)
    effect = math.sqrt(2) / spread  # of differences of two runs that each vary by 1
    found = sum(findings(experiment(g, DRAWS["normal"], variants, seeds, effect))[0].shown for _ in range(EXPERIMENTS))
    assert found / EXPERIMENTS >= chance - 0.03


@pytest.mark.parametrize("seeds", [2, 3, 5, 30, 1000])
@pytest.mark.parametrize("comparisons", [1, 4])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.7, 3.0, -0.7])
def test_power_without_noise_is_that_of_the_noncentral_t(effect: float, comparisons: int, seeds: int) -> None:
    t = stats.t.isf(0.025 / comparisons, seeds - 1)
    shift = abs(effect) * math.sqrt(seeds)
    other_tail = np.nan_to_num(stats.nct.cdf(-t, seeds - 1, shift))  # nan where float64 holds nothing so small
    expected = stats.nct.sf(t, seeds - 1, shift) + other_tail
    assert power(effect, 1.0, seeds, comparisons=comparisons) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("seeds", "k", "noise"), [(2, 2, 0.3), (3, 5, 2.0), (5, 5, 1.0), (5, 1, 0.1), (40, 40, 1.5), (3000, 3000, 1.0)])
def test_power_with_noise_is_what_an_adaptive_integral_gives(seeds: int, k: int, noise: float) -> None:
    t, c = special.stdtrit(seeds - 1, 0.975), special.stdtrit(k, 0.975) * noise
    shift = max(t, c)

    def integrand(y: float) -> float:
        density = stats.norm.pdf(y - shift) + stats.norm.pdf(y + shift)
        return density * stats.chi2.cdf((seeds - 1) * (y / t) ** 2, seeds - 1) * stats.chi2.cdf(k * (y / c) ** 2, k)

    expected, _ = integrate.quad(integrand, max(0, shift - 9), shift + 9, points=[t, c, shift], limit=200)
    found = power(shift / math.sqrt(seeds), 1.0, seeds, noise=noise, noise_seeds=k)
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 50.0])
def test_power_has_no_units(scale: float) -> None:
    assert power(0.3 * scale, scale, 7, noise=0.4 * scale) == pytest.approx(power(0.3, 1, 7, noise=0.4), rel=1e-9)


@pytest.mark.parametrize(
    ("effect", "spread", "noise", "comparisons"),
    [(1.0, 0.2, 0.0, 1), (1.0, 1.0, 0.0, 1), (1.0, 1.0, 1.0, 3), (0.01, 0.02, 0.03, 6), (0.1, 1.0, 0.0, 1), (0.1, 1.0, 1.0, 3)],
)
def test_the_seeds_that_are_needed_have_the_power_and_one_less_has_not(
    effect: float, spread: float, noise: float, comparisons: int
) -> None:
    n = seeds_needed(effect, spread, noise=noise, comparisons=comparisons)
    assert n is not None
    assert power(effect, spread, n, noise=noise, comparisons=comparisons) >= 0.8
    assert n == 2 or power(effect, spread, n - 1, noise=noise, comparisons=comparisons) < 0.8


def test_power_grows_with_seeds_so_that_the_search_is_right() -> None:
    for spread, noise, comparisons in itertools.product((0.3, 1.0, 4.0), (0.0, 0.5, 3.0), (1, 10)):
        curve = np.asarray([power(1.0, spread, n, noise=noise, comparisons=comparisons) for n in range(2, 80)])
        able = curve[np.argmax(curve > 0.1) :]  # below, where chance finds as much, two seeds may have more than three
        assert np.diff(able).min() > -1e-9


def test_the_seeds_that_are_needed_find_it() -> None:
    n = seeds_needed(1.0, 1.2, noise=0.9)
    assert n == 14
    g = np.random.default_rng(5)
    for seeds, least, most in ((n, 0.78, 1.0), (n - 3, 0.0, 0.78)):
        draws = zip(g.standard_normal((EXPERIMENTS, seeds)), g.standard_normal((EXPERIMENTS, seeds)), strict=True)
        found = sum(findings([paired(1 + 1.2 * d, 0.9 * a)])[0].shown for d, a in draws) / EXPERIMENTS
        assert least <= found <= most


def test_no_number_of_seeds_is_named_past_what_is_worth_a_search() -> None:
    assert seeds_needed(1e-6, 1.0) is None
    assert one([0.5, -0.5, 0.4], smallest=1e-6).sentence.endswith("; more seeds than are worth a search")


# The figures


def test_p_agrees_with_scipy() -> None:
    differences = np.random.default_rng(0).standard_normal((20, 6))
    for line in differences:
        expected = stats.ttest_1samp(line, 0.0)
        found = one(line)
        interval = expected.confidence_interval(0.95)
        assert (found.p, found.low, found.high) == pytest.approx((expected.pvalue, interval.low, interval.high), rel=1e-10)
        assert found.mean == pytest.approx(line.mean())


def test_holm_agrees_with_a_calculation_by_hand() -> None:
    # In order: 0.01 x 4, 0.02 x 3, 0.03 x 2 (as much as before), 0.5 x 1.
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.6, 0.6]) == [1.0, 1.0]
    assert holm([]) == []


def test_all_variants_and_outcomes_are_one_family() -> None:
    lines = np.random.default_rng(3).normal(0.5, 1, (4, 5))
    pairs = [paired(line, outcome=o, variant=v) for line, (v, o) in zip(lines, itertools.product("ab", ["loss", "loss@4x"]), strict=True)]
    found = compare(pairs)
    assert [c.p_adjusted for c in found] == pytest.approx(holm([stats.ttest_1samp(line, 0).pvalue for line in lines]))
    half = stats.t.isf(0.05 / 8, 4) * lines[0].std(ddof=1) / math.sqrt(5)
    assert (found[0].low, found[0].high) == pytest.approx((lines[0].mean() - half, lines[0].mean() + half))


def test_whatever_a_simultaneous_interval_excludes_zero_from_is_significant() -> None:
    g, excluded = np.random.default_rng(4), 0
    for _ in range(300):
        for f in findings(experiment(g, DRAWS["normal"], 4, 5, effect=2.0)):
            clear = f.interval is not None and not f.interval[0] <= 0 <= f.interval[1]
            assert f.significant or not clear
            excluded += clear
    assert excluded > 100


def test_the_effect_size_is_hedges_g_of_the_differences() -> None:
    line = [0.1, 0.4, 0.3, 0.2, 0.6]
    correction = special.gamma(2) / (math.sqrt(2) * special.gamma(1.5))
    assert one(line).effect == pytest.approx(np.mean(line) / np.std(line, ddof=1) * correction)
    assert correction == pytest.approx(1 - 3 / (4 * 4 - 1), abs=0.01)
    assert one([0.1, 0.2]).effect is None


def test_the_noise_floor_is_of_the_root_mean_square_with_all_its_degrees_of_freedom() -> None:
    assert noise_spread([3.0, -4.0]) == pytest.approx(math.sqrt(12.5))
    assert noise_floor([3.0, -4.0], 5, 0.05) == pytest.approx(stats.t.isf(0.025, 2) * math.sqrt(12.5 / 5))
    assert noise_floor([], 5, 0.05) is None


def test_the_mean_of_two_runs_of_the_base_exceeds_the_floor_as_often_as_it_should() -> None:
    g = np.random.default_rng(6)
    for seeds in (3, 5):
        means = g.standard_normal((EXPERIMENTS, seeds)).mean(1)
        floors = [noise_floor(line, seeds, 0.05) for line in g.standard_normal((EXPERIMENTS, seeds))]
        assert np.mean(abs(means) > floors) == pytest.approx(0.05, abs=0.015)


def test_the_order_of_seeds_changes_nothing() -> None:
    g = np.random.default_rng(7)
    line, noise = g.normal(0.02, 0.01, 9), g.normal(0, 0.01, 9)
    found = one(line, noise)
    for _ in range(20):
        again = one(g.permutation(line), g.permutation(noise))
        assert again.model_dump(exclude={"differences"}) == found.model_dump(exclude={"differences"})


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.2])
def test_a_mirrored_experiment_has_the_mirrored_verdict(shift: float) -> None:
    g = np.random.default_rng(8)
    line, noise = g.normal(shift, 0.03, 6), g.normal(0, 0.01, 6)
    found, mirrored, other = one(line, noise), one(-line, noise), one(-line, noise, better="higher", outcome="accuracy", smallest=0.01)
    assert (mirrored.mean, mirrored.low, mirrored.high, mirrored.p) == (-found.mean, -found.high, -found.low, found.p)
    turned = {"better": "worse", "worse": "better"}
    assert mirrored.verdict == turned.get(found.verdict, found.verdict)
    assert other.verdict == found.verdict


# Verdicts


STEADY = (-0.051, -0.040, -0.046, -0.038, -0.043)
AA = (0.006, -0.005, 0.004, -0.007, 0.003)


def test_a_win_is_told_with_its_figures() -> None:
    assert one(STEADY, AA, base_mean=3.5123).sentence == (
        "better: 0.0436 nats lower than the base's 3.5123 (95 % interval 0.0372 to 0.0500, p < 0.001, noise 0.0060, 5 seeds)"
    )
    assert one(STEADY, better="higher", outcome="accuracy").sentence == (
        "worse: 0.0436 lower (95 % interval 0.0372 to 0.0500, p < 0.001, no A/A runs, 5 seeds)"
    )


def test_a_difference_inside_the_noise_is_no_win_however_significant() -> None:
    loud = [10 * a for a in AA]
    found = one(STEADY, loud)
    assert found.p < 0.001
    assert abs(found.mean) < found.noise
    assert found.verdict == "too few seeds"
    assert "; significant, but inside the noise; shows a difference of 0.01 with a chance of" in found.sentence
    assert one(STEADY, loud, smallest=0.1).verdict == "no difference shown"
    assert "; significant, but inside the noise; equivalent" in one(STEADY, loud, smallest=0.06).sentence
    assert one(STEADY, AA).verdict == "better"


def test_a_win_that_does_not_matter_says_so() -> None:
    found = one([d / 10 for d in STEADY], [a / 10 for a in AA])
    assert found.verdict == "better"
    assert found.sentence.endswith("; less than the 0.01 that matters")


def test_where_holm_finds_more_than_the_interval_shows_the_sentence_says_why() -> None:
    others = [paired([d + 0.3 for d in STEADY], variant=f"v{n}") for n in range(4)]
    spread = [0.02 + x for x in (-0.013, 0.013, 0.006, -0.006, 0.0)]
    found = compare([*others, paired(spread)])[-1]
    assert found.verdict == "worse"
    assert found.low < 0 < found.p_adjusted < 0.05
    assert found.sentence.endswith("; the interval is Bonferroni's, wider than Holm's test")


def test_a_small_interval_is_equivalence_and_a_wide_one_needs_seeds() -> None:
    around = (0.001, -0.002, 0.0015, -0.0005, 0.0004)
    assert one(around, AA).verdict == "no difference shown"
    assert one(around, AA).sentence.endswith("; equivalent: the interval lies within the 0.01 that matters")
    wide = one([20 * d for d in around], AA)
    assert wide.verdict == "too few seeds"
    assert wide.power < 0.8
    assert wide.seeds_needed == seeds_needed(0.01, float(np.std(around, ddof=1)) * 20, noise=noise_spread(AA))
    assert wide.sentence.endswith(f"; about {wide.seeds_needed} fresh seeds, each with an A/A run, would decide")


def test_the_power_is_that_of_the_seeds_and_the_noise_that_there_are() -> None:
    line = (0.03, -0.02, 0.01, -0.01, 0.02)
    spread, noise = float(np.std(line, ddof=1)), noise_spread(STEADY[:2])
    found = one(line, STEADY[:2], smallest=0.05)
    assert found.power == pytest.approx(power(0.05, spread, 5, noise=noise, noise_seeds=2))
    assert found.power != pytest.approx(power(0.05, spread, 5, noise=noise), abs=1e-3)


def test_enough_power_without_a_finding_is_no_difference_shown() -> None:
    found = one((0.010, 0.002, -0.001, 0.009, 0.006), smallest=0.01)
    assert found.verdict == "no difference shown"
    assert found.high > 0.01
    assert found.sentence.endswith("; a difference of 0.01 would have been shown with a chance of 94 %")


def test_equal_figures_are_no_difference_and_have_no_interval() -> None:
    found = one([0.0, 0.0, 0.0], AA, identical=True)
    assert (found.verdict, found.mean, found.p, found.effect) == ("no difference shown", 0.0, 1.0, 0.0)
    assert (found.low, found.high, found.power, found.seeds_needed) == (None, None, None, None)
    assert found.sentence == "no difference shown: the same as the base in all 3 seeds"
    assert one([0.0, 0.0], identical=True).sentence == "no difference shown: the same as the base in both seeds"


def test_a_difference_has_no_fewer_digits_than_a_table_however_wide_its_interval_is() -> None:
    wide = one([-0.1, 0.039], AA)
    assert "too few seeds: -0.0305 nats (95 % interval -0.91 to +0.85, " in wide.sentence
    shown = one([1.31, 1.40, 1.33], AA, base_mean=4.14)
    assert shown.sentence.startswith("worse: 1.3467 nats higher than the base's 4.1400 (95 % interval 1.23 to 1.46, ")
    assert "+0.020 in the one seed" in one([0.02], outcome="accuracy").sentence


def test_what_neither_learned_is_told_with_the_verdict() -> None:
    found = one([0.0, 0.0], outcome="accuracy:recall", better="higher", guessed=1 / 64, identical=True).sentence
    assert found.endswith("the same as the base in both seeds; neither is above chance (0.0156): train longer, or make the probe easier")


def test_figures_that_are_merely_equal_tell_how_often_they_may_differ_and_no_number_of_seeds() -> None:
    found = one([0.0] * 5, [0.0] * 5, **CEILING)
    assert (found.verdict, found.mean, found.p, found.effect) == ("too few seeds", 0.0, 1.0, None)
    assert (found.low, found.high, found.power, found.seeds_needed) == (None, None, None, None)
    assert found.sentence == (
        "too few seeds: both at the ceiling (1) in all 5 seeds, though the two do not compute the same; how they vary was not seen, "
        "and they may differ in up to 45 % of seeds (95 % bound)"
    )
    assert "both at the floor (0) in both seeds," in one([0.0, 0.0], **CEILING | {"base_mean": 0.0}).sentence
    half = compare([paired([0.0] * 3, **CEILING | {"base_mean": 0.5}), paired(STEADY)])[0].sentence
    assert "the same figure as the base in all 3 seeds" in half
    assert half.endswith("in up to 71 % of seeds (95 % simultaneous bound)")


@pytest.mark.parametrize("seeds", [2, 5, 30])
def test_as_many_equal_seeds_as_there_are_come_with_the_chance_that_the_bound_leaves(seeds: int) -> None:
    (found,) = findings([paired([0.0] * seeds)])
    assert (1 - found.may_differ(0.05)) ** seeds == pytest.approx(0.05)
    assert found.may_differ(0.05) < 3 / seeds
    with pytest.raises(ValueError, match="only figures that are equal in all seeds have this bound"):
        findings([paired([0.0] * seeds, identical=True)])[0].may_differ(0.05)


def test_rounding_is_no_spread() -> None:
    assert one([1e-16, 0.0, -1e-16], base_mean=3.5, identical=True).verdict == "no difference shown"
    assert one([1e-16, 0.0, -1e-16], base_mean=3.5).p == 1.0
    assert one([0.1 + 0.2 - 0.3, 0.0, 0.0], base_mean=0.3).p == 1.0
    assert one([0.3, 0.1 + 0.2, 0.3]).p == sign_flip(3)


@pytest.mark.parametrize(("seeds", "verdict"), [(2, "too few seeds"), (5, "too few seeds"), (6, "worse"), (9, "worse")])
def test_a_constant_difference_is_judged_by_its_signs(seeds: int, verdict: str) -> None:
    found = one([0.25] * seeds)
    assert found.verdict == verdict
    assert found.p == 2.0 ** (1 - seeds)
    assert found.p == pytest.approx(stats.binomtest(seeds, seeds).pvalue)
    assert (found.low, found.high, found.effect) == (None, None, None)
    assert found.seeds_needed == 6
    assert "no interval" in found.sentence
    assert one([0.25] * 9, [2.0, -1.0, 0.5]).verdict != "worse"


def test_one_seed_says_nothing_but_how_many_would() -> None:
    found = one([0.3], AA)
    assert (found.verdict, found.mean, found.p, found.low) == ("too few seeds", 0.3, None, None)
    assert found.seeds_needed == seeds_needed(0.01, noise_spread(AA), noise=noise_spread(AA))
    assert f"going by the A/A runs, about {found.seeds_needed} fresh seeds would decide" in found.sentence
    assert one([0.3], [0.1]).seeds_needed is None


@pytest.mark.parametrize("differences", [[], [None, None]])
def test_no_seed_is_too_few(differences: list[None]) -> None:
    found = one(differences)
    assert (found.verdict, found.mean, found.p, found.p_adjusted) == ("too few seeds", None, None, None)
    assert found.sentence == "too few seeds: no seed has this figure for both"


def test_a_variant_that_diverges_alone_is_unstable_and_in_no_family() -> None:
    torn = paired([None, *STEADY[1:]], AA, diverged=1)
    found, other = compare([torn, paired(STEADY, AA)])
    assert (found.verdict, found.p, found.p_adjusted, found.mean) == ("unstable", None, None, None)
    assert found.sentence == "unstable: diverged in 1 of the 5 seeds in which the base did not"
    assert other.p_adjusted == other.p
    assert found.differences == list(STEADY[1:])


def test_seeds_in_which_the_base_diverged_are_left_out_and_told() -> None:
    found = one([None, *STEADY], AA, base_diverged=1)
    assert found.differences == list(STEADY)
    assert (found.p, found.verdict) == (one(STEADY, AA).p, "better")
    assert found.sentence.endswith("; the base diverged in 1 seed, left out")


@pytest.mark.parametrize(
    ("outcome", "smallest", "matters"),
    [("loss@4x", {"loss": 0.5}, "0.5"), ("accuracy:copying", {"accuracy": 0.1, "accuracy:copying": 0.3}, "0.3"), ("loss", 0.7, "0.7")],
)
def test_the_smallest_difference_goes_by_outcome(outcome: str, smallest: Any, matters: str) -> None:
    assert f"a difference of {matters} with" in one([30.0, -20.0, -9.0], outcome=outcome, smallest=smallest).sentence


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"differences": [0.1, math.nan]}, "v.loss.differences: found nan for seed 1; a run without a figure is None"),
        ({"differences": [0.1, 0.2], "noise": [math.inf]}, "v.loss.noise: found inf"),
        ({"differences": [0.1, None], "diverged": 2}, "v.loss.diverged: 2 and of the base 0, but 1 seeds have no difference"),
        ({"differences": [0.1, 0.2], "alpha": 1.5}, "alpha: found 1.5; must be between 0 and 1"),
        ({"differences": [0.1, 0.2], "power": 80}, "power: found 80; must be between 0 and 1"),
        ({"differences": [0.1, 0.2], "smallest": 0}, "smallest.loss: found 0; must be more than 0"),
        ({"differences": [0.1, 0.2], "smallest": {"accuracy": 1}}, "smallest: says nothing of loss; add `loss`"),
    ],
)
def test_numbers_that_cannot_be_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        one(**given)


def test_power_refuses_what_cannot_be() -> None:
    with pytest.raises(SpecError, match="seeds: found 1; must be 2 or more"):
        power(1, 1, 1)
    with pytest.raises(SpecError, match="spread: found -1; must be 0 or more"):
        power(1, -1, 5)
    with pytest.raises(SpecError, match="effect: found nan"):
        power(math.nan, 1, 5)
    with pytest.raises(SpecError, match="target: found 1; must be between"):
        seeds_needed(1, 1, target=1)
    with pytest.raises(SpecError, match="a paired test takes two finite numbers or more"):
        paired_test([1.0])


# Effects of factors


def grid(**choices: Sequence[str]) -> list[dict[str, str]]:
    return [dict(zip(choices, cell, strict=True)) for cell in itertools.product(*choices.values())]


EIGHT = grid(norm=("rms", "layer"), position=("rope", "alibi"), ff=("swiglu", "gelu"))
HALF = [cell for cell in EIGHT if [cell["norm"] == "layer", cell["position"] == "alibi", cell["ff"] == "gelu"].count(True) % 2 == 0]


def rows(cells: Sequence[dict[str, str]], values: np.ndarray) -> list[Cell]:
    """values are [cell, seed]."""
    return [Cell(cell, seed, float(v)) for cell, line in zip(cells, values, strict=True) for seed, v in enumerate(line)]


def loss(cell: dict[str, str]) -> float:
    both = cell["position"] == "alibi" and cell["ff"] == "gelu"
    return 3 + 0.3 * (cell["norm"] == "layer") + 0.1 * (cell["ff"] == "gelu") - 0.2 * both


def noisy_rows(cells: Sequence[dict[str, str]], seeds: int = 5) -> list[Cell]:
    g = np.random.default_rng(2)
    true = np.asarray([loss(cell) for cell in cells])[:, None]
    return rows(cells, true + g.normal(0, 1, seeds) + g.normal(0, 0.005, (len(cells), seeds)))


def test_effects_and_interactions_are_found_as_they_were_put_in() -> None:
    found = {tuple(e.factors): e for e in effects(noisy_rows(EIGHT), "loss")}
    true = {
        ("norm",): 0.3,
        ("position",): -0.1,  # the interaction, over both choices of ff
        ("ff",): 0.0,
        ("norm", "position"): 0.0,
        ("norm", "ff"): 0.0,
        ("position", "ff"): -0.2,
    }
    assert set(found) == set(true)
    for factors, value in true.items():
        effect = found[factors]
        assert effect.estimate == pytest.approx(value, abs=0.01)
        assert effect.low <= value <= effect.high
        assert (effect.p_adjusted < 0.05) == (value != 0)
        assert effect.aliases == []
    assert found["position", "ff"].choices == ["alibi", "gelu"]
    assert found["position", "ff"].against == ["rope", "swiglu"]


@pytest.mark.parametrize("cells", [EIGHT, grid(a=("0", "1", "2"), b=("0", "1"))[:5]], ids=["full", "a cell missing"])
def test_estimates_are_those_of_ordinary_least_squares_with_seeds_as_blocks(cells: list[dict[str, str]]) -> None:
    values = np.random.default_rng(3).normal(size=(len(cells), 4))
    found = effects(rows(cells, values), "loss")
    columns = []
    for effect in found:
        column = np.ones(len(cells))
        for factor, choice in zip(effect.factors, effect.choices, strict=True):
            column = column * [(cell[factor] == choice) - 1 / len({c[factor] for c in cells}) for cell in cells]
        columns.append(column)
    design = np.hstack([np.tile(np.column_stack(columns), (4, 1)), np.kron(np.eye(4), np.ones((len(cells), 1)))])
    fit = statsmodels.api.OLS(values.T.ravel(), design).fit()
    assert [e.estimate for e in found] == pytest.approx(list(fit.params[: len(found)]))


@pytest.mark.parametrize("alike", [True, False], ids=["cells vary alike", "some vary more, and together"])
def test_at_most_one_in_fifteen_grids_without_effects_declares_one(alike: bool) -> None:
    g, declared, times = np.random.default_rng(4), 0, 1_000
    for _ in range(times):
        values = g.normal(size=(8, 5)) + g.normal(0, 3, 5)
        if not alike:
            values += np.asarray([[3.0 * (cell["norm"] == "layer")] for cell in EIGHT]) * g.normal(size=5)
        declared += any(e.p_adjusted < 0.05 for e in effects(rows(EIGHT, values), "loss"))
    assert declared <= 0.065 * times


def test_the_half_fraction_of_three_factors_has_its_known_aliases() -> None:
    found = {tuple(e.factors): e for e in effects(noisy_rows(HALF), "loss")}
    assert {factors: e.aliases for factors, e in found.items()} == {
        ("norm",): ["position=alibi x ff=gelu"],
        ("position",): ["norm=layer x ff=gelu"],
        ("ff",): ["norm=layer x position=alibi"],
    }
    # The defining relation here is I = -norm position ff, so that half the interaction is taken off.
    assert found["norm",].estimate == pytest.approx(0.3 + 0.1, abs=0.01)


def test_a_half_of_four_factors_confounds_interactions_with_each_other_only() -> None:
    cells = [c for c in grid(a="01", b="01", c="01", d="01") if sum(map(int, c.values())) % 2 == 0]
    found = {"".join(e.factors): e.aliases for e in effects(rows(cells, np.random.default_rng(5).normal(size=(8, 3))), "loss")}
    assert found == {
        **{factor: [] for factor in "abcd"},
        "ab": ["c=1 x d=1"],
        "ac": ["b=1 x d=1"],
        "ad": ["b=1 x c=1"],
    }


def test_every_choice_of_a_larger_factor_is_held_against_the_first() -> None:
    cells = grid(position=("rope", "alibi", "none"), norm=("rms", "layer"))
    values = np.asarray([[{"rope": 1.0, "alibi": 1.5, "none": 3.0}[cell["position"]]] for cell in cells])
    found = effects(rows(cells, values + np.random.default_rng(6).normal(0, 1e-3, (6, 5))), "loss")
    assert [(e.choices, e.against) for e in found[:2]] == [(["alibi"], ["rope"]), (["none"], ["rope"])]
    assert [e.estimate for e in found[:2]] == pytest.approx([0.5, 2.0], abs=0.01)
    assert len(found) == 5


def test_a_seed_that_lacks_a_run_is_left_out_and_one_seed_is_no_test() -> None:
    given = noisy_rows(EIGHT)
    torn = [Cell(c.levels, c.seed, None) if (c.seed, c.levels) == (2, EIGHT[3]) else c for c in given]
    assert effects(torn, "loss") == effects([c for c in given if c.seed != 2], "loss")
    assert effects([c for c in given if c.seed == 0], "loss") == []


def test_the_intervals_of_effects_are_simultaneous() -> None:
    values = np.random.default_rng(7).normal(size=(4, 6))
    found = effects(rows(grid(a="01", b="01"), values), "loss")
    line = (values[2] + values[3] - values[0] - values[1]) / 2
    expected = stats.ttest_1samp(line, 0).confidence_interval(1 - 0.05 / 3)
    assert (found[0].low, found[0].high) == pytest.approx((expected.low, expected.high))
    assert [e.p_adjusted for e in found] == pytest.approx(holm([e.p for e in found]))


def test_a_factor_without_any_effect_has_no_spread_and_p_of_one() -> None:
    (found,) = effects(rows(grid(a="01"), np.ones((2, 3))), "loss")
    assert (found.estimate, found.low, found.high, found.p) == (0.0, None, None, 1.0)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ([], "factors: no factor in any row"),
        ([Cell({"a": "0"}, 0, 1.0), Cell({"b": "0"}, 0, 1.0)], r"a row has the factors \['b'\], the first one \['a'\]"),
        ([Cell({"a": "0"}, 0, 1.0), Cell({"a": "0"}, 0, 2.0)], "is given twice"),
        ([Cell({"a": "0"}, 0, math.nan)], "has the value nan; a run without a figure is None"),
        (rows(grid(a="0"), np.ones((1, 2))), "the factor a is 0 in every row; a factor has two choices or more"),
        (rows([{"a": "0", "b": "0"}, {"a": "1", "b": "1"}], np.ones((2, 2))), "b=1 cannot be told from a=1 by these cells"),
    ],
)
def test_rows_that_are_no_grid_are_refused(given: list[Cell], match: str) -> None:
    with pytest.raises(SpecError, match=match):
        effects(given, "loss")
