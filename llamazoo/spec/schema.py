"""The JSON Schema of a spec, made on demand from what is installed: editors complete and check specs with it.

It says as much as a schema can. What depends on several fields at once (heads that divide, a position that an attention does
not honour) is checked by `load_spec` alone.
"""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from pydantic_core import to_jsonable_python

from llamazoo.contract.component import Component
from llamazoo.contract.options import ComponentOptions
from llamazoo.discovery import told
from llamazoo.errors import DuplicateComponentError, PluginError
from llamazoo.registry import Registry, default_registry
from llamazoo.shelf import Offer
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.spec.part import PART_MARK
from llamazoo.spec.patch import LAYER_PARTS

__all__ = ["json_schema", "options_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LITERAL = ("default", "const", "enum", "examples")  # what holds data rather than schemas

Schema = dict[str, Any]


def json_schema(registry: Registry | None = None) -> Schema:
    """The JSON Schema (draft 2020-12) of a spec, with every part that `registry` knows, by name, alias and distribution/name."""
    definitions = _Definitions(registry or default_registry())
    own = ArchitectureSpec.model_json_schema(ref_template="#/$defs/{model}")
    patch = own["$defs"].pop("LayerPatch")
    definitions.made |= {name: definitions.refined(value, "", changed=False) for name, value in own["$defs"].items()}
    strict, loose = (_fields(own, patch, definitions, changed=changed) for changed in (False, True))
    return {
        "$schema": DIALECT,
        "title": "llamazoo spec",
        "description": own["description"],
        "type": "object",
        "properties": {"extends": {"type": "string", "description": "A zoo name, or a file beside or below, that this changes."}, **loose},
        "additionalProperties": False,
        "allOf": [
            # What extends another spec may name a part's options without its type, and leave anything out.
            {
                "if": {"not": {"required": ["extends"]}},
                "then": {"required": own["required"], "properties": {name: strict[name] for name in strict if strict[name] != loose[name]}},
            },
            # Only where positions have names is `position` one of them.
            {
                "if": {"not": {"anyOf": [{"required": ["extends"]}, {"required": ["positions"]}]}},
                "then": {"properties": {"position": definitions.part("position", None, changed=False)}},
            },
        ],
        "$defs": dict(sorted(definitions.made.items())),
    }


def options_schema(component: type[Component]) -> Schema:
    """The JSON Schema of a component's own options, every default included; PluginError if one cannot be described."""
    try:
        return _options_schema(component.Options)
    except Exception as error:  # types without a schema, defaults that cannot be made: whatever a stranger may write
        raise PluginError(f"the options of the {component.kind} {component.name!r} have no JSON Schema: {told(error)}") from error


def _options_schema(options: type[ComponentOptions]) -> Schema:
    schema = options.model_json_schema()
    for name, field in options.model_fields.items():
        told = schema["properties"][field.alias or name]
        if not field.is_required() and "default" not in told:
            told["default"] = to_jsonable_python(field.get_default(call_default_factory=True, validated_data={}), fallback=repr)
    return schema


def _fields(own: Schema, patch: Schema, definitions: "_Definitions", *, changed: bool) -> Schema:
    """The fields of a spec; with `changed`, of one that changes another."""
    fields: Schema = {name: definitions.refined(value, "", changed=changed) for name, value in own["properties"].items()}
    position = definitions.part("position", None, changed=changed)
    fields["position"] |= {"anyOf": [position, {"type": "string", "description": "One of `positions`."}]}
    fields["positions"] |= {"type": ["object", "null"], "additionalProperties": position}
    fields["layers"] |= {"type": ["array", "null"], "items": _patch(patch, definitions)}
    return fields


def _patch(patch: Schema, definitions: "_Definitions") -> Schema:
    """An entry of `layers`: it changes the parts that the spec has."""
    fields = {name: definitions.refined(value, "", changed=True) for name, value in patch["properties"].items()}
    for name in LAYER_PARTS:
        fields[name] = {"description": fields[name]["description"], **definitions.part(name, None, changed=True)}
    chosen = [{"required": ["at"]}, {"required": ["every"]}]
    return {"description": patch["description"], "type": "object", "properties": fields, "additionalProperties": False, "oneOf": chosen}


class _Definitions:
    """What the schema refers to: for each kind the union of its parts, for each part its options, both strict and as a change."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.made: Schema = {}

    def part(self, kind: str, default: str | None, *, changed: bool) -> Schema:
        """A part of this kind: a name, or a map with a type; without a type it is `default`, or, as a change, what was there."""
        key = kind + (f" ({default})" if default and not changed else "") + (" (change)" if changed else "")
        return self._reference(key, lambda: self._union(kind, default, changed=changed))

    def _union(self, kind: str, default: str | None, *, changed: bool) -> Schema:
        offers = [(offer, names) for offer in self.registry.offers(kind) if (names := self._names(offer))]
        maps = [self._offer(offer, names, changed=changed, typed=not changed) for offer, names in offers]
        if default is not None and not changed:
            maps += [self._offer(offer, names, changed=False, typed=False) for offer, names in offers if default in names]
        alone = [name for offer, names in offers if not _needed(offer) for name in names]
        return {"title": kind, "anyOf": [{"enum": alone}, *maps]}

    def _offer(self, offer: Offer[type[Component]], names: list[str], *, changed: bool, typed: bool) -> Schema:
        key = f"{offer.component.kind} {names[0]}" + (" (change)" if changed else "" if typed else " (type left out)")
        return self._reference(key, lambda: self._map(offer, names, key, changed=changed, typed=typed))

    def _map(self, offer: Offer[type[Component]], names: list[str], key: str, *, changed: bool, typed: bool) -> Schema:
        component = offer.component
        told: Schema = {"title": f"{component.kind} {names[0]}", "description": (component.__doc__ or "").strip().split("\n", 1)[0]}
        try:
            options = options_schema(component)
        except PluginError as error:  # one part that cannot be described must not take the others with it
            return {**told, "$comment": str(error), "type": "object", "properties": {"type": {"enum": names}}, "required": ["type"]}
        for name, value in options.get("$defs", {}).items():
            self.made[f"{key} {name}"] = self.refined(value, key, changed=changed)
        fields = {name: self.refined(value, key, changed=changed) for name, value in options.get("properties", {}).items()}
        for name, value in offer.preset.items():
            fields[name] = {**fields[name], "default": value}
        required = ["type"] if typed else []
        properties = {"type": {"enum": names}, **fields}
        required += [] if changed else _needed(offer)
        return {**told, "type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def _names(self, offer: Offer[type[Component]]) -> list[str]:
        """The names that mean this offer: the plain one, unless another offer has it, and distribution/name."""
        try:
            plain = self.registry.find(offer.component.kind, offer.name) is offer
        except DuplicateComponentError:
            plain = False
        return [offer.name] * plain + [f"{offer.distribution}/{offer.name}"]

    def refined(self, node: Any, key: str, *, changed: bool) -> Any:
        """A schema of pydantic's, with the places of parts filled, references led to where they are here, and no made-up titles."""
        if isinstance(node, list):
            return [self.refined(item, key, changed=changed) for item in node]
        if not isinstance(node, dict):
            return node
        if PART_MARK in node:
            beside = {name: node[name] for name in ("description", "default") if name in node}
            return {**self.part(**node[PART_MARK], changed=changed), **beside}
        result: Schema = {}
        for name, value in node.items():
            if name == "properties":
                result[name] = {field: self.refined(inner, key, changed=changed) for field, inner in value.items()}
            elif name == "$ref":
                result |= _pointer(f"{key} {value.rpartition('/')[2]}".strip())
            elif name == "required" and changed:  # a change names what it changes
                continue
            elif name == "oneOf" and changed:  # and without its `type` may fit several
                result["anyOf"] = self.refined(value, key, changed=changed)
            elif name not in ("title", "discriminator"):  # whose pointers would lead nowhere here; the arms say their types themselves
                result[name] = value if name in LITERAL else self.refined(value, key, changed=changed)
        return result

    def _reference(self, key: str, make: Callable[[], Mapping[str, Any]]) -> Schema:
        if key not in self.made:
            self.made[key] = {}  # a part may hold parts of its own kind
            self.made[key] = dict(make())
        return _pointer(key)


def _needed(offer: Offer[type[Component]]) -> list[str]:
    """The options without which the name cannot be used."""
    return [name for name, field in offer.component.Options.model_fields.items() if field.is_required() and name not in offer.preset]


def _pointer(key: str) -> Schema:
    return {"$ref": "#/$defs/" + quote(key.replace("~", "~0").replace("/", "~1"), safe="~")}
