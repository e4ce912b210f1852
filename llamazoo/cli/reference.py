"""llamazoo reference"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pluggy
import typer
from pydantic_core import PydanticUndefined

from llamazoo import hooks
from llamazoo.cli.wording import defaults, flow, kind_of_value
from llamazoo.contract.component import Component
from llamazoo.registry import Registry
from llamazoo.shelf import Offer
from llamazoo.spec.schema import options_schema

__all__ = ["reference", "run"]

BEGINNING = """\
# Reference

Written by `llamazoo reference > docs/reference.md`, from the code itself. [plugins.md](plugins.md) tells how to use the hooks,
[specs.md](specs.md) how to name the parts; `llamazoo list` shows the parts of plugins too.
"""


def run() -> None:
    """Print the reference of hooks and built-in parts, as Markdown."""
    typer.echo(reference(), nl=False)


def reference() -> str:
    """All hooks, and all parts that llamazoo itself brings, with their options; nothing of what else is installed."""
    return "\n".join([BEGINNING, "## Hooks\n", *_hooks(), "## Parts\n", *_parts()]).rstrip() + "\n"


def _hooks() -> Iterator[str]:
    manager = pluggy.PluginManager("llamazoo")
    for name, function in vars(hooks).items():
        if manager.parse_hookspec_opts(hooks, name) is not None:
            yield f"### `{name}`\n\n```python\n{_heading(function)}\n```\n\n{inspect.getdoc(function)}\n"


def _heading(function: Callable[..., Any]) -> str:
    """A function's first line, its annotations as they are written."""
    signature = inspect.signature(function)
    arguments = ", ".join(f"{name}: {_written(p.annotation)}" for name, p in signature.parameters.items())
    return f"def {function.__name__}({arguments}) -> {_written(signature.return_annotation)}"


def _written(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else str(annotation.__name__)


def _parts() -> Iterator[str]:
    offers = Registry.built_in().offers()
    last = ""
    for offer in offers:
        component = offer.component
        if component.kind != last:
            yield f"### {component.kind}\n"
            last = component.kind
        if offer.name == component.name:
            yield f"#### `{component.name}`\n\n{inspect.getdoc(component)}\n"
            yield from _aliases([other for other in offers if other.component is component and other is not offer])
            yield from _options(component)


def _aliases(offers: list[Offer[type[Component]]]) -> Iterator[str]:
    if offers:
        yield "Also: " + ", ".join(f"`{o.name}` for `{flow({'type': o.component.name, **o.preset})}`" for o in offers) + ".\n"


def _options(component: type[Component]) -> Iterator[str]:
    """The table of a component's options, and those of the maps that an option may be, by their types."""
    schema = options_schema(component)
    properties = schema.get("properties", {})
    if properties:
        yield _table(properties, defaults(component))
    for option, told in properties.items():
        for arm in (told, *told.get("anyOf", [])):
            for name, place in arm.get("discriminator", {}).get("mapping", {}).items():
                inner = schema["$defs"][place.rpartition("/")[2]]
                fields = {field: value for field, value in inner["properties"].items() if field != "type"}
                usual = {field: value.get("default", PydanticUndefined) for field, value in fields.items()}
                yield f"`{option}: {{type: {name}}}`: {inner['description']}\n\n{_table(fields, usual)}"


def _table(properties: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    rows = [
        f"| `{name}` | {kind_of_value(told)} | {_default(usual[name])} | {told['description'].replace('|', chr(92) + '|')} |"
        for name, told in properties.items()
    ]
    return "\n".join(["| option | takes | default | |", "|---|---|---|---|", *rows]) + "\n"


def _default(value: Any) -> str:
    return "(required)" if value is PydanticUndefined else f"`{flow(value)}`"
