"""What the design of an experiment keeps it from saying, told before it is run and again with its results."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from llamazoo.ablation.longer import short_documents
from llamazoo.ablation.match import TOLERANCE

__all__ = ["REMEDY", "cautions", "divided", "unlearned"]

REMEDY = "train longer, or make the probe easier"  # where nothing was learned
FEWEST = 3  # seeds below which hardly any difference can be shown
# Documents, not tokens, are what differs in text: with k of them, a variant that is better on every other one is better on all with a
# chance of 2^-k, and one that is odd is a share of 1/k or more. Ten make that a thousandth, and a tenth.
FEWEST_DOCUMENTS = 10
APART = 0.1  # of accuracy: five times the smallest difference that matters, unless an experiment says otherwise


def unlearned(what: str, names: Sequence[str], chance: float) -> str:
    """Of variants that answer no better than one who guesses, with the base among them."""
    told = f"{', '.join(names[:-1])} and {names[-1]} are not above chance ({chance:.3g})"
    return f"{what}: {told}, so it does not tell them apart: {REMEDY}"


def cautions(
    seeds: int,
    rates: Sequence[float],
    *,
    noise: bool,
    off: Mapping[str, float],
    documents: int | None = None,
    data: Mapping[str, str | int | float] | None = None,
) -> Iterator[str]:
    """One sentence for each; `off` is by what share each variant's size is off the base's, `documents` how many losses are measured on.

    `data` are the facts of the data.
    """
    if seeds < FEWEST:
        yield f"with fewer than {FEWEST} seeds hardly any difference can be shown; seeds is {seeds}"
    if len(rates) == 1:
        yield f"one learning rate for all ({rates[0]:g}): a variant that needs another one looks worse than it is"
    if not noise:
        yield "without noise runs it is not known what two runs of the base differ by"
    if documents is not None and documents < FEWEST_DOCUMENTS:
        these, whose = ("1 held-out document", "its") if documents == 1 else (f"{documents} held-out documents", "theirs")
        yield (
            f"the loss is measured on {these}: a difference may be {whose} alone; "
            f"give more data, or hold out a larger share (validation), for {FEWEST_DOCUMENTS} or more"
        )
    told = ", ".join(f"{name} {share:+.1%}" for name, share in off.items() if abs(share) > TOLERANCE)
    if told:
        yield f"sizes are not matched: {told}"
    yield from short_documents(data or {})


def divided(shares: Sequence[float]) -> tuple[list[float], list[float]] | None:
    """Accuracies of some seeds in two groups far from each other, the lower first, or None if they are not so.

    Some seeds learned the task then, and others did not: the gap is a tenth or more, and more than twice all that is left of the range.
    """
    ordered = sorted(shares)
    gap, at = max(((after - before, i) for i, (before, after) in enumerate(pairwise(ordered), 1)), default=(0.0, 0))
    if gap < APART or gap <= 2 * (ordered[-1] - ordered[0] - gap):
        return None
    return ordered[:at], ordered[at:]
