"""llamazoo list"""

from typing import Annotated, Any

import typer
from pydantic_core import PydanticUndefined

from llamazoo.cli.arguments import AsJson, PartsFiles
from llamazoo.cli.printed import console, counted, print_json, table
from llamazoo.cli.visible import visible
from llamazoo.cli.wording import defaults, flow, sentence
from llamazoo.contract.component import Component
from llamazoo.cost import describe
from llamazoo.errors import LlamazooError, UnknownComponentError
from llamazoo.parts import registry_with
from llamazoo.registry import Registry
from llamazoo.shelf import Offer, nearest
from llamazoo.spec.compose import load_spec

__all__ = ["run"]

ZOO = "zoo"


def run(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND|zoo]", help="Only this kind (norm, attention, ...), or the zoo.")] = None,
    parts: PartsFiles = None,
    json: AsJson = False,
) -> None:
    """List the parts that specs may name, or the models of the zoo."""
    registry = registry_with(parts)
    if kind == ZOO:
        _list_zoo(registry, json)
        return
    offers = registry.offers(kind)
    if kind is not None and not offers:
        kinds = sorted({offer.component.kind for offer in registry.offers()})
        raise UnknownComponentError(f"no kind of part is named {kind!r}; {nearest(kind, kinds)}kinds: {', '.join(kinds)}; or {ZOO}")
    if json:
        print_json(
            {
                "components": [_data(offer, registry.name_of(offer)) for offer in offers],
                "broken": [str(broken) for broken in registry.broken],
            }
        )
        return
    out = console()
    out.print(_table(registry, offers, sentences=kind is not None))
    for broken in registry.broken:
        out.print(visible(f"not loaded: {broken}"), style="red", soft_wrap=True)


def _table(registry: Registry, offers: list[Offer[type[Component]]], *, sentences: bool) -> Any:
    """Offers by kind; with `sentences`, what each computes above its options."""
    made = table("kind", "name", "options and their defaults", "from")
    last = ""
    for offer in offers:
        kind = offer.component.kind
        if last and kind != last:
            made.add_section()
        lines = [sentence(offer.component), _options(offer)] if sentences else [_options(offer)]
        cells = (registry.name_of(offer), "\n".join(filter(None, lines)), f"{offer.distribution} {offer.version}")
        made.add_row(visible(kind) if kind != last else "", *map(visible, cells))
        last = kind
    return made


def _options(offer: Offer[type[Component]]) -> str:
    """What a user may write after the name, or what an alias stands for."""
    if offer.name != offer.component.name:
        return f"stands for {flow({'type': offer.component.name, **offer.preset})}"
    return ", ".join(
        f"{name}: {'(required)' if default is PydanticUndefined else flow(default)}" for name, default in defaults(offer.component).items()
    )


def _data(offer: Offer[type[Component]], name: str) -> dict[str, Any]:
    return {
        "kind": offer.component.kind,
        "name": name,
        "stands_for": None if offer.name == offer.component.name else {"type": offer.component.name, **offer.preset},
        "options": {
            name: {"required": True} if default is PydanticUndefined else {"required": False, "default": default}
            for name, default in defaults(offer.component).items()
        },
        "description": sentence(offer.component),
        "distribution": offer.distribution,
        "version": offer.version,
    }


def _list_zoo(registry: Registry, json: bool) -> None:
    found, broken = [], {}
    for name in registry.zoo():
        try:
            found.append(_model(name, registry))
        except LlamazooError as error:  # a plugin's spec; the others can be listed
            broken[name] = str(error)
    if json:
        print_json({"zoo": found, "broken": broken})
        return
    numbers = ("parameters", "layers, dim")
    made, out = table("name", *numbers, "type", "licence", "released", right=numbers, whole=("name", "type", "released")), console()
    for model in found:
        known = (model[field] or "" for field in ("model_type", "licence", "released"))
        made.add_row(model["name"], counted(model["parameters"]), f"{model['n_layers']} x {model['dim']}", *map(visible, known))
    out.print(made)
    for name, reason in broken.items():
        out.print(visible(f"{name} cannot be used: {reason}"), style="red", soft_wrap=True)


def _model(name: str, registry: Registry) -> dict[str, Any]:
    """What is told of a model of the zoo: how large it is, and what is known of it."""
    spec = load_spec(name, registry=registry)
    sizes = {"n_layers": spec.n_layers, "dim": spec.dim, "max_seq_len": spec.max_seq_len}
    return {"name": name, "parameters": describe(spec).parameters, **sizes, **spec.about.model_dump()}
