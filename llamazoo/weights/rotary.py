"""In which of the two layouts a checkpoint keeps its rotary pairs, and the rules that follow.

A head's features i and i + e/2 turn together (half), or 2i and 2i + 1 do (interleaved). Rows that stand in the wrong
layout give fluent nonsense, and no check of names or shapes sees it; so a layout is always declared on both sides.
"""

import re
from collections.abc import Mapping
from typing import cast

from llamazoo.contract.component import Part
from llamazoo.contract.kinds import Attention, Position, RotaryRows
from llamazoo.errors import WeightsError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.rule import Layout, Permute, Rename, Rule

__all__ = ["layout_of", "rotary_rule", "rotary_rules"]

PATTERN = re.compile(r"blocks\.(?P<layer>\*|[0-9]+)\.attention\.(?P<name>.+)")


def layout_of(spec: ArchitectureSpec) -> Layout | None:
    """The layout of a spec's rotary positions; None if none rotates. Raises WeightsError where it is not declared, or not one."""
    found = set()
    for part in rotating(spec):
        layout = getattr(part.options, "layout", getattr(part.component, "layout", None))
        if layout not in ("half", "interleaved"):
            told = f"the position {part.type!r} rotates, but says not in which layout"
            raise WeightsError(f"{told}; give its class or its options a `layout`, half or interleaved")
        found.add(layout)
    if len(found) > 1:
        raise WeightsError("the positions of this spec have rotary pairs in both layouts; give them one")
    return found.pop() if found else None


def rotating(spec: ArchitectureSpec) -> list[Part]:
    """The positions of a spec that turn queries and keys."""
    return [part for part in spec.places().values() if "rotate" in cast(type[Position], part.component).acts()]


def rotary_rule(spec: ArchitectureSpec, theirs: str, ours: str, layout: Layout) -> Rule:
    """The rule for a tensor of the layers' attention that stands in the checkpoint in `layout`, in the model in the spec's.

    Where the layouts differ, the rows turn round that the attention names in `rotary_rows`. Raises WeightsError where it does
    not say, or layers that the pattern takes together do not agree.
    """
    if layout_of(spec) in (None, layout):
        return Rename(theirs, ours)
    found = PATTERN.fullmatch(ours)
    if found is None:
        raise WeightsError(f"{ours}: has rotary pairs in the layout {layout!r}, and is no tensor of an attention, blocks.*.attention.NAME")
    layers = [number for number, _ in spec.sorts()] if found["layer"] == "*" else [int(found["layer"])]
    rows = {each for number in layers if (each := _rows(spec, number, layout).get(found["name"])) is not None}
    if not rows:
        return Rename(theirs, ours)
    widths = {int(spec.site().head_dim * getattr(part.options, "fraction", 1.0)) for part in rotating(spec)}
    if len(widths) > 1 or len(rows) > 1:
        told = "rotate shares of a head that differ" if len(widths) > 1 else f"do not agree on which rows of {found['name']} turn"
        raise WeightsError(f"the layers of this spec {told}; load weights in the layout that it has")
    (width,), ((size, begin),) = widths, rows
    return Permute(theirs, ours, size, width, layout, begin)


def rotary_rules(spec: ArchitectureSpec, stored: ArchitectureSpec) -> list[Rule]:
    """The rules for tensors of the same names on both sides, where the layouts of two specs differ; none where they agree."""
    if [part.component for part in rotating(spec)] == [part.component for part in rotating(stored)] and not any(
        hasattr(part.options, "layout") for part in rotating(spec)
    ):
        return []  # the same position on both sides, with nothing to choose
    if not rotating(stored) or not rotating(spec):
        return []
    layout = layout_of(stored)
    if layout is None or layout_of(spec) == layout:
        return []
    sorts = [_rows(spec, number, layout) for number, _ in spec.sorts()]
    alike = all(rows == sorts[0] for rows in sorts)
    layers = ["*"] if alike else range(spec.n_layers)
    return [
        rotary_rule(spec, name, name, layout)
        for layer in layers
        for leaf in (sorts[0] if alike else _rows(spec, int(layer), layout))
        for name in [f"blocks.{layer}.attention.{leaf}"]
    ]


def _rows(spec: ArchitectureSpec, layer: int, layout: Layout) -> Mapping[str, RotaryRows]:
    """The rows that the attention of one layer names; none where the layer's position does not rotate."""
    parts = spec.layer(layer)
    if spec.places()[parts.position] not in rotating(spec):
        return {}
    rows = cast(type[Attention], parts.attention.component).rotary_rows(parts.attention.options, spec.site(layer))
    if rows is None:
        told = f"the checkpoint has rotary pairs in the layout {layout!r}, the spec has not, and which rows to turn is not known"
        raise WeightsError(f"{told}; give the class of the attention {parts.attention.type!r} a rotary_rows()")
    return rows
