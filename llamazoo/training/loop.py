"""The training loop: examples -> loss -> gradients -> update, with evaluations and checkpoints in between.

The order within a step is fixed: evaluate if that is due, then save if that is due, then update. So a checkpoint knows
which evaluations are behind it, and a run that is resumed from any of them ends in the same bits.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from llamazoo.data.example import DataSet, Example
from llamazoo.data.loader import batches
from llamazoo.decoder import Decoder
from llamazoo.errors import DataError, DivergedError
from llamazoo.training.checkpoint import Progress, load_progress, newest, restore, save_checkpoint, sweep
from llamazoo.training.evaluate import evaluate
from llamazoo.training.optimizer import Updater
from llamazoo.training.recipe import Recipe
from llamazoo.training.stopping import EXIT_STATUS, Stop, stopping
from llamazoo.training.watch import Journal, Point, Watcher

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """How a run went. The model that was given holds the weights."""

    points: tuple[Point, ...]
    """All evaluations; the last is of the trained model."""
    tokens: int
    skipped: int
    """Steps without an update."""
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

    `seed` gives the order of the data. The folder gets `metrics.jsonl` and `checkpoints/`. A SIGTERM ends the program with
    status 143 once a checkpoint is saved. Raises DataError if data and model do not fit, DivergedError, or TrainingError if what
    lies in the folder is another run's.
    """
    _check(model, data, recipe)
    with pinned(recipe, model.device, seed), compiled(model) if recipe.compile else nullcontext(), stopping() as stop:
        run = _Run(model, data, recipe, None if folder is None else Path(folder), seed, watchers, stop)
        return run.through()


@contextmanager
def pinned(recipe: Recipe, device: torch.device, seed: int) -> Iterator[None]:
    """Threads, random numbers and kernels as the recipe has them, and afterwards as they were."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.set_num_threads(recipe.threads)
        if device.type == "cuda":  # what is done on a processor is the same each time; and to ask for it imports the compiler
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            if device.type == "cuda":
                torch.use_deterministic_algorithms(deterministic)


@contextmanager
def compiled(model: Decoder) -> Iterator[None]:
    """The model's core compiled, and afterwards as it was."""
    before = vars(model).get("core")
    model.core = torch.compile(model.core, dynamic=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        vars(model).pop("core")
        if before is not None:
            model.core = before  # type: ignore[method-assign]


def _check(model: Decoder, data: DataSet, recipe: Recipe) -> None:
    if data.vocab_size > model.spec.vocab_size:
        raise DataError(
            f"the data has {data.vocab_size} different tokens, the model's vocabulary only {model.spec.vocab_size}; "
            f"set vocab_size: {data.vocab_size}"
        )
    if recipe.seq_len > model.spec.max_seq_len:
        raise DataError(f"seq_len {recipe.seq_len} is longer than the model's context, max_seq_len {model.spec.max_seq_len}")


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
        self.progress = Progress(identity=identity(model, data, recipe, seed), step=0)
        if self.checkpoints is not None:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sweep(self.checkpoints)
            if (place := newest(self.checkpoints)) is not None:
                self.progress = load_progress(place, self.progress.identity)
                restore(place, model, self.updater.optimizer)
                self.saved = self.progress.step
        self.points = [Point(**point) for point in self.progress.points]

    def through(self) -> Trained:
        """From where it stands to the end."""
        recipe, steps = self.recipe, self.recipe.steps
        for watcher in self.watchers:
            watcher.begin(self.progress.step, steps)
        try:
            coming = iter(batches(self.examples, rows=recipe.batch, count=recipe.examples, first=self.progress.step))
            while True:
                step = self.progress.step
                if self._due(step, recipe.evaluate_every) and not (self.points and self.points[-1].step == step):
                    self._evaluate()
                if step != self.saved and self._due(step, recipe.checkpoint_every or recipe.evaluate_every):
                    self._save()
                self._heed()
                if step == steps:
                    break
                self._update(next(coming).to(self.model.device))
        finally:
            for watcher in self.watchers:
                watcher.end()
        self.model.eval()
        return self._trained()

    def _trained(self) -> Trained:
        return Trained(tuple(self.points), self._tokens(self.progress.step), self.progress.skipped, self.progress.seconds)

    def _due(self, step: int, every: int | None) -> bool:
        """Whether a step is the last one, or the first after another `every` tokens; a tenth of the run, unless given."""
        every = every or -(-self.recipe.tokens // 10)
        return step == self.recipe.steps or (step > 0 and self._tokens(step) // every > self._tokens(step - 1) // every)

    def _tokens(self, step: int) -> int:
        return min(step * self.recipe.batch, self.recipe.examples) * self.recipe.seq_len

    def _update(self, batch: Example) -> None:
        progress, begun = self.progress, time.perf_counter()
        update = self.updater.step(batch, progress.step)
        seconds = time.perf_counter() - begun
        progress.seconds += seconds
        for watcher in self.watchers:
            watcher.updated(progress.step, update, seconds)
        progress.step += 1
        if update.taken:
            progress.summed, progress.counted, progress.skipped_in_a_row = progress.summed + update.loss, progress.counted + 1, 0
            return
        progress.skipped, progress.skipped_in_a_row = progress.skipped + 1, progress.skipped_in_a_row + 1
        found = f"at step {progress.step} the loss is {update.loss} and the norm of its gradients {update.norm}"
        if self.recipe.non_finite == "stop":
            raise DivergedError(f"{found}; no update was made", self._trained())
        if progress.skipped_in_a_row >= self.recipe.max_skipped:
            told = f"{found}, the {progress.skipped_in_a_row}th in a row without an update"
            raise DivergedError(told, self._trained())

    def _evaluate(self) -> None:
        progress, recipe = self.progress, self.recipe
        score = evaluate(self.model, self.validation, rows=self.updater.rows, tokens=recipe.evaluate_tokens, between=self._heed)
        if not math.isfinite(score.loss):
            raise DivergedError(f"after {progress.step} steps the validation loss is {score.loss}", self._trained())
        mean = progress.summed / progress.counted if progress.counted else None
        point = Point(progress.step, self._tokens(progress.step), score.loss, score.accuracy, mean)
        progress.summed, progress.counted = 0.0, 0
        self.points.append(point)
        for watcher in self.watchers:
            watcher.evaluated(point)

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        self.progress.points = [asdict(point) for point in self.points]
        save_checkpoint(self.checkpoints, self.progress, self.model, self.updater.optimizer)
        self.saved = self.progress.step

    def _heed(self) -> None:
        """Leave if the program was asked to end, with a checkpoint of where it stands."""
        if self.stop.asked:
            if self.saved != self.progress.step:
                self._save()
            raise SystemExit(EXIT_STATUS)


def identity(model: Decoder, data: DataSet, recipe: Recipe, seed: int) -> str:
    """A hash of all that a run's figures follow from."""
    told: dict[str, Any] = {
        "spec": model.spec.canonical(),
        "dtype": str(model.dtype),
        "device": model.device.type,
        "data": data.fingerprint,
    }
    told |= {"recipe": recipe.model_dump(mode="json"), "seed": seed}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
