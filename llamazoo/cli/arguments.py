"""Arguments and options that several commands share."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from llamazoo.errors import SamplingError, SpecError
from llamazoo.spec.yaml import read_yaml

__all__ = [
    "AsJson",
    "Device",
    "Dtype",
    "DtypeOption",
    "MinP",
    "PartsFiles",
    "RepetitionPenalty",
    "Seed",
    "Settings",
    "Temperature",
    "TopK",
    "TopP",
    "check_filters",
    "overrides",
    "settings_of",
    "torch_dtype",
]


class Dtype(StrEnum):
    """The number types that a model may be held in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT64 = "float64"


OF_SPEC = "position.theta=5e5"

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DtypeOption = Annotated[
    Dtype | None,
    typer.Option("--dtype", metavar="DTYPE", help=f"The number type of the weights, in place of the model's own: {', '.join(Dtype)}."),
]
PartsFiles = Annotated[
    list[Path] | None,
    typer.Option("--parts", metavar="FILE.py", help="A Python file with component classes of yours, for specs to name; repeatable."),
]
Temperature = Annotated[float, typer.Option(help="0 takes the best token; more is bolder.")]
TopK = Annotated[int | None, typer.Option(help="Draw from the k best tokens.")]
TopP = Annotated[float | None, typer.Option(help="Draw from the fewest tokens whose probabilities reach p.")]
MinP = Annotated[float | None, typer.Option(help="Draw from tokens with at least p times the best one's probability.")]
RepetitionPenalty = Annotated[float, typer.Option(help="Above 1: weaken tokens that were there before.")]
Seed = Annotated[int | None, typer.Option(help="Equal seeds give equal texts.")]
Device = Annotated[str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1, mps.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help=f"Change a field of the spec, such as {OF_SPEC}; repeatable."),
]


def check_filters(temperature: float, *filters: float | None) -> None:
    """Raise SamplingError for --top-k and the like where nothing is drawn."""
    if temperature == 0 and any(setting is not None for setting in filters):
        raise SamplingError("--top-k, --top-p and --min-p say what to draw from, but --temperature 0 draws nothing; give one above 0")


def overrides(settings: Sequence[str] | None, example: str = OF_SPEC) -> dict[str, Any]:
    """{"position.theta": 5e5} of ["position.theta=5e5"]; values are YAML. Raises SpecError, with an example."""
    return settings_of(settings, "--set", example)


def settings_of(settings: Sequence[str] | None, flag: str, example: str) -> dict[str, Any]:
    """The same for a flag that is repeated with path=value. Raises SpecError."""
    found: dict[str, Any] = {}
    for setting in settings or ():
        path, equals, value = setting.partition("=")
        if not (path and equals):
            raise SpecError(f"{flag} takes path=value, such as {example}; found {setting!r}")
        if path in found:
            raise SpecError(f"{flag} gives {path!r} twice")
        found[path] = read_yaml(value, f"{flag} {path}")
    return found


def torch_dtype(chosen: Dtype | None) -> torch.dtype | None:
    """The same as PyTorch knows it."""
    found: torch.dtype | None = None if chosen is None else getattr(torch, chosen.value)
    return found
