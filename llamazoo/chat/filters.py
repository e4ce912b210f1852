"""The filters and tests of chat templates: those of jinja2 that published templates use, with what they handle paid for."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import Environment, Undefined
from jinja2.filters import FILTERS
from jinja2.runtime import Context
from jinja2.tests import TESTS

from llamazoo.chat.meter import Meter
from llamazoo.chat.operators import formatted
from llamazoo.errors import TemplateError

__all__ = ["filters_for", "listed", "tests_for"]

PLAIN = """trim lower upper capitalize title length count first last default d string int float abs min max unique sort dictsort
    items reverse select reject selectattr rejectattr map list wordcount"""
ONE_BY_ONE = "list unique sort map select reject selectattr rejectattr reverse min max"  # of a text, every character
MAX_INDENT = 16
MAX_DIGITS = 20


def filters_for(meter: Meter) -> dict[str, Callable[..., Any]]:
    """All filters by name, for one rendering."""

    def join(value: Any, d: str = "", attribute: Any = None) -> str:
        if attribute is not None:
            raise TemplateError("the chat template joins attributes; use map before join")
        meter.spend(len(value) if isinstance(value, str) else 1)
        parts = [str(part) for part in meter.weigh(listed(value))]
        meter.text(len(d) * len(parts) + sum(map(len, parts)))
        return d.join(parts)

    def replace(s: Any, old: str, new: str, count: int | None = None) -> str:
        text = str(meter.weigh(s))
        meter.text(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def indent(s: str, width: Any = 4, first: bool = False, blank: bool = False) -> Any:
        _small("indents", width, MAX_INDENT)
        meter.text(len(s) + MAX_INDENT * (s.count("\n") + 1))
        return FILTERS["indent"](s, width, first, blank)

    def rounded(value: Any, precision: int = 0, method: str = "common") -> Any:
        _small("rounds", abs(precision), MAX_DIGITS)
        return FILTERS["round"](meter.weigh(value), precision, method)

    def added(iterable: Any, attribute: Any = None, start: float = 0) -> Any:
        numbers = meter.weigh(listed(iterable))
        if attribute is not None or not all(isinstance(number, int | float) for number in [start, *numbers]):
            raise TemplateError("the chat template adds up what are no numbers")
        return sum(numbers, start)

    def tojson(x: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        _small("indents", indent, MAX_INDENT)
        if separators is not None and sum(map(len, separators)) > MAX_INDENT:
            raise TemplateError(f"the chat template's separators have more than {MAX_INDENT} characters")
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        return "".join(_paid(meter, encoder.iterencode(meter.weigh(x))))

    def safe(value: Any) -> str:
        return str(meter.weigh(value))

    own: dict[str, Callable[..., Any]] = {
        "join": join,
        "replace": replace,
        "indent": indent,
        "round": rounded,
        "sum": added,
        "tojson": tojson,
        "safe": safe,
    }
    own["format"] = lambda value, *values, **named: formatted(meter, str(value), named or values)
    by_jinja: Mapping[str, Any] = FILTERS
    each = ONE_BY_ONE.split()
    return {**{name: _weighed(meter, by_jinja[name], name in each) for name in PLAIN.split()}, **own}


def tests_for(meter: Meter) -> dict[str, Callable[..., Any]]:
    """All tests by name, for one rendering."""
    by_jinja: Mapping[str, Any] = TESTS
    return {name: _weighed(meter, test) for name, test in by_jinja.items() if name not in ("filter", "test", "callable", "escaped")}


def listed(value: Any) -> Any:
    """What a loop runs over. Raises TemplateError for what has no elements."""
    if isinstance(value, list | tuple | str | range | dict | Undefined):
        return list(value)
    raise TemplateError(f"the chat template runs over a {type(value).__name__}, which has no elements")


def _weighed(meter: Meter, function: Callable[..., Any], one_by_one: bool = False) -> Callable[..., Any]:
    """The function, its arguments and its result paid for; where jinja2 returns an iterator, a list of the same."""

    @functools.wraps(function)  # with the mark that tells jinja2 to pass its environment first
    def paid(*values: Any, **named: Any) -> Any:
        meter.weigh([value for value in (*values, *named.values()) if not isinstance(value, Context | Environment)])
        meter.spend(sum(len(value) for value in values if isinstance(value, str)) if one_by_one else 0)
        made = function(*values, **named)
        return meter.weigh(list(made) if isinstance(made, Iterator) else made)

    return paid


def _paid(meter: Meter, chunks: Iterator[str]) -> Iterator[str]:
    for chunk in chunks:
        meter.text(len(chunk))
        yield chunk


def _small(verb: str, given: Any, limit: int) -> None:
    size = len(given) if isinstance(given, str) else given
    if size is not None and (not isinstance(size, int) or size > limit):
        raise TemplateError(f"the chat template {verb} by {ascii(given)[:20]}; {limit} is the most")
