"""Changes: to some layers of a model, and what any change makes of what stood there."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llamazoo.contract.options import Size
from llamazoo.errors import Problem, SpecError

__all__ = ["LAYER_PARTS", "LayerPatch", "merge"]

LAYER_PARTS = ("block", "attention", "feed_forward", "norm")

RawPart = str | dict[str, Any]


def merge(base: Any, change: Any) -> Any:
    """`change` over `base`: a map that names another type replaces, any other map merges; all else replaces."""
    if isinstance(base, Mapping) and "type" in base and isinstance(change, str):
        change = {"type": change}
    if not (isinstance(base, Mapping) and isinstance(change, Mapping)):
        return change
    if "type" in base and change.get("type", base["type"]) != base["type"]:
        return dict(change)
    return {**base, **{key: merge(base[key], value) if key in base else value for key, value in change.items()}}


class LayerPatch(BaseModel):
    """A change to some of the layers, merged over what the spec says for all: `at` names them, or `every` and `offset`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    at: int | str | None = None
    """A layer (3, or -1 for the last), or a range of them ("0:3", "20:")."""
    every: Size | None = None
    """Every so many layers, from `offset` on."""
    offset: Annotated[int, Field(ge=0)] = 0
    """The first layer that `every` means."""
    block: RawPart | None = None
    """Changes to the block of these layers."""
    attention: RawPart | None = None
    """Changes to their attention."""
    feed_forward: RawPart | None = None
    """Changes to their feed-forward."""
    norm: RawPart | None = None
    """Changes to their norms."""
    position: str | None = None
    """The name of their position, one of `positions`."""

    @model_validator(mode="after")
    def _selects(self) -> Self:
        if (self.at is None) == (self.every is None):
            raise SpecError("say which layers: either `at` (3, -1, or a range such as '0:3') or `every` with `offset`")
        if self.at is not None and self.offset:
            raise SpecError("`offset` goes with `every`, not with `at`")
        changes = [field for field in (*LAYER_PARTS, "position") if field in self.model_fields_set]
        idle = [field for field in changes if getattr(self, field) is None]
        if idle or not changes:
            raise SpecError(f"changes nothing{f' in {idle[0]}: null' if idle else ''}; name the part to change, or leave the entry out")
        return self

    def layers(self, n_layers: int) -> range:
        """The layers that this patch changes; SpecError if there are none, or some do not exist."""
        if self.every is not None:
            found = range(self.offset, n_layers, self.every)
        else:
            found = self._range(str(self.at), n_layers)
        if not found or found[0] < 0 or found[-1] >= n_layers:
            asked = f"every {self.every} from {self.offset}" if self.at is None else repr(self.at)
            raise SpecError(
                Problem(
                    ("at" if self.at is not None else "every",), f"{asked} matches none, or not only, of the layers 0 to {n_layers - 1}"
                )
            )
        return found

    @staticmethod
    def _range(at: str, n_layers: int) -> range:
        if not re.fullmatch(r"-?[0-9]{1,12}|(-?[0-9]{1,12})?:(-?[0-9]{1,12})?", at, re.ASCII):
            raise SpecError(Problem(("at",), f"{at!a} is neither a layer (3, -1) nor a range ('0:3', '20:')"))
        numbers = [int(end) if end else None for end in at.split(":")]
        if len(numbers) == 1 and numbers[0] is not None:
            first = numbers[0] + n_layers if numbers[0] < 0 else numbers[0]
            return range(first, first + 1)
        begin, end = numbers[0] or 0, n_layers if numbers[1] is None else numbers[1]
        return range(begin + n_layers if begin < 0 else begin, end + n_layers if end < 0 else end)
