"""What the design of an experiment keeps it from saying, told before it is run and again with its results."""

from collections.abc import Iterator, Mapping, Sequence

from llamazoo.ablation.match import TOLERANCE

__all__ = ["cautions"]

FEWEST = 3  # seeds below which hardly any difference can be shown


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
