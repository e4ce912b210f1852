"""A progress bar for the runs of an experiment."""

from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llamazoo.cli.printed import console

if TYPE_CHECKING:
    from llamazoo.ablation import Heard

__all__ = ["RunsBar"]


class RunsBar:
    """Two bars on stderr, one for each stage: learning rates are chosen, then models are compared."""

    def __init__(self) -> None:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()]
        self.progress = Progress(*columns, console=console(stderr=True))
        self.tasks: dict[bool, TaskID] = {}
        self.finished: dict[bool, int] = {}
        self.in_all = 0

    def __enter__(self) -> "RunsBar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def __call__(self, news: "Heard") -> None:
        tuning = news.job.role == "tuning"
        if tuning not in self.tasks:
            self.tasks[tuning] = self.progress.add_task("learning rates" if tuning else "runs", total=news.of)
        self.progress.update(self.tasks[tuning], completed=news.finished)
        self.finished[tuning], self.in_all = news.finished, news.in_all

    def stands(self) -> str:
        """How many runs are through, for who interrupts them."""
        finished = sum(self.finished.values())
        told = f"{finished} of {self.in_all} runs are through" if finished else "no run is through"
        return f"{told}; the same command goes on where it was"
