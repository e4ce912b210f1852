"""What a run can be resumed from, bit for bit: weights, optimizer, random state, and how far it came.

A checkpoint is a folder that appears under its name only when all of it is on the disk, so the newest one is whole,
whenever the process dies.
"""

import hashlib
import os
import re
import shutil
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from llamazoo.errors import TrainingError
from llamazoo.training.identity import Identity
from llamazoo.training.progress import Progress
from llamazoo.training.randomness import random_states, set_random_states
from llamazoo.training.sealed import sealed, unsealed
from llamazoo.weights.save import save_folder
from llamazoo.weights.store import Outgoing, write_safetensors

__all__ = ["load_progress", "newest", "restore", "save_checkpoint", "sweep"]

NAME = re.compile(r"step-([0-9]{9,})")
TENSORS, PROGRESS = "tensors.safetensors", "progress.json"
KEPT = 2  # one may be the last that the disk took
MOMENTS = ("exp_avg", "exp_avg_sq")  # what AdamW remembers of each parameter, beside the number of its step
BEFORE = "remove it to resume from the one before"


def save_checkpoint(folder: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Write one, then remove all but the newest two. Raises SaveError; what was there before is whole in any case."""
    place = folder / _name(progress.step)
    tensors = {name: value.detach().cpu() for name, value in _tensors(model, optimizer).items()}

    def write(draft: Path) -> None:
        outgoing = [Outgoing(name, held.dtype, tuple(held.shape), partial(tensors.__getitem__, name)) for name, held in tensors.items()]
        write_safetensors(draft / TENSORS, sorted(outgoing, key=lambda each: -each.dtype.itemsize))  # so that each begins at a multiple
        told = progress.model_copy(update={"digest": _digest(draft / TENSORS)})
        (draft / PROGRESS).write_text(sealed(told), encoding="utf-8")
        _to_disk(draft / PROGRESS)

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


def load_progress(place: Path, identity: Identity, steps: int) -> Progress:
    """How far a checkpoint of a run of so many steps came. Raises TrainingError if it is damaged, or another run's."""
    try:
        progress = unsealed((place / PROGRESS).read_bytes(), Progress)
        digest = _digest(place / TENSORS)
    except OSError as error:
        raise TrainingError(f"{place}: is damaged ({error}); {BEFORE}") from None
    except ValueError as error:
        raise TrainingError(f"{place}: is damaged ({PROGRESS}: {error}); {BEFORE}") from None
    if digest != progress.digest:
        raise TrainingError(f"{place}: is damaged ({TENSORS} is not what was written: its SHA-256 is another); {BEFORE}")
    unlike = identity.unlike(progress.identity)
    if unlike is not None:
        every = f"remove {place.parent} to begin anew"
        raise TrainingError(f"{place}: belongs to a run of {unlike}; choose another folder, or {every}")
    if place.name != _name(progress.step) or progress.step > steps:
        told = f"{PROGRESS} says step {progress.step}, of a run of {steps}"
        raise TrainingError(f"{place}: is damaged ({told}); {BEFORE}")
    return progress


@torch.no_grad()
def restore(place: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Bring a model and its fresh optimizer to where a checkpoint was taken. Raises TrainingError, and nothing is changed then."""
    try:
        held = load_file(place / TENSORS)
    except Exception as error:  # safetensors raises a class of its own for each of its faults
        raise TrainingError(f"{place}: {TENSORS} cannot be read: {error}; {BEFORE}") from None
    wrong = _differences(held, _tensors(model, optimizer))
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise TrainingError(f"{place}: {TENSORS} is not of this model: {'; '.join(wrong[:5])}{more}; {BEFORE}")
    try:
        set_random_states(held, next(model.parameters()).device)
    except ValueError as error:
        raise TrainingError(f"{place}: its random state is none ({error}); {BEFORE}") from None
    named = dict(model.named_parameters())
    for name, parameter in named.items():
        parameter.copy_(held[f"model:{name}"])
    names = {parameter: name for name, parameter in named.items()}
    trained = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    state = {number: {key: held[f"optimizer:{key}:{name}"] for key in ("step", *MOMENTS)} for number, name in enumerate(trained)}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})  # which puts each where this optimizer keeps it


def _differences(held: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """All in which the tensors of a file are not those of the run."""
    absent, unknown = sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    wrong = [f"{name!a} is missing" for name in absent] + [f"{name[:200]!a} is unknown" for name in unknown]
    for name in sorted(held.keys() & wanted.keys()):
        found, due = ((each.dtype, list(each.shape)) for each in (held[name], wanted[name]))
        if found != due:
            wrong.append(f"{name!a} is {found[0]} {found[1]} in place of {due[0]} {due[1]}")
    return wrong


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that a run holds, by name; what two modules share once. What AdamW has no memory of yet it takes for noughts: so do we."""
    found = {f"model:{name}": parameter.detach() for name, parameter in model.named_parameters()}
    fused = {parameter: bool(group.get("fused")) for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter in fused:
            state = optimizer.state.get(parameter) or {}
            first = torch.zeros((), dtype=torch.float32 if fused[parameter] else None)
            found[f"optimizer:step:{name}"] = state["step"] if state else first
            for key in MOMENTS:
                found[f"optimizer:{key}:{name}"] = state[key] if state else torch.zeros_like(parameter, device="cpu")
    return found | random_states(next(model.parameters()).device)


def _name(step: int) -> str:
    return f"step-{step:09d}"


def _complete(folder: Path) -> list[Path]:
    """All checkpoints, the one that came furthest last."""
    found = [path for path in folder.glob("step-*") if NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    """Wait until what was written is on the disk: a rename may get there before the file does."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
