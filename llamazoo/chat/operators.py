"""The operators of chat templates: what would grow is measured before it is made."""

import operator
import re
from collections.abc import Callable
from typing import Any

from jinja2 import Undefined

from llamazoo.chat.meter import MAX_BITS, Meter
from llamazoo.errors import TemplateError

__all__ = ["OPERATORS", "apply", "formatted"]

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
FIELD = re.compile(r"%(?:%|(?:\([^()]*\))?[-+ #0]*(?P<width>\d*)(?:\.(?P<precision>\d*))?[sdifgeExXr])")


def apply(meter: Meter, sign: str, left: Any, right: Any) -> Any:
    """Left and right, joined by an operator. Raises TemplateError before anything that is too large is made."""
    meter.spend(1)
    if isinstance(left, Undefined) or isinstance(right, Undefined):
        return OPERATORS[sign](left, right)  # which jinja2 explains
    if isinstance(left, int | float) and isinstance(right, int | float):
        return _number(sign, left, right)
    if sign == "%" and isinstance(left, str):
        return formatted(meter, left, right)
    if sign == "+" and type(left) is type(right) and isinstance(left, str | list | tuple):
        _grow(meter, left, len(left) + len(right))
        return OPERATORS[sign](left, right)
    if sign == "*" and isinstance(left, str | list | tuple) and isinstance(right, int):
        _grow(meter, left, len(left) * max(right, 0))
        return left * right
    if sign == "*" and isinstance(left, int) and isinstance(right, str | list | tuple):
        return apply(meter, sign, right, left)
    raise TemplateError(f"the chat template writes {_sort(left)} {sign} {_sort(right)}, which is nothing")


def formatted(meter: Meter, text: str, values: Any) -> str:
    """`text % values` for plain fields of at most 99 characters."""
    meter.weigh(values)
    meter.text(len(text) + 100 * text.count("%"))
    fields = list(FIELD.finditer(text))
    if "%" in FIELD.sub("", text) or any(len(field[part] or "") > 2 for field in fields for part in ("width", "precision")):
        raise TemplateError(f"the chat template formats with {ascii(text)[:60]}; only fields such as %s, %d and %5.2f are supported")
    for value in values if isinstance(values, tuple) else (values,):
        meter.spend(text.count("%") * len(str(value)) // 16)  # a name may be there more than once
    return text % values


def _number(sign: str, left: float, right: float) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 1) if sign == "**" else left.bit_length() + right.bit_length()
        if bits > MAX_BITS:
            raise TemplateError(f"the chat template computes {sign} of numbers too large; at most {MAX_BITS} bits are allowed")
    return OPERATORS[sign](left, right)


def _grow(meter: Meter, like: Any, length: int) -> None:
    if isinstance(like, str):
        meter.text(length)
    else:
        meter.spend(1 + length)


def _sort(value: Any) -> str:
    return type(value).__name__
