"""What a run can be resumed from, bit for bit: weights, optimizer, random state, and how far it came.

A checkpoint is a folder that appears under its name only when all of it is on the disk, so the newest one is whole,
whenever the process dies.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from llamazoo.errors import TrainingError
from llamazoo.weights.save import save_folder

__all__ = ["Progress", "load_progress", "newest", "restore", "save_checkpoint", "sweep"]

NAME = re.compile(r"step-(\d{9})")
TENSORS, PROGRESS = "tensors.safetensors", "progress.json"
KEPT = 2  # one may be the last that the disk took


class Progress(BaseModel):
    """How far a run came, as data; floats are written so that they are read back exactly."""

    model_config = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")

    identity: str
    """A hash of all that the run follows from; another run's checkpoint is not taken for its own."""
    step: int
    seconds: float = 0.0
    """Spent on updates so far."""
    points: list[dict[str, Any]] = []
    skipped: int = 0
    skipped_in_a_row: int = 0
    summed: float = 0.0
    """Of the batches' losses since the last evaluation."""
    counted: int = 0
    tensor_bytes: int = 0


def save_checkpoint(folder: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Write one, then remove all but the newest two. Raises SaveError; what was there before is whole in any case."""
    place = folder / f"step-{progress.step:09d}"
    tensors = {name: value.detach().contiguous().cpu() for name, value in _tensors(model, optimizer)}
    tensors |= _random_states(model)

    def write(draft: Path) -> None:
        save_file(tensors, draft / TENSORS)
        told = progress.model_copy(update={"tensor_bytes": (draft / TENSORS).stat().st_size})
        (draft / PROGRESS).write_text(told.model_dump_json(indent=1), encoding="utf-8")
        for name in (TENSORS, PROGRESS):
            _to_disk(draft / name)

    save_folder(place, write)
    _to_disk(folder)
    for old in _complete(folder)[:-KEPT]:
        shutil.rmtree(old)
    return place


def newest(folder: Path) -> Path | None:
    """The checkpoint that came furthest, or None."""
    found = _complete(folder)
    return found[-1] if found else None


def sweep(folder: Path) -> None:
    """Remove what a process that died left half-written; only the one process that runs may call it."""
    for draft in folder.glob(".step-*"):
        shutil.rmtree(draft)


def load_progress(place: Path, identity: str) -> Progress:
    """How far a checkpoint came. Raises TrainingError if it is damaged, or another run's."""
    try:
        progress = Progress.model_validate_json((place / PROGRESS).read_text(encoding="utf-8"))
        size = (place / TENSORS).stat().st_size
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise TrainingError(f"{place}: is damaged ({str(error).splitlines()[0]}); remove it to resume from the one before") from None
    if size != progress.tensor_bytes:
        told = f"its {TENSORS} has {size} bytes in place of {progress.tensor_bytes}"
        raise TrainingError(f"{place}: {told}; remove it to resume from the one before")
    if progress.identity != identity:
        raise TrainingError(
            f"{place}: belongs to a run of another model, other data or another recipe; choose another folder, or remove it to begin anew"
        )
    return progress


@torch.no_grad()
def restore(place: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Bring a model and its fresh optimizer to where a checkpoint was taken. Raises TrainingError."""
    try:
        held = load_file(place / TENSORS)
    except Exception as error:  # safetensors raises a class of its own for each of its faults
        raise TrainingError(f"{place}: {TENSORS} cannot be read: {error}; remove it to resume from the one before") from None
    named = dict(model.named_parameters())
    absent = sorted({f"model:{name}" for name in named} - set(held))
    if absent:
        raise TrainingError(f"{place}: lacks {', '.join(absent[:5])}")
    for name, parameter in named.items():
        parameter.copy_(held[f"model:{name}"])
    for name, value in held.items():
        kind, _, rest = name.partition(":")
        if kind == "optimizer":
            key, _, path = rest.partition(":")
            optimizer.state[named[path]][key] = value if key == "step" else value.to(named[path].device)
    torch.set_rng_state(held["random:cpu"])
    if "random:cuda" in held:
        torch.cuda.set_rng_state(held["random:cuda"], next(model.parameters()).device)


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """All that a run holds, by name; what two modules share once."""
    for name, parameter in model.named_parameters():
        yield f"model:{name}", parameter
        for key, value in optimizer.state.get(parameter, {}).items():
            yield f"optimizer:{key}:{name}", value


def _random_states(model: nn.Module) -> dict[str, Tensor]:
    device = next(model.parameters()).device
    states = {"random:cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["random:cuda"] = torch.cuda.get_rng_state(device)
    return states


def _complete(folder: Path) -> list[Path]:
    """All checkpoints, the one that came furthest last."""
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name)) if folder.is_dir() else []


def _to_disk(path: Path) -> None:
    """Wait until what was written is on the disk: a rename may get there before the file does."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
