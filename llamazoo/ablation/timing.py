"""What the runs of each variant took; on a shared machine a hint, no more."""

import statistics
from collections.abc import Iterable, Sequence

from llamazoo.ablation.results import Timing, Timings
from llamazoo.ablation.variants import Candidate
from llamazoo.ablation.work import RunTiming

__all__ = ["timings_of"]


def timings_of(timings: Sequence[tuple[str, RunTiming]], candidates: Sequence[Candidate]) -> Timings:
    """Medians over all runs of each variant."""
    found = {each.name: [timing for name, timing in timings if name == each.name] for each in candidates}
    return Timings(variants={name: _median(runs) for name, runs in found.items()})


def _median(runs: Sequence[RunTiming]) -> Timing:
    memory = _middle(run.peak_memory_bytes for run in runs)
    return Timing(
        train_tokens_per_second=_middle(run.train_tokens_per_second for run in runs),
        decode_tokens_per_second=_middle(run.decode_tokens_per_second for run in runs),
        peak_memory_bytes=None if memory is None else int(memory),
        seconds=sum(run.seconds for run in runs),
    )


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
