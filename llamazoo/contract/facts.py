"""Options in short phrases, for drawings: `window 512`, `qkv bias`, `activation silu`."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

__all__ = ["number", "phrase", "phrases"]

MOST = 4  # values of a list that are told one by one


def phrases(options: BaseModel, named: Mapping[str, str], without: tuple[str, ...]) -> Iterator[str]:
    """A phrase for each option that is not as usual; `named` options are told by that name whatever they are, those in `without` not."""
    usual = {name: field.default for name, field in type(options).model_fields.items()}
    for name, value in options.model_dump(mode="json").items():
        if name in without:
            continue
        words = name.replace("_", " ")
        if name in named:
            yield f"{words} {named[name]}"
        elif value != usual.get(name):
            held = getattr(options, name)
            yield phrase(words, held.model_dump(mode="json", exclude_defaults=True) if isinstance(held, BaseModel) else value)


def number(value: float) -> str:
    """As people write it: 0.5, 10000, 1e6, 1e-5."""
    digits, exponent, power = f"{value:g}".partition("e")
    return f"{digits}{exponent}{int(power)}" if exponent else digits


def phrase(words: str, value: Any) -> str:
    """One option, as plain data, in words."""
    if value is True:
        return words
    if value is False or value is None:
        return f"no {words}"
    return f"{words} {_short(value)}"


def _short(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        rest = [f"{key.replace('_', ' ')} {_short(inner)}" for key, inner in value.items() if key != "type" and inner is not None]
        name = str(value.get("type", ""))
        return f"{name} ({', '.join(rest)})" if name and rest else name or ", ".join(rest)
    if isinstance(value, list):
        return f"{len(value)} values" if len(value) > MOST else " ".join(_short(inner) for inner in value)
    return str(value)
