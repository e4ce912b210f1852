"""How a part and its options are put into words."""

from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined, to_jsonable_python

from llamazoo.contract.component import Component
from llamazoo.discovery import told
from llamazoo.spec.part import PART_MARK

__all__ = ["defaults", "flow", "kind_of_value", "sentence"]

BOUNDS = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
WORDS = {"boolean": "true or false", "integer": "whole number", "number": "number", "string": "text", "null": "null", "object": "map"}


def sentence(component: type[Component]) -> str:
    """What a component computes, in one sentence."""
    return (component.__doc__ or "").strip().split("\n", 1)[0]


def defaults(component: type[Component]) -> dict[str, Any]:
    """The default of each option, as plain data; PydanticUndefined where there is none."""
    return {name: _default(field) for name, field in component.Options.model_fields.items()}


def _default(field: FieldInfo) -> Any:
    """A default as plain data, also where a stranger's cannot be written in a spec, or cannot even be made."""
    try:
        found = field.get_default(call_default_factory=True, validated_data={})
    except Exception as error:
        return f"({told(error)})"
    return found if found is PydanticUndefined else to_jsonable_python(found, fallback=repr)


def flow(value: Any) -> str:
    """A value as it is written in a spec, on one line."""
    if isinstance(value, dict) and list(value) == ["type"]:
        value = value["type"]
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("\n").removesuffix("\n...")


def kind_of_value(schema: dict[str, Any]) -> str:
    """What an option takes, from its JSON Schema: `number > 0, or null`."""
    if PART_MARK in schema:
        return f"{schema[PART_MARK]['kind']} part"
    if "anyOf" in schema:
        return ", or ".join(kind_of_value(arm) for arm in schema["anyOf"])
    if "discriminator" in schema:
        return "map with the type " + " or ".join(f"`{name}`" for name in schema["discriminator"]["mapping"])
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{flow(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind_of_value(schema.get('items', {}))}"
    bounds = [f"{sign} {_number(schema[name])}" for name, sign in BOUNDS.items() if name in schema]
    return " ".join([WORDS.get(schema.get("type", "object"), "map"), " and ".join(bounds)]).strip()


def _number(value: float) -> str:
    """A bound, as a power of two where it is a large one."""
    power = int(value).bit_length() - 1
    return f"2^{power}" if power > 16 and value == 2**power else f"{value:g}"
