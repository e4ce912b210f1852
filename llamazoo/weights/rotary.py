"""In which of the two layouts a checkpoint keeps its rotary pairs, and the rules that follow.

A head's features i and i + e/2 turn together (half), or 2i and 2i + 1 do (interleaved). Rows that stand in the wrong
layout give fluent nonsense, and no check of names or shapes sees it; so a layout is always declared on both sides.
"""

from collections.abc import Iterable
from typing import Any

from llamazoo.errors import WeightsError
from llamazoo.spec.architecture import ArchitectureSpec
from llamazoo.weights.rule import Layout, Permute, Rename, Rule

__all__ = ["layout_of", "rotary_rule", "rotary_rules"]


def layout_of(spec: ArchitectureSpec) -> Layout | None:
    """The layout of a spec's rotary positions; None if it has none. Raises WeightsError if two of them differ."""
    options: list[Any] = [part.options for part in spec.places().values() if hasattr(part.options, "layout")]
    found = {rope.layout for rope in options}
    if len(found) > 1:
        raise WeightsError("the positions of this spec have rotary pairs in both layouts; give them one")
    return found.pop() if found else None


def rotary_rule(spec: ArchitectureSpec, theirs: str, ours: str, layout: Layout) -> Rule:
    """The rule for rows that belong to rotated heads, and stand in the checkpoint in `layout`, in the model in the spec's."""
    if layout_of(spec) in (None, layout):
        return Rename(theirs, ours)
    options: list[Any] = [part.options for part in spec.places().values() if hasattr(part.options, "layout")]
    widths = {int(spec.site().head_dim * rope.fraction) for rope in options}
    if len(widths) > 1:
        raise WeightsError("the positions of this spec rotate shares of a head that differ; load weights in the layout that it has")
    return Permute(theirs, ours, spec.site().head_dim, widths.pop(), layout)


def rotary_rules(spec: ArchitectureSpec, stored: ArchitectureSpec, names: Iterable[str]) -> list[Rule]:
    """The rules for tensors of the same names on both sides, where the layouts of two specs differ; none where they agree."""
    layout: Any = layout_of(stored)
    if layout is None or layout_of(spec) in (None, layout):
        return []
    foreign = {spec.layer(i).attention.type for i in range(spec.n_layers)} - {"multihead"}
    if foreign:
        told = f"the checkpoint has rotary pairs in the layout {layout!r}, the spec has not"
        raise WeightsError(f"{told}; how to turn those of {', '.join(sorted(foreign))} is not known")
    return [rotary_rule(spec, name, name, layout) for name in names]
