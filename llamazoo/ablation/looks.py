"""Whether an experiment was looked at before, with fewer seeds: who adds seeds until something shows will find it shows at last."""

from pathlib import Path

from pydantic import ValidationError

from llamazoo.ablation.results import Results, Run

__all__ = ["earlier_looks"]


def earlier_looks(file: Path, now: Results) -> list[int]:
    """With how many seeds these results were put together before, the first look first; by the results that stand in a file.

    Results of another experiment are no look at this one; nor are those of equal seeds, which say the same.
    """
    try:
        before = Results.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return []
    ours = {each.name: _seen(each.runs) for each in now.variants}
    theirs = {each.name: _seen(each.runs) for each in before.variants}
    shared = {name for name, runs in theirs.items() if name in ours and runs.items() <= ours[name].items()}
    if before.base not in shared or len(shared) < 2:
        return []
    seeds = len(theirs[before.base])
    return before.earlier if seeds == len(ours[now.base]) else [*before.earlier, seeds]


def _seen(runs: list[Run]) -> dict[int, str]:
    """What each seed came to, on the data."""
    return {run.seed: run.model_dump_json() for run in runs if run.role == "evaluation"}
