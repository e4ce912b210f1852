"""llamazoo diff"""

from typing import Annotated, Any

import typer
from rich.text import Text

from llamazoo.cli.arguments import AsJson, PartsFiles
from llamazoo.cli.printed import console, counted, print_json, table
from llamazoo.cli.target import spec_of
from llamazoo.cli.visible import visible
from llamazoo.cli.wording import flow
from llamazoo.cost import Description, describe, readable
from llamazoo.parts import registry_with
from llamazoo.spec.differences import Difference, differences

__all__ = ["run"]

DIFFERENT = 1
COSTS = ("parameters", "active_parameters", "weight_bytes", "cache_bytes_per_token", "cache_bytes", "flops_per_token")
BYTES = ("weight_bytes", "cache_bytes_per_token", "cache_bytes")


def run(
    ours: Annotated[str, typer.Argument(metavar="A", help="A name of the zoo, a spec's file, or a model's folder of any format.")],
    theirs: Annotated[str, typer.Argument(metavar="B", help="The other.")],
    parts: PartsFiles = None,
    json: AsJson = False,
) -> None:
    """Show where two models differ, and what it costs; exit with 0 if they are alike, 1 if not.

    Only what changes the model counts: not kernels, number types, first values or remarks. As with diff(1), 2 is trouble.
    """
    registry = registry_with(parts)
    mine, other = (spec_of(target, {}, registry) for target in (ours, theirs))
    found = differences(mine, other)
    costs = describe(mine), describe(other)
    if json:
        print_json(_data(found, *costs))
    elif found:
        _show(found, ours, theirs, *costs)
    if found:
        raise typer.Exit(DIFFERENT)


def _show(found: list[Difference], ours: str, theirs: str, mine: Description, other: Description) -> None:
    out = console()
    out.print(Text(visible(f"--- {ours}"), style="red"))
    out.print(Text(visible(f"+++ {theirs}"), style="green"))
    for difference in found:
        out.print(Text(visible(difference.where), style="bold"), soft_wrap=True)
        out.print(Text(visible(f"- {_written(difference.ours)}"), style="red"), soft_wrap=True)
        out.print(Text(visible(f"+ {_written(difference.theirs)}"), style="green"), soft_wrap=True)
    out.print()
    made = table("", "-", "+", "change", right=("-", "+", "change"))
    for name in COSTS:
        before, after = getattr(mine, name), getattr(other, name)
        told = readable if name in BYTES else counted
        made.add_row(name.replace("_", " "), told(before), told(after), _change(before, after))
    out.print(made)


def _written(value: Any) -> str:
    """A value as a spec would have it; what is not there as it is told."""
    return value if isinstance(value, str) else flow(value)


def _change(before: int, after: int) -> str:
    if before == after:
        return "none"
    return f"{after - before:+,}" if not before else f"{100 * (after - before) / before:+.3g} %"


def _data(found: list[Difference], mine: Description, other: Description) -> dict[str, Any]:
    return {
        "equal": not found,
        "differences": [
            {"path": each.path, "ours": each.ours, "theirs": each.theirs, "layers": None if each.layers is None else list(each.layers)}
            for each in found
        ],
        "costs": {name: {"ours": getattr(mine, name), "theirs": getattr(other, name)} for name in COSTS},
    }
