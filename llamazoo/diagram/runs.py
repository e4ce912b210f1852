"""A stack of layers in short: runs of equal layers, and runs that repeat.

[a a a a a b a a a a a b a a] is twice (five a, one b), then two a.
"""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Group", "Run", "in_short"]

LONGEST = 64  # runs in a pattern that is looked for


@dataclass(frozen=True)
class Run:
    """`count` layers of one sort after each other."""

    sort: int
    count: int


@dataclass(frozen=True)
class Group:
    """Runs that come `times` times after each other."""

    times: int
    runs: tuple[Run, ...]


def in_short(runs: Sequence[Run]) -> list[Run | Group]:
    """The same layers with repetitions taken together, from the first on, each as long as it goes."""
    pending, found = list(runs), list[Run | Group]()
    while pending:
        before, group, after = _repetition(pending)
        if group is None:
            found.append(pending.pop(0))
            continue
        if before:
            found.append(Run(pending[0].sort, before))
        found.append(group)
        pending = pending[group.times * len(group.runs) :]
        if after:
            pending.insert(0, Run(group.runs[-1].sort, after))
    return found


def _repetition(runs: list[Run]) -> tuple[int, Group | None, int]:
    """What repeats from the first run on, covering most runs; and the layers of its first and last run that are too many."""
    best: tuple[int, Group | None, int] = (0, None, 0)
    covered = 0
    for period in range(2, min(LONGEST, len(runs) // 2) + 1):
        pattern = (Run(runs[0].sort, runs[period].count), *runs[1:period])
        if runs[0].sort != runs[period].sort or runs[0].count < pattern[0].count:
            continue
        times = 1
        while tuple(runs[times * period : (times + 1) * period]) == pattern:
            times += 1
        tail = runs[times * period : (times + 1) * period]
        after = 0
        if len(tail) == period and tuple(tail[:-1]) == pattern[:-1] and tail[-1].sort == pattern[-1].sort:
            after = max(0, tail[-1].count - pattern[-1].count)
            times += after > 0
        if times > 1 and times * period > covered:
            covered = times * period
            best = (runs[0].count - pattern[0].count, Group(times, pattern), after)
    return best
