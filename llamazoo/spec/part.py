"""A part in a spec: a component's name and its options, checked against the registry while the spec is read.

norm: layernorm
norm: {type: layernorm, bias: false}
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import core_schema

from llamazoo.contract.component import Part
from llamazoo.errors import SpecError
from llamazoo.registry import Registry, default_registry
from llamazoo.spec.problems import explain, shown

__all__ = [
    "PART_MARK",
    "ActivationPart",
    "AttentionPart",
    "BlockPart",
    "EmbeddingPart",
    "FeedForwardPart",
    "HeadPart",
    "KernelPart",
    "NormPart",
    "OfKind",
    "PositionPart",
    "RouterPart",
    "dump_part",
    "part",
    "read_part",
]

PART_MARK = "x-llamazoo-part"  # in a JSON Schema: here stands a part of that kind; spec/schema.py says which there are


def part(name: str, **options: Any) -> Any:
    """The default of an option that holds a part: `activation: ActivationPart = part("silu")`."""
    return Field(default_factory=lambda: {"type": name, **options}, validate_default=True)


def read_part(kind: str, value: object, registry: Registry, default: str | None = None) -> Part:
    """The part that a name, or a map with a `type`, stands for; SpecError with paths inside the part."""
    if isinstance(value, Part):
        if value.kind != kind:
            raise SpecError(f"expected a {kind}, found the {value.kind} {value.type!r}")
        return value
    if isinstance(value, str):
        value = {"type": value}
    if not isinstance(value, Mapping):
        raise SpecError(f"expected the name of a {kind}, or a map with its type and options; found {shown(value)}")
    options = dict(value)
    name = options.pop("type", default)
    if not isinstance(name, str):
        raise SpecError(f"a map needs `type`, the name of a {kind}; found {shown(name)}")
    offer = registry.find(kind, name)
    component = offer.component
    try:
        made = component.Options.model_validate({**offer.preset, **options}, context={"registry": registry})
    except ValidationError as error:
        raise explain(error, component.Options) from None
    return Part(component, made, offer.qualified(component.name), offer.distribution, offer.version)


def dump_part(value: Part) -> dict[str, Any]:
    """The canonical form: type first, then every option."""
    return {"type": value.type, **value.options.model_dump(mode="json")}


class OfKind:
    """Makes `Annotated[Part, OfKind(kind)]` a pydantic type; `default` is the type of a map that names none."""

    def __init__(self, kind: str, default: str | None = None) -> None:
        self.kind = kind
        self.default = default

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._read, serialization=core_schema.plain_serializer_function_ser_schema(dump_part, return_schema=core_schema.dict_schema())
        )

    def __get_pydantic_json_schema__(self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        anything = [{"type": "string"}, {"type": "object", "properties": {"type": {"type": "string"}}}]
        return {"anyOf": anything, PART_MARK: {"kind": self.kind, "default": self.default}}

    def _read(self, value: object, info: ValidationInfo) -> Part:
        registry = (info.context or {}).get("registry") or default_registry()
        return read_part(self.kind, value, registry, self.default)


NormPart = Annotated[Part, OfKind("norm")]
ActivationPart = Annotated[Part, OfKind("activation")]
FeedForwardPart = Annotated[Part, OfKind("feed_forward")]
PositionPart = Annotated[Part, OfKind("position")]
AttentionPart = Annotated[Part, OfKind("attention", default="multihead")]
KernelPart = Annotated[Part, OfKind("kernel")]
RouterPart = Annotated[Part, OfKind("router", default="topk")]
BlockPart = Annotated[Part, OfKind("block", default="prenorm")]
EmbeddingPart = Annotated[Part, OfKind("embedding", default="table")]
HeadPart = Annotated[Part, OfKind("head", default="linear")]
