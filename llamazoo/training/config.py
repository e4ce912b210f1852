"""A training file: a model, data, and a recipe."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from llamazoo.data.config import DataConfig
from llamazoo.errors import SpecError
from llamazoo.spec.overrides import changed
from llamazoo.spec.problems import explain, shown
from llamazoo.spec.yaml import read_yaml_file
from llamazoo.training.recipe import Recipe

__all__ = ["TrainingFile", "read_training_file"]


class TrainingFile(BaseModel):
    """What `llamazoo train` reads."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    version: Literal[1] = 1
    """The version of this format."""
    model: str | dict[str, Any]
    """What is trained: a zoo name, a spec's file (seen from the training file, as all names of files here), or a spec."""
    weights: str | None = None
    """A model's folder to begin from, in place of fresh values."""
    data: DataConfig
    """What it is trained on: a `source` and its options."""
    train: Recipe
    """How it is trained."""
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Of the order of the data."""

    _folder: Path = PrivateAttr(default_factory=Path.cwd)

    @property
    def folder(self) -> Path:
        """Where the training file is, from which names of files count."""
        return self._folder


def read_training_file(path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> TrainingFile:
    """The training file at a path, with `overrides` over it, those of `model` as under `extends`.

    Raises SpecError with the path to each field that is wrong.
    """
    file = Path(path)
    if not file.exists():
        raise SpecError("there is no such file; a training file is YAML", source=str(file))
    data = read_yaml_file(file)
    if not isinstance(data, dict):
        raise SpecError(f"a training file is a map of fields, found {shown(data)}", source=str(file))
    try:
        read = TrainingFile.model_validate(changed(data, overrides, "model") if overrides else data)
    except ValidationError as error:
        found = explain(error, TrainingFile)
        raise type(found)(*found.problems, source=str(file)) from None
    read._folder = file.parent.resolve()
    return read
