"""The tables of a report, as text in cells; whoever writes them escapes it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llamazoo.ablation.outcomes import digits
from llamazoo.ablation.report.answer import compared, rates_of
from llamazoo.ablation.report.cast import figures, noise_figures, spread
from llamazoo.ablation.report.spelling import NOTHING, amount, fixed, p_value, rate, signed, what
from llamazoo.ablation.results import Comparison, Outcome, Results, Run, Timings, Variant

__all__ = ["Cell", "Table", "costs", "differing", "effects", "learning_rates", "matching", "seeds", "summaries"]


@dataclass(frozen=True)
class Cell:
    text: str
    verdict: str = ""
    """If it is one."""
    tip: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    words: frozenset[int] = field(default=frozenset({0}))
    """Which columns hold words rather than numbers."""


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Cell | str]], words: Sequence[int] = (0,)) -> Table:
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(title, tuple(head), cells, frozenset(words))


def summaries(results: Results) -> list[tuple[Outcome, Table]]:
    """For every outcome: what each variant came to, and what it differs by. Without comparisons, what the base came to."""
    return [(outcome, _summary(results, outcome)) for outcome in compared(results) or results.outcomes]


def _summary(results: Results, outcome: Outcome) -> Table:
    head = ("variant", "parameters", "mean ± sd", "difference", "interval", "p (Holm)", "noise", "verdict")
    rows = []
    for variant in results.variants:
        found = next((c for c in variant.comparisons if c.outcome == outcome), None)
        cells = (variant.name, f"{variant.costs.parameters:,}", _mean(variant, outcome))
        rows.append((*cells, *_compared(found, digits(outcome), is_base=variant.name == results.base)))
    return _table(what(outcome), head, rows, (0, 7))


def _mean(variant: Variant, outcome: Outcome) -> str:
    found = figures(variant, outcome)
    seen = [value for _, value in found if value is not None]
    if not seen:
        return NOTHING
    mean, sd = spread(seen)
    some = f" ({len(seen)} of {len(found)})" if len(seen) < len(found) else ""
    return fixed(mean, digits(outcome)) + (f" ± {fixed(sd, digits(outcome))}" if sd is not None else "") + some


def _compared(found: Comparison | None, places: int, *, is_base: bool) -> tuple[Cell | str, ...]:
    if found is None:
        return (NOTHING, NOTHING, NOTHING, NOTHING, "base" if is_base else "not compared")
    interval = _interval(found.low, found.high, places)
    figures = (signed(found.mean, places), interval, p_value(found.p_adjusted), fixed(found.noise, places))
    return (*figures, Cell(found.verdict, found.verdict, found.sentence))


def _interval(low: float | None, high: float | None, places: int) -> str:
    return NOTHING if low is None or high is None else f"{signed(low, places)} to {signed(high, places)}"


def effects(results: Results) -> Table | None:
    """The effects of factors, with what they cannot be told from."""
    if not results.effects:
        return None
    rows = []
    for e in results.effects:
        places = digits(e.outcome)
        name = " × ".join(f"{factor}={choice}" for factor, choice in zip(e.factors, e.choices, strict=False))
        figures = (signed(e.estimate, places), _interval(e.low, e.high, places), p_value(e.p_adjusted))
        rows.append((name, " × ".join(e.against) or NOTHING, what(e.outcome), *figures, ", ".join(e.aliases) or NOTHING))
    head = ("effect", "in place of", "outcome", "estimate", "interval", "p (Holm, by outcome)", "cannot be told from")
    return _table("Effects of factors", head, rows, (0, 1, 2, 6))


def differing(results: Results) -> list[Table]:
    """For each variant, everything in which its spec differs from the base's."""
    return [
        _table(variant.name, ("field", "base", "variant"), [(d.where, d.base, d.variant) for d in variant.differences], (0, 1, 2))
        for variant in results.variants
        if variant.name != results.base
    ]


def matching(results: Results) -> Table:
    """How every variant was brought to the size of the base."""
    rows = []
    for variant in results.variants:
        m = variant.matched
        solved = f"{m.field} = {m.value:,}" if m.field is not None and m.value is not None else "as it is"
        rows.append([variant.name, m.what, solved, f"{m.target:,}", f"{m.found:,}", f"{100 * m.off:+.2f} %".replace("-", "−")])
    head = ["variant", "matched in", "solved for", "target", "found", "off by"]
    if any(variant.matched.beyond for variant in results.variants):
        head.append("besides, for longer texts only")
        for row, variant in zip(rows, results.variants, strict=True):
            row.append(f"{variant.matched.beyond:,}")
    return _table("Sizes", head, rows, (0, 1, 2))


def costs(results: Results, timings: Timings | None) -> Table:
    """What each variant takes, computed, and measured where it was."""
    head = ["variant", "parameters", "active", "FLOPs a token", "cache, bytes a token", "cache of one text, bytes"]
    measured = ["training, tokens/s", "decoding, tokens/s", "peak memory, bytes", "all runs, s"] if timings else []
    rows = []
    for variant in results.variants:
        c = variant.costs
        row = [variant.name, f"{c.parameters:,}", f"{c.active_parameters:,}", amount(c.flops_per_token)]
        row += [amount(c.cache_bytes_per_token), amount(c.cache_bytes)]
        if timings:
            t = timings.variants.get(variant.name)
            row += [amount(t.train_tokens_per_second), amount(t.decode_tokens_per_second)] if t else [NOTHING] * 2
            row += [amount(t.peak_memory_bytes), f"{t.seconds:,.0f}"] if t else [NOTHING] * 2
        rows.append(row)
    return _table("Costs", [*head, *measured], rows)


def learning_rates(results: Results) -> Table | None:
    """The final loss of each seed's trial at every rate, and how many seeds took which; None of one rate, which takes no trials."""
    tried = rates_of(results)
    if len(tried) < 2:
        return None
    rows = []
    for variant in results.variants:
        at = {t.lr: ", ".join("diverged" if loss is None else fixed(loss, 4) for loss in t.losses) for t in variant.learning_rates}
        taken = ", ".join(f"{rate(t.lr)} by {t.chosen}" for t in variant.learning_rates if t.chosen)
        rows.append(
            (variant.name, *(at.get(lr, NOTHING) for lr in tried), rate(variant.lr) + (" (edge)" if variant.at_edge else ""), taken)
        )
    return _table("Learning rates", ("variant", *map(rate, tried), "best mean", "taken by seeds"), rows)


def seeds(results: Results) -> list[Table]:
    """For every outcome that was measured, each seed's figure; what diverged says so."""
    outcomes = dict.fromkeys(name for variant in results.variants for run in variant.runs if run.probe is None for name in run.outcomes)
    probes = dict.fromkeys(f"accuracy:{run.probe}" for variant in results.variants for run in variant.runs if run.probe is not None)
    return [_by_seed(results, outcome) for outcome in {**outcomes, **probes}]


def _by_seed(results: Results, outcome: Outcome) -> Table:
    found = {variant.name: figures(variant, outcome) for variant in results.variants}
    numbers = sorted({run.seed for runs in found.values() for run, _ in runs})
    places = digits(outcome)
    rows: list[list[Cell | str]] = []
    for name, runs in found.items():
        at = {run.seed: _figure(run, value, places) for run, value in runs}
        rows.append([name, *(at.get(seed, NOTHING) for seed in numbers)])
    again = noise_figures(results, outcome)
    if again:
        at = {run.seed: _figure(run, value, places) for run, value in again}
        rows.append([f"{results.base} again (noise)", *(at.get(seed, NOTHING) for seed in numbers)])
    return _table(what(outcome), ("variant", *(f"seed {seed}" for seed in numbers)), rows)


def _figure(run: Run, value: float | None, places: int) -> Cell:
    if run.diverged is not None:
        return Cell("diverged", "unstable", run.diverged)
    return Cell(fixed(value, places)) if value is not None else Cell("no finite loss")
