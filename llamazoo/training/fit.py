"""Whether a model, data and a recipe go together, told before anything is written or trained."""

from pathlib import Path

import torch

from llamazoo.cost import dtype_of
from llamazoo.data.draws import checked_request
from llamazoo.data.example import DataSet
from llamazoo.decoder import Decoder
from llamazoo.errors import DataError, TrainingError, UnsupportedError
from llamazoo.load_balance import corrected
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.training.recipe import Recipe, Training

__all__ = ["check_compiles", "check_fit", "training_dtype"]


def check_fit(model: Decoder, data: DataSet, recipe: Recipe, folder: Path | None, seed: int) -> None:
    """Raise DataError, TrainingError or UnsupportedError with what would do."""
    checked_request(recipe.seq_len, seed)
    if data.vocab_size > model.spec.vocab_size:
        raise DataError(
            f"the data has {data.vocab_size} different tokens, the model's vocabulary only {model.spec.vocab_size}; "
            f"set vocab_size: {data.vocab_size}"
        )
    if recipe.seq_len > model.spec.max_seq_len:
        raise DataError(f"seq_len {recipe.seq_len} is longer than the model's context, max_seq_len {model.spec.max_seq_len}")
    half = next((f"{name} is {p.dtype}" for name, p in model.named_parameters() if p.dtype.itemsize < 4), None)
    if half is not None:
        told = "small updates would be lost; build the model with dtype=torch.float32, and set precision: bfloat16"
        raise TrainingError(f"{half}, a number type in which {told}")
    if model.division is not None and folder is not None:
        raise TrainingError(
            f"{folder}: each process of a divided model would write its own part under one name; train without a folder, or undivided"
        )
    check_compiles(model, recipe)


def check_compiles(model: Decoder, training: Training, called: str = "the model") -> None:
    """Raise UnsupportedError if the model is to be compiled, and then could not be trained."""
    if training.compile and corrected(model):
        raise UnsupportedError(
            f"{called} has a router with a correction, which follows from where tokens go, and a compiled model does not tell that; "
            "set train.compile: false, or the router's correction: false"
        )


def training_dtype(spec: ArchitectureSpec) -> torch.dtype:
    """The number type in which a model of this spec is trained: its own, but float32 where that has fewer bits."""
    own = dtype_of(spec)
    return own if own.itemsize >= 4 else torch.float32
