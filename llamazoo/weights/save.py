"""From a model to a folder: made beside its place, then moved there whole."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from llamazoo.decoder import Decoder
from llamazoo.errors import SaveError, WeightsError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.checkpoint import Format
from llamazoo.weights.load import targets
from llamazoo.weights.rotary import Turns
from llamazoo.weights.rule import Move, plan
from llamazoo.weights.store import Outgoing

__all__ = ["outgoing", "save_folder"]


def save_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a new folder, which appears under its name only when it is complete."""
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and not any(folder.iterdir()))):
        raise SaveError(f"{folder}: exists already; nothing is ever overwritten, so choose another name or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise SaveError(f"{folder}: cannot be made: {error.strerror}") from None
    try:
        write(draft)
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o777 & ~mask)
        draft.replace(folder)
    except OSError as error:
        raise SaveError(f"{folder}: {error.strerror}; nothing was saved") from None
    finally:
        if draft.exists():
            shutil.rmtree(draft)


def outgoing(model: Decoder, form: type[Format], stored: ArchitectureSpec | None = None) -> Iterator[Outgoing]:
    """A model's tensors as a format writes them: described now, each made when it is asked for. Raises WeightsError.

    `stored` is what will be read back, if that is another spec than the model's.
    """
    stored = stored or model.spec
    tensors, _ = targets(model)
    turns = Turns(model.spec, stored, form.layout(stored))
    moves, left = plan(form.table(model.spec, stored), tensors, "ours")
    if left:
        raise WeightsError(f"the format has no place for the tensors {', '.join(left)}")
    for move in moves:
        absent = [name for name in move.ours if name not in tensors]
        if absent:
            raise WeightsError(
                f"the format writes {', '.join(move.theirs)} from {', '.join(move.ours)}; the model has no {', '.join(absent)}"
            )
        ours = {name: tensors[name] for name in move.ours}
        shapes = move.rule.write([_shape(model, name, held) for name, held in ours.items()])
        making = _Making(model, move, ours, turns)
        for index, (name, shape) in enumerate(zip(move.theirs, shapes, strict=True)):
            yield Outgoing(name, shape.dtype, tuple(shape.shape), making.maker(index))


def _shape(model: Decoder, name: str, held: Tensor) -> Tensor:
    shape = held.shape if model.division is None else model.division.shape(name, held)
    return torch.empty(shape, dtype=held.dtype, device="meta")


class _Making:
    """What one move writes: made once for all of its names, which come one after the other, and held until the last of them."""

    def __init__(self, model: Decoder, move: Move, ours: dict[str, Tensor], turns: Turns) -> None:
        self.model, self.move, self.ours, self.turns = model, move, ours, turns
        self.made: list[Tensor] | None = None

    def maker(self, index: int) -> Callable[[], Tensor]:
        return lambda: self._make(index)

    def _make(self, index: int) -> Tensor:
        if self.made is None:
            division, ours = self.model.division, self.ours
            held = {name: held.detach() if division is None else division.asked(name, held) for name, held in ours.items()}
            self.made = self.move.rule.write([self.turns.write(name, value) for name, value in held.items()])
        made = self.made[index]
        if index == len(self.made) - 1:
            self.made = None
        return made
