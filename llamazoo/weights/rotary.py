"""In which of the two layouts a checkpoint keeps its rotary pairs, and turning rows from one to the other.

A head's features i and i + e/2 turn together (half), or 2i and 2i + 1 do (interleaved). Rows that stand in the wrong
layout give fluent nonsense, and no check of names or shapes sees it; so a layout is always declared on both sides, and
rows are turned after the rules have given a tensor our name, or before they take it away, whatever the format.
"""

import re
from collections.abc import Mapping
from typing import Literal, cast

import torch
from torch import Tensor

from llamazoo.contract.component import Part
from llamazoo.contract.kinds import Attention, Position, RotaryRows
from llamazoo.errors import WeightsError
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["Layout", "Turns", "layout_of", "rotating", "turned"]

Layout = Literal["half", "interleaved"]
NAME = re.compile(r"blocks\.([0-9]+)\.attention\.(.+)")


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


class Turns:
    """The rows of a model's tensors that stand the other way in a checkpoint; none, if both have one layout."""

    def __init__(self, spec: ArchitectureSpec, stored: ArchitectureSpec, layout: Layout | None) -> None:
        """`layout` is how the format keeps pairs, None: as `stored` has them. Raises WeightsError where that is not declared."""
        self.spec = spec
        self.stored: Layout | None = None  # the layout to turn from; None: nothing turns
        if not rotating(spec) or not rotating(stored):
            return
        same = [part.component for part in rotating(spec)] == [part.component for part in rotating(stored)]
        if layout is None and same and not any(hasattr(part.options, "layout") for part in rotating(spec)):
            return  # the same position on both sides, with nothing to choose
        layout = layout or layout_of(stored)
        self.stored = layout if layout != layout_of(spec) else None

    def read(self, name: str, tensor: Tensor) -> Tensor:
        """The tensor of the model called `name`, from that of the checkpoint."""
        return self._turned(name, tensor, self.stored == "interleaved")

    def write(self, name: str, tensor: Tensor) -> Tensor:
        """What `read` undoes."""
        return self._turned(name, tensor, self.stored == "half")

    def _turned(self, name: str, tensor: Tensor, to_half: bool) -> Tensor:
        found = NAME.fullmatch(name) if self.stored is not None else None
        if found is None:
            return tensor
        layer = int(found[1])
        rows = self._rows(layer).get(found[2])
        if rows is None:
            return tensor
        place = self.spec.places()[self.spec.layer(layer).position]
        return turned(tensor, rows, int(self.spec.site().head_dim * getattr(place.options, "fraction", 1.0)), to_half)

    def _rows(self, layer: int) -> Mapping[str, RotaryRows]:
        """The rows that the attention of one layer names; none where the layer's position does not rotate."""
        parts = self.spec.layer(layer)
        if self.spec.places()[parts.position] not in rotating(self.spec):
            return {}
        rows = cast(type[Attention], parts.attention.component).rotary_rows(parts.attention.options, self.spec.site(layer))
        if rows is None:
            told = f"the checkpoint has rotary pairs in the layout {self.stored!r}, the spec has not, and which rows to turn is not known"
            raise WeightsError(f"{told}; give the class of the attention {parts.attention.type!r} a rotary_rows()")
        return rows


def turned(x: Tensor, rows: RotaryRows, width: int, to_half: bool) -> Tensor:
    """Of each `rows.size` rows, `width` from `rows.begin` on: pairs 2i and 2i + 1 become i and i + width/2, or back."""
    before, pairs, after = x.unflatten(0, (-1, rows.size)).tensor_split((rows.begin, rows.begin + width), 1)
    pairs = pairs.unflatten(1, (-1, 2) if to_half else (2, -1)).transpose(1, 2).flatten(1, 2)
    return torch.cat((before, pairs, after), 1).flatten(0, 1)
