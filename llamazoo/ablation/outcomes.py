"""What can be compared: loss, loss@4x at four times the trained length, accuracy, accuracy:<probe>."""

import math
import re
from collections.abc import Mapping
from typing import Final, Literal

from llamazoo.ablation.results import Outcome
from llamazoo.errors import Problem, SpecError

__all__ = ["SMALLEST", "at_length", "better", "digits", "length_of", "on_probe", "probe_of", "smallest_of", "sort_of"]

SMALLEST: Final[Mapping[Outcome, float]] = {"loss": 0.01, "accuracy": 0.02}
"""The smallest difference that matters unless an experiment says otherwise: nats a token, and share of right answers."""

AT_LENGTH = re.compile(r"loss@([1-9][0-9]?)x")
ON_PROBE = re.compile(r"accuracy:(.+)")


def sort_of(outcome: Outcome) -> Literal["loss", "accuracy"] | None:
    """What an outcome measures, or None if it is none."""
    if outcome == "loss" or AT_LENGTH.fullmatch(outcome):
        return "loss"
    return "accuracy" if outcome == "accuracy" or ON_PROBE.fullmatch(outcome) else None


def better(outcome: Outcome) -> Literal["lower", "higher"]:
    """Which way an outcome improves."""
    return "lower" if sort_of(outcome) == "loss" else "higher"


def digits(outcome: Outcome) -> int:
    """With how many places its figures are told at least."""
    return 3 if sort_of(outcome) == "accuracy" else 4


def length_of(outcome: Outcome) -> int | None:
    """At how many times the trained length it is measured, if it says so."""
    found = AT_LENGTH.fullmatch(outcome)
    return int(found[1]) if found else None


def probe_of(outcome: Outcome) -> str | None:
    """On which probe it is measured, if on one."""
    found = ON_PROBE.fullmatch(outcome)
    return found[1] if found else None


def at_length(length: int) -> Outcome:
    """The outcome's name: `loss`, or `loss@4x`."""
    return "loss" if length == 1 else f"loss@{length}x"


def on_probe(probe: str) -> Outcome:
    """The outcome's name: `accuracy:recall`."""
    return f"accuracy:{probe}"


def smallest_of(outcome: Outcome, smallest: float | Mapping[Outcome, float]) -> float:
    """The smallest difference that matters in an outcome: one number for all, or by outcome, where `loss` speaks for `loss@4x` too.

    Raises SpecError for an outcome of which nothing is said, and for what is not above zero.
    """
    if isinstance(smallest, Mapping):
        stem = sort_of(outcome) or outcome
        found = smallest.get(outcome, smallest.get(stem))
        if found is None:
            raise SpecError(Problem(("smallest",), f"says nothing of {outcome}; add `{stem}`, in units of that outcome"))
    else:
        found = smallest
    if not 0 < found < math.inf:
        raise SpecError(Problem(("smallest", outcome), f"found {found}; must be more than 0"))
    return found
