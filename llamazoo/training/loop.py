"""The training loop: examples -> loss -> gradients -> update, with evaluations and checkpoints in between.

The order within a step is fixed: evaluate if that is due, then save if that is due, then update. So a checkpoint knows
which evaluations are behind it, and a run that is resumed from any of them ends in the same bits.
"""

import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from llamazoo.data.example import DataSet, Example
from llamazoo.data.loader import batches
from llamazoo.decoder import Decoder
from llamazoo.errors import DivergedError
from llamazoo.training.checkpoint import load_progress, newest, restore, save_checkpoint, sweep
from llamazoo.training.claim import claimed
from llamazoo.training.evaluate import evaluate
from llamazoo.training.fit import check_fit
from llamazoo.training.identity import identity_of
from llamazoo.training.journal import Journal
from llamazoo.training.optimizer import Updater
from llamazoo.training.pinned import compiled, pinned
from llamazoo.training.progress import Progress
from llamazoo.training.recipe import Recipe
from llamazoo.training.remembered import Remembered
from llamazoo.training.stopping import EXIT_STATUS, Stop, Stopped, staying, stopping
from llamazoo.training.watch import Point, Watcher

__all__ = ["Trained", "train"]

SOON = 2  # steps after which it is first asked whether parts remember what no checkpoint holds


@dataclass(frozen=True)
class Trained:
    """How a run went. The model that was given holds the weights."""

    points: tuple[Point, ...]
    """All evaluations; the last is of the trained model."""
    tokens: int
    skipped: int
    """Steps without an update, since loss or gradients were not finite."""
    seconds: float
    """Spent on updates, those before an interruption included."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else math.nan


def train(
    model: Decoder,
    data: DataSet,
    recipe: Recipe,
    folder: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    watchers: Sequence[Watcher] = (),
) -> Trained:
    """Train a model in place; with a `folder`, what it needs to be resumed is kept there, and taken up again if it is there.

    To go on, bring the model as it was when the run began. `seed` gives the order of the data. The folder gets `metrics.jsonl` and
    `checkpoints/`. A SIGTERM ends the program with status 143 once a checkpoint is saved. Raises DataError if data and model do not
    fit, UnsupportedError if the recipe does not fit the model, DivergedError, SaveError if the folder takes no more, or TrainingError if
    what lies in the folder is another run's, another process trains there, the model is in half precision, or a part remembers what
    no checkpoint holds, or tries to end the program.
    """
    place = None if folder is None else Path(folder)
    check_fit(model, data, recipe, place, seed)
    with ExitStack() as held:
        stop = held.enter_context(stopping())
        if place is not None:
            held.enter_context(claimed(place))
        held.enter_context(pinned(recipe, model.device, seed))
        if recipe.compile:
            held.enter_context(compiled(model))
        return _Run(model, data, recipe, place, seed, watchers, stop).through()


class _Run:
    def __init__(
        self, model: Decoder, data: DataSet, recipe: Recipe, folder: Path | None, seed: int, watchers: Sequence[Watcher], stop: Stop
    ) -> None:
        self.model, self.recipe, self.stop = model, recipe, stop
        self.updater = Updater(model, recipe)
        self.examples = data.training(recipe.seq_len, seed)
        self.validation = data.validation(recipe.seq_len)
        self.checkpoints = None if folder is None else folder / "checkpoints"
        self.watchers = [*watchers, *([] if folder is None else [Journal(folder / "metrics.jsonl")])]
        self.saved: int | None = None
        self.remembered = None if folder is None else Remembered(model)
        self.last: Example | None = None  # the rows that were learned from last
        self.learned = 0  # how often, in this process
        self.progress = Progress(identity=identity_of(model, data, recipe, seed), step=0)
        if self.checkpoints is not None:
            sweep(self.checkpoints)
            if (place := newest(self.checkpoints)) is not None:
                self.progress = load_progress(place, self.progress.identity, recipe.steps)
                restore(place, model, self.updater.optimizer)
                self.saved = self.progress.step

    def through(self) -> Trained:
        """From where it stands to the end."""
        recipe, steps = self.recipe, self.recipe.steps
        with ExitStack() as begun:
            for watcher in self.watchers:
                watcher.begin(self.progress.step, steps, tuple(self.progress.points))
                begun.callback(watcher.end)
            coming = iter(batches(self.examples, rows=recipe.batch, count=recipe.examples, first=self.progress.step))
            while True:
                step = self.progress.step
                if self._due(step, recipe.evaluate_every) and step not in (point.step for point in self.progress.points[-1:]):
                    self._evaluate()
                if step != self.saved and self._due(step, recipe.checkpoint_every or recipe.evaluate_every):
                    self._save()
                self._heed()
                if step == steps:
                    break
                self._update(next(coming).to(self.model.device))
        self.model.eval()
        if self.progress.skipped > self.progress.taken:  # what was trained is not what was asked for
            told = f"{self.progress.skipped} of {steps} steps, more than half, had a loss or gradients that are not finite"
            raise DivergedError(f"{told}; no update was made in them", self._trained())
        return self._trained()

    def _trained(self) -> Trained:
        return Trained(tuple(self.progress.points), self._tokens(self.progress.step), self.progress.skipped, self.progress.seconds)

    def _due(self, step: int, every: int | None) -> bool:
        """Whether a step is the last one, or the first after another `every` tokens; a tenth of the run, unless given."""
        every = every or -(-self.recipe.tokens // 10)
        return step == self.recipe.steps or (step > 0 and self._tokens(step) // every > self._tokens(step - 1) // every)

    def _tokens(self, step: int) -> int:
        return min(step * self.recipe.batch, self.recipe.examples) * self.recipe.seq_len

    def _update(self, batch: Example) -> None:
        progress, begun = self.progress, time.perf_counter()
        with staying():
            update = self.updater.step(batch, progress.step)
        seconds = time.perf_counter() - begun
        progress.seconds += seconds
        for watcher in self.watchers:
            watcher.updated(progress.step, update, seconds)
        found = f"at step {progress.step} the loss is {update.loss} and the norm of its gradients {update.norm}"
        progress.step += 1
        if update.loss is None:  # there was nothing to learn, and so nothing went wrong
            return
        if update.taken:
            progress.summed, progress.counted, progress.skipped_in_a_row = progress.summed + update.loss, progress.counted + 1, 0
            progress.taken += 1
            self._remember(batch)
            return
        progress.skipped, progress.skipped_in_a_row = progress.skipped + 1, progress.skipped_in_a_row + 1
        if self.recipe.non_finite == "stop":
            raise DivergedError(f"{found}; no update was made", self._trained())
        if progress.skipped_in_a_row >= self.recipe.max_skipped:
            raise DivergedError(f"{found}; max_skipped: {self.recipe.max_skipped} steps in a row without an update", self._trained())

    def _evaluate(self) -> None:
        progress, recipe = self.progress, self.recipe
        with staying():
            score = evaluate(self.model, self.validation, rows=self.updater.rows, tokens=recipe.evaluate_tokens, between=self._heed)
        if not math.isfinite(score.loss):
            raise DivergedError(f"after {progress.step} steps the validation loss is {score.loss}", self._trained())
        mean = progress.summed / progress.counted if progress.counted else None
        point = Point(progress.step, self._tokens(progress.step), score.loss, score.accuracy, mean)
        progress.summed, progress.counted = 0.0, 0
        progress.points.append(point)
        for watcher in self.watchers:
            watcher.evaluated(point)

    def _remember(self, batch: Example) -> None:
        """Note what was learned from last, and ask early whether this run can be resumed."""
        if self.remembered is not None:
            self.last = Example(*(each[: self.updater.rows] for each in batch))
            self.learned += 1
            if self.learned == SOON:
                self._check_remembered()

    def _check_remembered(self) -> None:
        if self.remembered is not None and self.last is not None and self.last.learned:
            with staying():
                self.remembered.check(self.last, self.recipe)

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self._check_remembered()
        save_checkpoint(self.checkpoints, self.progress, self.model, self.updater.optimizer)
        self.saved = self.progress.step

    def _heed(self) -> None:
        """Leave if the program was asked to end, with a checkpoint of where it stands."""
        if self.stop.asked:
            if self.saved != self.progress.step:
                self._save()
            raise Stopped(EXIT_STATUS)
