"""What can be compared: loss, loss@4x at four times the trained length, accuracy, accuracy:<probe>."""

import re
from typing import Literal

from llamazoo.ablation.results import Outcome

__all__ = ["at_length", "better", "length_of", "on_probe", "probe_of", "sort_of"]

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
    return f"accuracy:{probe}"
