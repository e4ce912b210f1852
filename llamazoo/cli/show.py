"""llamazoo show"""

from pathlib import Path
from typing import Annotated, Any

import typer

from llamazoo.cli.arguments import AsJson, DtypeOption, PartsFiles, Settings, overrides, torch_dtype
from llamazoo.cli.printed import console, counted, print_json, table
from llamazoo.cli.target import spec_of
from llamazoo.cli.visible import visible
from llamazoo.cost import Description, describe, readable
from llamazoo.diagram.depict import depict
from llamazoo.errors import InputError
from llamazoo.parts import registry_with
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["run"]


def run(
    spec: Annotated[str, typer.Argument(help="A name of the zoo, a spec's file, or a model's folder of any format.")],
    settings: Settings = None,
    dtype: DtypeOption = None,
    parts: PartsFiles = None,
    json: AsJson = False,
    diagram: Annotated[
        str | None, typer.Option("--diagram", metavar="FILE.svg", help="Draw the architecture into this file too; - for stdout, alone.")
    ] = None,
) -> None:
    """Show what a model is made of and what it costs, without building it."""
    found = spec_of(spec, overrides(settings), registry_with(parts))
    if diagram is not None:
        _draw(found, diagram, Path(spec).stem if Path(spec).suffix in (".yaml", ".yml", ".json") else Path(spec).name or spec)
        if diagram == "-":
            return
    description = describe(found, torch_dtype(dtype))
    if json:
        print_json(_data(found, description))
        return
    out = console()
    out.print(visible(found.source or spec), style="bold")
    out.print(visible(_widths(found)) + "\n")
    out.print(_layers(found, description))
    out.print()
    for what, told in _costs(found, description):
        out.print(f"{what:<12} {told}")


def _draw(spec: ArchitectureSpec, target: str, title: str) -> None:
    """The diagram into a file, or to stdout. Only a file that is called .svg is written over: a slip must not cost a spec."""
    if target != "-" and Path(target).suffix.lower() != ".svg":
        raise InputError(f"--diagram takes the name of a file that ends with .svg, or - for stdout; found {target!r}")
    drawn = depict(spec, title)
    if target == "-":
        typer.echo(drawn, nl=False)
    else:
        Path(target).write_text(drawn, encoding="utf-8")


def _widths(spec: ArchitectureSpec) -> str:
    site = spec.site()
    hidden = f", hidden width {spec.hidden_dim}" if spec.hidden_dim else ""
    grouped = f" ({site.n_kv_heads} for keys and values)" if site.n_kv_heads != site.n_heads else ""
    heads = f"{site.n_heads} heads of {site.head_dim}{grouped}"
    return f"vocabulary {spec.vocab_size}, width {spec.dim}{hidden}, {heads}, context {spec.max_seq_len}"


def _layers(spec: ArchitectureSpec, description: Description) -> Any:
    numbers = ("layers", "parameters of one", "of all")
    made = table("", *numbers, right=numbers)
    made.add_row(visible(f"embedding: {spec.embedding.type}"), "", "", f"{description.embedding_parameters:,}")
    rest = description.parameters - description.embedding_parameters
    for count, story, parameters in description.layers:
        made.add_row(visible(story), str(count), f"{parameters:,}", f"{count * parameters:,}")
        rest -= count * parameters
    tied = " (tied)" if getattr(spec.head.options, "tied", False) else ""
    norm = (spec.final_norm or spec.norm).type
    made.add_row(visible(f"positions, final {norm}, head: {spec.head.type}{tied}"), "", "", f"{rest:,}", end_section=True)
    made.add_row("in all", str(spec.n_layers), "", f"{description.parameters:,}", style="bold")
    return made


def _costs(spec: ArchitectureSpec, description: Description) -> list[tuple[str, str]]:
    dtype = str(description.dtype).removeprefix("torch.")
    row = f"{readable(description.cache_bytes)} for a row of {spec.max_seq_len} tokens"
    return [
        ("parameters", counted(description.parameters) + _active(description)),
        ("weights", f"{readable(description.weight_bytes)} in {dtype}"),
        ("cache", f"{readable(description.cache_bytes_per_token)} per token, {row}"),
        ("operations", f"{counted(description.flops_per_token)} per token that sees {spec.max_seq_len // 2} others (FLOPs, forward)"),
    ]


def _active(description: Description) -> str:
    """How many of the parameters take part in one token, where that is not all."""
    active = description.active_parameters
    return "" if active == description.parameters else f", {counted(active)} of them for one token"


def _data(spec: ArchitectureSpec, description: Description) -> dict[str, Any]:
    return {
        "source": spec.source,
        "dtype": str(description.dtype).removeprefix("torch."),
        "parameters": description.parameters,
        "active_parameters": description.active_parameters,
        "embedding_parameters": description.embedding_parameters,
        "weight_bytes": description.weight_bytes,
        "cache_bytes_per_token": description.cache_bytes_per_token,
        "cache_bytes": description.cache_bytes,
        "flops_per_token": description.flops_per_token,
        "layers": [{"count": count, "parts": story, "parameters": parameters} for count, story, parameters in description.layers],
        "spec": spec.canonical(),
    }
