"""llamazoo train"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from llamazoo.build import build_model, save_model
from llamazoo.cli.arguments import Device, PartsFiles, overrides
from llamazoo.cli.at_work import at_work
from llamazoo.cli.printed import console, counted
from llamazoo.cli.visible import visible
from llamazoo.data.config import open_data
from llamazoo.device import device_of
from llamazoo.errors import SaveError
from llamazoo.parts import registry_with
from llamazoo.spec.compose import load_spec
from llamazoo.training.config import read_training_file
from llamazoo.training.fit import training_dtype
from llamazoo.training.loop import train
from llamazoo.training.optimizer import Update
from llamazoo.training.pinned import pinned
from llamazoo.training.tensorboard import TensorBoard
from llamazoo.training.watch import Point, Watcher

__all__ = ["run"]

MODEL = "model"
OF_FILE = "train.lr=1e-3"


def run(
    file: Annotated[Path, typer.Argument(help="A training file: a model, data and a recipe; docs/training.md tells how to write one.")],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where checkpoints, metrics and the trained model go.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="PATH=VALUE", help=f"Change a field of the file, such as {OF_FILE} or model.dim=64; repeatable."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write events for TensorBoard into the folder, too.")] = False,
    device: Device = None,
    parts: PartsFiles = None,
) -> None:
    """Train a model by a recipe; what was interrupted goes on, bit for bit.

    Run the same command again, and it goes on where it was.
    """
    read, registry = read_training_file(file, overrides(settings, OF_FILE)), registry_with(parts)
    if (out / MODEL).exists():
        raise SaveError(f"{out / MODEL}: is trained already; choose another folder, or remove {out} and all that is in it to train again")
    weights = None if read.weights is None else read.folder / Path(read.weights).expanduser()
    spec = load_spec(read.model, registry=registry, folder=read.folder)
    place = device_of(device)
    with pinned(read.train, place, read.seed):  # for parts that draw first values from elsewhere than they should
        model = build_model(spec, weights=weights, device=place, dtype=training_dtype(spec), registry=registry)
    data = open_data(read.data, folder=read.folder)
    bar = Bar()
    with at_work(bar.stands), bar:
        watchers = [bar, *([TensorBoard(out / "tensorboard")] if tensorboard else [])]
        trained = train(model, data, read.train, out, seed=read.seed, watchers=watchers)
    save_model(model, out / MODEL, tokenizer=getattr(data, "tokenizer", None))  # a probe has none
    last = trained.points[-1]
    told = f"{counted(trained.tokens)} tokens, validation loss {last.loss:.4f}, {trained.tokens_per_second:,.0f} tokens/s"
    typer.echo(visible(f"{told}; the model is in {out / MODEL}"))


class Bar(Watcher):
    """A progress bar on stderr, with the loss and the time that is left; and a line for each evaluation."""

    def __init__(self) -> None:
        columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}")]
        self.progress = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console(stderr=True))
        self.task = TaskID(0)
        self.step = self.steps = 0

    def __enter__(self) -> "Bar":
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def stands(self) -> str:
        """How far it is, for who interrupts it."""
        told = f"at step {self.step} of {self.steps}" if self.steps else "before the first step"
        return f"{told}; the same command goes on, from the last checkpoint if there is one"

    def begin(self, step: int, steps: int, points: Sequence[Point]) -> None:
        self.step, self.steps = step, steps
        self.task = self.progress.add_task("loss", total=steps, completed=step)
        if step:
            self.progress.print(f"resumed at step {step}")

    def updated(self, step: int, update: Update, seconds: float) -> None:
        self.step = step + 1
        self.progress.update(self.task, completed=step + 1, description="no target" if update.loss is None else f"loss {update.loss:.3f}")

    def evaluated(self, point: Point) -> None:
        self.progress.print(f"step {point.step}: validation loss {point.loss:.4f}")
