"""The question, the answer to it, and what to be careful about, in words."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from llamazoo.ablation.cautions import cautions, divided, unlearned
from llamazoo.ablation.facts import EVALUATED_DOCUMENTS
from llamazoo.ablation.outcomes import sort_of
from llamazoo.ablation.report.cast import evaluations, figures
from llamazoo.ablation.report.spelling import rate, what
from llamazoo.ablation.results import Comparison, Outcome, Results, Variant, Verdict

__all__ = ["answer", "at_chance", "base_name", "compared", "design", "question", "rates_of", "verdicts", "warnings"]

FEW = 4  # variants that a sentence names


def compared(results: Results) -> list[Outcome]:
    """The outcomes that have comparisons, those that were declared first."""
    found = dict.fromkeys(c.outcome for variant in results.variants for c in variant.comparisons)
    return [*(o for o in results.outcomes if o in found), *(o for o in found if o not in results.outcomes)]


def base_name(results: Results) -> str:
    """What the base is called outside this experiment, if that has a name."""
    named = results.experiment.get("base")
    return named if isinstance(named, str) else results.base


def question(results: Results) -> str:
    others = [variant.name for variant in results.variants if variant.name != results.base]
    outcomes = _listed([what(outcome).lower() for outcome in compared(results) or results.outcomes]) or "loss"
    base = base_name(results)
    if not others:
        return f"What does {base} come to in {outcomes}?"
    if len(others) == 1:
        return f"How does {others[0]} compare with {base} in {outcomes}?"
    who = _listed(others) if len(others) <= FEW else f"{len(others)} variants"
    return f"How do {who} compare with {base} in {outcomes}?"


def answer(results: Results) -> str:
    """The verdicts on each outcome, counted."""
    return " ".join(_counted(results, outcome) for outcome in compared(results)) or "There is nothing to compare."


def _counted(results: Results, outcome: Outcome) -> str:
    found = Counter(c.verdict for _, c in verdicts(results, outcome))
    order: tuple[Verdict, ...] = ("better", "worse", "no difference shown", "too few seeds", "unstable")
    words: dict[Verdict, str] = {"no difference shown": "without a difference shown", "too few seeds": "with too few seeds to tell"}
    counts = [f"{found[verdict]} {words.get(verdict, verdict)}" for verdict in order if found[verdict]]
    total = sum(found.values())
    lost = at_chance(results, outcome)
    who = "neither it nor the base is" if total == 1 else f"{len(lost)} of them and the base are not"
    guessed = f"; {who} above chance" if lost else ""
    return f"In {what(outcome).lower()}, of {total} variant{'s' * (total != 1)}: {_listed(counts)}{guessed}."


def verdicts(results: Results, outcome: Outcome) -> list[tuple[str, Comparison]]:
    """Each variant with its comparison in an outcome."""
    return [(variant.name, c) for variant in results.variants for c in variant.comparisons if c.outcome == outcome]


def rates_of(results: Results) -> list[float]:
    """The learning rates that there were, the lowest first."""
    return sorted({tried.lr for variant in results.variants for tried in variant.learning_rates})


def at_chance(results: Results, outcome: Outcome) -> list[str]:
    """The variants that guess as well as they answer, where the base does too: they cannot be told apart by what neither learned."""
    guess = results.guessing.get(outcome)
    if guess is None:
        return []
    means = {variant.name: [value for _, value in figures(variant, outcome) if value is not None] for variant in results.variants}
    lost = [name for name, values in means.items() if guess.reaches(values)]
    return [name for name in lost if name != results.base] if results.base in lost else []


def design(results: Results) -> str:
    """How the question was asked, in one line."""
    base = results.variant(results.base)
    runs = evaluations(base)
    facts = [f"{len(runs)} seed{'s' * (len(runs) != 1)}, paired"] if runs else []
    if runs:
        facts.append(f"{max(run.tokens for run in runs):,} tokens a run")
    matched = {v.matched.what for v in results.variants if v is not base} or {base.matched.what}
    facts.append("sizes not matched" if matched == {"none"} else f"matched in {_listed(sorted(matched - {'none'}))}")
    tried = rates_of(results)
    if len(tried) > 1:
        facts.append(f"learning rate of {', '.join(map(rate, tried))}, chosen by a trial of each seed")
    else:
        facts.append(f"learning rate {rate(base.lr)}")
    facts.append(_floors(results))
    return "; ".join(facts)


def _floors(results: Results) -> str:
    """How many runs each noise floor rests on: those on the data, and apart from them those on each probe."""
    counts = sorted(set(Counter(run.probe for run in results.noise.runs).values())) if results.noise else []
    if not counts:
        return "noise floor not measured"
    runs = f"{' or '.join(map(str, counts))} more run{'s' * (counts != [1])} of the base"
    several = results.noise is not None and len({run.probe for run in results.noise.runs}) > 1
    return f"noise floors from {runs} each, on the data and on each probe apart" if several else f"noise floor from {runs}"


def warnings(results: Results) -> Iterator[str]:
    """What a reader must not overlook."""
    for variant in results.variants:
        yield from _diverged(variant)
        yield from _beyond_guessing(variant)
        skipped = sum(run.skipped for run in variant.runs)
        if skipped:
            yield f"{variant.name}: {skipped} steps were skipped for a loss or gradient that was not finite"
        lost = sum(loss is None for tried in variant.learning_rates for loss in tried.losses)
        if lost:
            yield f"{variant.name}: {lost} trial{'s' * (lost != 1)} of learning rates diverged"
        if variant.at_edge:
            yield (
                f"{variant.name}: its best learning rate, {rate(variant.lr)}, is the end of what was tried; "
                "a wider grid might find a better one"
            )
    for run in results.noise.runs if results.noise else ():
        if run.diverged is not None:
            where = f" on {run.probe}" if run.probe else ""
            yield f"noise: the base's second run of seed {run.seed}{where} diverged: {run.diverged}"
    rates = rates_of(results)
    for outcome in compared(results):
        guessed = at_chance(results, outcome)
        if guessed:
            yield unlearned(what(outcome).lower(), [results.base, *guessed], results.guessing[outcome].chance)
    off = {variant.name: variant.matched.off for variant in results.variants}
    for outcome in compared(results):
        if sort_of(outcome) == "accuracy":
            yield from _divided(results, outcome)
    seeds, documents = len(evaluations(results.variant(results.base))), results.data.get(EVALUATED_DOCUMENTS)
    known = documents if isinstance(documents, int) else None
    yield from cautions(seeds, rates, noise=results.noise is not None, off=off, documents=known, data=results.data)
    if results.earlier:
        times = " and ".join(map(str, results.earlier))
        yield (
            f"a second look: these runs were compared before with {times} of the {seeds} seeds, and who adds seeds until a difference "
            "shows will find one more often than alpha says; run all seeds fresh (first_seed, and another --out)"
        )


def _divided(results: Results, outcome: Outcome) -> Iterator[str]:
    """Of which variants some seeds learned a task and others did not: the tests err more often then than they say."""
    told = []
    for variant in results.variants:
        shares = [share for _, share in figures(variant, outcome) if share is not None]
        found = divided(shares)
        if found:
            low, high = found
            told.append(f"{variant.name} in {len(high)} of {len(shares)} seeds ({low[-1]:.3g} or less in the other{'s' * (len(low) != 1)})")
    if told:
        yield (
            f"{what(outcome).lower()}: some seeds learned the task and others did not, {_listed(told)}; means of such figures are called "
            "different more often than alpha says, so look at the seeds, and see docs/statistics.md"
        )


def _diverged(variant: Variant) -> Iterator[str]:
    """For text and for each probe: which runs diverged, and why."""
    for probe in dict.fromkeys(run.probe for run in variant.runs):
        runs = [run for run in variant.runs if run.probe == probe]
        lost = [f"seed {run.seed}: {run.diverged}" for run in runs if run.diverged is not None]
        if lost:
            yield f"{variant.name}: {len(lost)} of {len(runs)} runs{f' on {probe}' if probe else ''} diverged ({'; '.join(lost)})"


def _beyond_guessing(variant: Variant) -> Iterator[str]:
    """Runs that blew up to a loss that is finite: worse than a uniform guess, which untrained models are close to."""
    size = variant.spec.get("vocab_size")
    found = [(run.seed, run.outcomes.get("loss")) for run in evaluations(variant)]
    told = [f"seed {seed}: {loss:.4g}" for seed, loss in found if size and loss is not None and loss > math.log(size)]
    if told:
        ended = f"{len(told)} of {len(found)} runs ended worse than guessing ({'; '.join(told)})"
        yield f"{variant.name}: {ended}, so it is unstable, or was hardly trained"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([*([", ".join(words[:-1])] if len(words) > 1 else []), *words[-1:]])
