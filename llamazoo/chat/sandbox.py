"""Where chat templates run: jinja2's sandbox, in which every step is counted and nothing but plain values can be reached.

A template is a program of a stranger. jinja2 compiles it to Python; before that its syntax tree is changed so that what
would compute without asking (loops, concatenation, comparison, output) asks too. What is not known to be harmless is refused.
"""

import functools
from collections.abc import Callable
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_context

from llamazoo.chat.accounting import EMIT, ITERATE, JOIN, MAX_NODES, TICK, WEIGH, Accounting, size
from llamazoo.chat.filters import filters_for, listed, tests_for
from llamazoo.chat.meter import Meter
from llamazoo.chat.methods import LOOP, METHODS, Method
from llamazoo.chat.operators import OPERATORS, apply
from llamazoo.errors import TemplateError

__all__ = ["Sandbox"]

CALL = 4  # units


class Generation(Extension):
    """`{% generation %} ... {% endgeneration %}`, with which training code finds what the assistant said: here it says nothing."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class Sandbox(ImmutableSandboxedEnvironment):
    """One rendering's environment."""

    intercepted_binops = frozenset(OPERATORS)

    def __init__(self, meter: Meter, functions: dict[str, Any]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, cache_size=0, extensions=[Generation, LoopControlExtension])
        self.meter = meter
        self.filters: Any = {**filters_for(meter), **self._prices()}
        self.tests: Any = tests_for(meter)
        self.own = {"namespace": Namespace, "dict": dict, "range": self._range, **functions}
        self.globals = dict(self.own)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed = super()._parse(source, name, filename)
        count = size([parsed])
        if count > MAX_NODES:
            raise TemplateError(f"has {count} expressions and statements; a chat template has at most {MAX_NODES}")
        made = Accounting().visit(parsed)
        assert isinstance(made, nodes.Template)
        return made

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.spend(1)
        kind = next((kind for kind in METHODS if isinstance(obj, kind)), None)
        if kind is not None and attribute in METHODS[kind]:
            return Method(obj, attribute)
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if attribute.startswith("_"):
            raise TemplateError(f"the chat template reaches for the attribute {attribute[:40]!r}, which is not its business")
        if isinstance(obj, Undefined):
            return getattr(obj, attribute)  # which jinja2 explains
        if isinstance(obj, LoopContext) and attribute == "cycle":
            return Method(obj, attribute)
        if isinstance(obj, Namespace) or (isinstance(obj, LoopContext) and attribute in LOOP):
            return getattr(obj, attribute, self.undefined(obj=obj, name=attribute))
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.spend(1)
        if isinstance(argument, str) and not isinstance(obj, dict):
            return self.getattr(obj, argument)
        try:
            if isinstance(obj, Undefined | dict | list | tuple | str | range):
                return obj[argument]
        except (LookupError, TypeError):
            pass
        return self.getattr(obj, argument) if isinstance(argument, str) else self.undefined(obj=obj, name=argument)

    def call(self, context: Context, obj: Any, /, *arguments: Any, **named: Any) -> Any:
        self.meter.spend(CALL)
        if isinstance(obj, Macro):
            return context.call(obj, *arguments, **named)
        for scope in ("_loop_vars", "_block_vars"):  # which compiled templates give to every call, for the context
            named.pop(scope, None)
        if isinstance(obj, Method):
            return obj(self.meter, arguments, named)
        if isinstance(obj, Undefined):
            return obj()  # which jinja2 explains
        if any(obj is function for function in self.own.values()):
            self.meter.weigh([*arguments, *named.values()])
            return obj(*arguments, **named)
        raise TemplateError(f"the chat template calls a {type(obj).__name__}")

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return apply(self.meter, operator, left, right)

    def _prices(self) -> dict[str, Any]:
        """The filters that ask for payment. With a context jinja2 does not compute them while it compiles, where they would do so once."""
        found: dict[str, Callable[..., Any]] = {
            EMIT: self._emit,
            ITERATE: self._iterate,
            WEIGH: self.meter.weigh,
            JOIN: self._join,
            TICK: self._tick,
        }
        return {name: pass_context(functools.partial(_without_context, price)) for name, price in found.items()}

    def _emit(self, value: Any) -> str:
        if value is None or isinstance(value, str | bool | int | float | list | tuple | dict | Undefined):
            text = str(self.meter.weigh(value))
            self.meter.text(len(text))
            return text
        raise TemplateError(f"the chat template writes a {type(value).__name__}, which is no text")

    def _iterate(self, value: Any, weight: int) -> Any:
        if isinstance(value, Undefined):
            return value  # which jinja2 explains, or takes for nothing
        self.meter.spend(len(value) * weight if isinstance(value, list | tuple | str | range | dict) else 1)
        return listed(value)

    def _join(self, values: list[Any]) -> str:
        parts = [str(self.meter.weigh(value)) for value in values]
        self.meter.text(sum(map(len, parts)))
        return "".join(parts)

    def _tick(self, units: int) -> str:
        self.meter.spend(units)
        return ""

    def _range(self, *limits: int) -> range:
        found = range(*limits)
        self.meter.spend(len(found))
        return found


def _without_context(price: Callable[..., Any], context: Context, *values: Any) -> Any:
    return price(*values)
