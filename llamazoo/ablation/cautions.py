"""What the design of an experiment keeps it from saying, told before it is run and again with its results."""

from collections.abc import Iterator, Mapping, Sequence

from llamazoo.ablation.match import TOLERANCE

__all__ = ["REMEDY", "cautions", "unlearned"]

REMEDY = "train longer, or make the probe easier"  # where nothing was learned
FEWEST = 3  # seeds below which hardly any difference can be shown


def unlearned(what: str, names: Sequence[str], chance: float) -> str:
    """Of variants that answer no better than one who guesses, with the base among them."""
    told = f"{', '.join(names[:-1])} and {names[-1]} are not above chance ({chance:.3g})"
    return f"{what}: {told}, so it does not tell them apart: {REMEDY}"


def cautions(seeds: int, rates: Sequence[float], *, noise: bool, off: Mapping[str, float]) -> Iterator[str]:
    """One sentence for each; `off` is by what share each variant's size is off the base's."""
    if seeds < FEWEST:
        yield f"with fewer than {FEWEST} seeds hardly any difference can be shown; seeds is {seeds}"
    if len(rates) == 1:
        yield f"one learning rate for all ({rates[0]:g}): a variant that needs another one looks worse than it is"
    if not noise:
        yield "without noise runs it is not known what two runs of the base differ by"
    told = ", ".join(f"{name} {share:+.1%}" for name, share in off.items() if abs(share) > TOLERANCE)
    if told:
        yield f"sizes are not matched: {told}"
