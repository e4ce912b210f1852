"""llamazoo convert"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from llamazoo.build import load_checkpoint
from llamazoo.cli.arguments import DtypeOption, PartsFiles, settings_of, torch_dtype
from llamazoo.cli.printed import console
from llamazoo.cli.target import tokenizer_of
from llamazoo.cli.visible import visible
from llamazoo.cost import dtype_of
from llamazoo.errors import NonFiniteError
from llamazoo.parts import registry_with
from llamazoo.registry import Registry
from llamazoo.weights.checkpoint import Checkpoint, open_checkpoint, options_of, write_checkpoint
from llamazoo.weights.save import save_folder
from llamazoo.weights.store import Store

__all__ = ["convert", "run"]


def run(
    source: Annotated[Path, typer.Argument(help="A model's folder of any format, or a file of a format that is one file.")],
    destination: Annotated[Path, typer.Argument(help="The folder to make; nothing is ever overwritten.")],
    to: Annotated[str, typer.Option(help="The format to write: native, hf, meta, or a plugin's.")] = "native",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="An option of the format, such as type=q8_0 for gguf; repeatable."),
    ] = None,
    dtype: DtypeOption = None,
    check_finite: Annotated[bool, typer.Option(help="Refuse weights that hold NaN or infinity.")] = True,
    parts: PartsFiles = None,
) -> None:
    """Convert a model's folder or file to another format, or to another dtype.

    The tokenizer comes along if the source has one. The folder appears whole or not at all.
    """
    options = settings_of(option, "--option", "type=q8_0")
    registry = registry_with(parts)
    typer.echo(visible(convert(source, destination, registry, to=to, options=options, dtype=torch_dtype(dtype), check_finite=check_finite)))


def convert(
    source: Path,
    destination: Path,
    registry: Registry,
    *,
    to: str = "native",
    options: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    check_finite: bool = True,
) -> str:
    """Read one model and write it anew, with a progress bar on stderr; returns one line about what was written."""
    target = registry.format(to)
    chosen = options_of(target, options)
    checkpoint = open_checkpoint(source, registry)
    tokenizer = tokenizer_of(source, registry)
    dtype = dtype_of(checkpoint.spec, dtype)

    def write(draft: Path) -> None:
        with _progress(checkpoint.store) as advance:
            watched = replace(checkpoint, store=Watched(checkpoint, dtype, advance, check_finite))
            model = load_checkpoint(checkpoint.spec, watched, "cpu", dtype)
        write_checkpoint(target, model, draft, chosen, tokenizer)

    save_folder(destination, write)  # which looks at the destination before it lets anything be read
    along = f", tokenizer of {tokenizer.vocab_size} ids" if tokenizer is not None else ", no tokenizer"
    asked = "".join(f" {name}={value}" for name, value in (options or {}).items())
    return f"{destination}: {to}{asked}, {str(dtype).removeprefix('torch.')}, {len(checkpoint.store.names())} tensors read{along}"


@dataclass(frozen=True)
class Watched:
    """The tensors of a checkpoint; each read is told to `advance`, in bytes, and refused if it is not finite in `into`."""

    checkpoint: Checkpoint
    into: torch.dtype
    advance: Callable[[int], None]
    check_finite: bool

    def names(self) -> list[str]:
        return self.checkpoint.store.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self.checkpoint.store.shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self.checkpoint.store.dtype(name)

    def read(self, name: str) -> Tensor:
        tensor = self.checkpoint.store.read(name)
        if self.check_finite and tensor.is_floating_point():
            self._refuse_non_finite(name, tensor)
        self.advance(tensor.nbytes)
        return tensor

    def _refuse_non_finite(self, name: str, tensor: Tensor) -> None:
        where = f"{self.checkpoint.folder}: the tensor {name!a}"
        if not tensor.isfinite().all():
            raise NonFiniteError(f"{where} holds NaN or infinity; --no-check-finite converts it all the same")
        if not tensor.to(self.into).isfinite().all():
            dtype = str(self.into).removeprefix("torch.")
            raise NonFiniteError(f"{where} holds numbers that are infinite in {dtype}; choose another --dtype, such as bfloat16 or float32")


@contextmanager
def _progress(store: Store) -> Iterator[Callable[[int], None]]:
    total = sum(math.prod(store.shape(name)) * store.dtype(name).itemsize for name in store.names())
    out = console(stderr=True)
    columns = (TextColumn("reading", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not out.is_terminal, transient=True) as progress:
        task = progress.add_task("reading", total=total)
        yield lambda count: progress.advance(task, count)
