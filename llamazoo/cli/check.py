"""llamazoo check"""

from pathlib import Path
from typing import Annotated

import typer

from llamazoo.build import build_model
from llamazoo.cli.arguments import PartsFiles, Settings, overrides
from llamazoo.cli.target import checkpoint_at, tokenizer_of
from llamazoo.cli.visible import visible
from llamazoo.cost import describe
from llamazoo.errors import TokenizerError
from llamazoo.parts import registry_with
from llamazoo.registry import Registry
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.compose import load_spec
from llamazoo.weights.checkpoint import Checkpoint, format_of
from llamazoo.weights.load import compare

__all__ = ["run"]


def run(
    target: Annotated[str, typer.Argument(help="A name of the zoo, a spec's file, or a model's folder of any format.")],
    settings: Settings = None,
    parts: PartsFiles = None,
) -> None:
    """Check a spec, or a model's folder against its spec, without reading weights.

    Of a folder, the name, shape and number type of every tensor are compared with the model, and so is the size of the tokenizer.
    """
    registry, changes = registry_with(parts), overrides(settings)
    checkpoint = checkpoint_at(target, registry)
    spec = load_spec(target if checkpoint is None else checkpoint.spec, changes, registry=registry)
    found = [("spec", "every field is known, every part fits"), ("model", _size(spec))]
    if checkpoint is not None:
        found += _check_weights(checkpoint, spec, registry) + _check_tokenizer(checkpoint.folder, spec, registry)
    typer.echo(visible(f"{target}: all is well"))
    for what, told in found:
        typer.echo(visible(f"  {what:<10} {told}"))


def _size(spec: ArchitectureSpec) -> str:
    return f"{spec.n_layers} layers, {describe(spec).parameters:,} parameters"


def _check_weights(checkpoint: Checkpoint, spec: ArchitectureSpec, registry: Registry) -> list[tuple[str, str]]:
    _, report = compare(build_model(spec, device="meta"), checkpoint)
    form = format_of(checkpoint.folder, registry).name
    return [
        ("weights", f"{form}, {len(checkpoint.store.names())} tensors: every name, shape and number type fits"),
        *(("dropped", f"{name} ({reason})") for name, reason in report.dropped.items()),
    ]


def _check_tokenizer(path: Path, spec: ArchitectureSpec, registry: Registry) -> list[tuple[str, str]]:
    tokenizer = tokenizer_of(path, registry)
    if tokenizer is None:
        return [("tokenizer", "none")]
    if tokenizer.vocab_size > spec.vocab_size:
        raise TokenizerError(f"{path}: the tokenizer has {tokenizer.vocab_size} ids, the model's vocabulary only {spec.vocab_size}")
    return [("tokenizer", f"{tokenizer.vocab_size} ids, of the model's {spec.vocab_size}")]
