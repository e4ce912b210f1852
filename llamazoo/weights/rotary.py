"""In which of the two layouts a checkpoint keeps its rotary pairs, and the rules that follow.

A head's features i and i + e/2 turn together (half), or 2i and 2i + 1 do (interleaved). Rows that stand in the wrong
layout give fluent nonsense, and no check of names or shapes sees it; so a layout is always declared on both sides.
"""

from collections.abc import Iterable
from typing import cast

from llamazoo.contract.component import Part
from llamazoo.contract.kinds import Position
from llamazoo.errors import WeightsError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.rule import Layout, Permute, Rename, Rule

__all__ = ["layout_of", "rotary_rule", "rotary_rules"]


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
    """The rule for rows that belong to rotated heads, and stand in the checkpoint in `layout`, in the model in the spec's."""
    if layout_of(spec) in (None, layout):
        return Rename(theirs, ours)
    widths = {int(spec.site().head_dim * getattr(part.options, "fraction", 1.0)) for part in rotating(spec)}
    if len(widths) > 1:
        raise WeightsError("the positions of this spec rotate shares of a head that differ; load weights in the layout that it has")
    return Permute(theirs, ours, spec.site().head_dim, widths.pop(), layout)


def rotary_rules(spec: ArchitectureSpec, stored: ArchitectureSpec, names: Iterable[str]) -> list[Rule]:
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
    foreign = {spec.layer(number).attention.type for number, _ in spec.sorts()} - {"multihead"}
    if foreign:
        told = f"the checkpoint has rotary pairs in the layout {layout!r}, the spec has not"
        raise WeightsError(f"{told}; how to turn those of {', '.join(sorted(foreign))} is not known")
    return [rotary_rule(spec, name, name, layout) for name in names]
