"""What the runs of each variant took; on a shared machine a hint, no more."""

import statistics
from collections.abc import Iterable, Sequence

from llamazoo.ablation.plan import Job
from llamazoo.ablation.results import Timing, Timings
from llamazoo.ablation.variants import Candidate
from llamazoo.ablation.work import RunTiming

__all__ = ["timings_of"]


def timings_of(timings: Sequence[tuple[Job, RunTiming]], candidates: Sequence[Candidate]) -> Timings:
    """Speeds and memory of each variant: medians over its evaluation runs on the data. The seconds are of all its runs.

    Trials, noise runs and runs on probes are of other recipes or examples, and not every variant has as many of each.
    """
    return Timings(variants={each.name: _of([(job, timing) for job, timing in timings if job.variant == each.name]) for each in candidates})


def _of(timings: Sequence[tuple[Job, RunTiming]]) -> Timing:
    runs = [timing for job, timing in timings if job.role == "evaluation"]
    memory = _middle(run.peak_memory_bytes for run in runs)
    return Timing(
        train_tokens_per_second=_middle(run.train_tokens_per_second for run in runs),
        decode_tokens_per_second=_middle(run.decode_tokens_per_second for run in runs),
        peak_memory_bytes=None if memory is None else int(memory),
        seconds=sum(timing.seconds for _, timing in timings),
    )


def _middle(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
