# ruff: noqa: N802 - jinja2 calls them so
"""What jinja2 compiles to plain Python gets a price: a template's syntax tree is changed so that it asks for payment.

Loops, concatenation, comparison, slices and output pass through filters that no template can name. What is not known to be
harmless is refused.
"""

from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.visitor import NodeTransformer

__all__ = ["EMIT", "ITERATE", "JOIN", "MAX_NODES", "TICK", "WEIGH", "Accounting", "size"]

MAX_NODES = 6000  # a template of 20,000 characters has about half
NODES = 8  # for one unit
EMIT, ITERATE, WEIGH, JOIN, TICK = " emit", " iterate", " weigh", " join", " tick"
KNOWN = """Template Output TemplateData Const Name NSRef If For Macro CallBlock FilterBlock With Assign AssignBlock Tuple List Dict
    Pair Keyword CondExpr Filter Test Call Getitem Getattr Slice Concat Compare Operand Add Sub Mul Div FloorDiv Mod Pow Not Neg Pos
    And Or Break Continue Scope"""
ALLOWED = frozenset(KNOWN.split())


class Accounting(NodeTransformer):
    """Puts a price on what jinja2 compiles to plain Python; refuses what is not known to be harmless."""

    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        kind = type(node).__name__
        if kind not in ALLOWED:
            raise TemplateSyntaxError(f"{kind} is not supported in a chat template", getattr(node, "lineno", 0) or 0)
        return super().generic_visit(node, *args, **kwargs)

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        for i, child in enumerate(node.nodes):
            value = nodes.Const(child.data, lineno=child.lineno) if isinstance(child, nodes.TemplateData) else self.visit(child)
            node.nodes[i] = _through(EMIT, value)
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        if node.recursive:
            raise TemplateSyntaxError("a recursive loop is not supported in a chat template", node.lineno)
        weight = _price([] if node.test is None else [node.test])
        body = _price(node.body)
        self.generic_visit(node)
        node.iter = _through(ITERATE, node.iter, weight)
        node.body = [_tick(body, node.lineno), *node.body]
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._with_tick(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._with_tick(node)

    def _with_tick(self, node: Any) -> nodes.Node:
        units = _price([*node.body, *node.defaults])
        self.generic_visit(node)
        node.body = [_tick(units, node.lineno), *node.body]
        made: nodes.Node = node
        return made

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through(JOIN, nodes.List(node.nodes, lineno=node.lineno))

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _through(WEIGH, node.expr)
        for operand in node.ops:
            operand.expr = _through(WEIGH, operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _through(WEIGH, node.node)
        return node


def _through(name: str, value: Any, *settings: int) -> nodes.Filter:
    line = value.lineno
    return nodes.Filter(value, name, [nodes.Const(setting, lineno=line) for setting in settings], [], None, None, lineno=line)


def _tick(units: int, line: int) -> nodes.Node:
    return nodes.Output([_through(TICK, nodes.Const(units, lineno=line))], lineno=line)


def size(parts: list[Any]) -> int:
    """How many nodes of the syntax tree these are, with all within them."""
    return sum(1 + size(list(part.iter_child_nodes())) for part in parts)


def _price(parts: list[Any]) -> int:
    """What one run through these nodes costs, besides what they pay for themselves."""
    return 1 + size(parts) // NODES
