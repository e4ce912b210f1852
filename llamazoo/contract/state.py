"""What a layer remembers while decoding.

b batch, t tokens of this call, s slots, k key/value heads, e head width.

A state holds what its component needs and knows nothing of how many tokens it holds: that one count lives in the decoder's
state, and reaches a layer through the Step. Every buffer has one slot more than it says, into which padding is written;
it starts as zeros, since a value that no query sees is still multiplied, by nought.
"""

from typing import Protocol, Self

import torch
from torch import Tensor

from llamazoo.contract.kernel import Visible
from llamazoo.contract.step import Step

__all__ = ["KeyValueState", "State"]


class State(Protocol):
    """What the decoder asks of any layer's memory. Rows are those of the batch."""

    @property
    def longest_write(self) -> int | None:
        """How many tokens a row may be given at once; None: any number."""

    @property
    def nbytes(self) -> int: ...

    def select(self, rows: Tensor) -> None:
        """Make row i what row `rows[i]` was; rows may repeat, and the batch may change its size."""

    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        """Why rows that hold `held` tokens, and have `reached` more before, cannot go back to `lengths`; or None.

        A row that keeps its length is not touched, and one that goes back to 0 is as new: neither is a reason.
        """

    def rewind(self, lengths: list[int], held: list[int]) -> None:
        """Forget, row by row, all but the first `lengths` of `held` tokens; asked only after `refuses_rewind`."""

    def clear(self, rows: Tensor) -> None:
        """Make these rows as new."""

    def put(self, rows: Tensor, other: Self) -> None:
        """Make these rows what the rows of `other`, a state of the same capacity, are."""

    def clone(self) -> Self: ...


class KeyValueState:
    """Keys and values of earlier tokens: all of them, or for a window the last `window + chunk - 1` in a ring.

    A token of order i stands in slot i, or in the ring in slot i modulo its size; so no slot needs a label.
    """

    def __init__(
        self, batch: int, capacity: int, heads: int, width: int, *, window: int | None, chunk: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        ring = None if window is None else window + chunk - 1
        self.is_ring = ring is not None and ring < capacity
        self.size = ring if ring is not None and ring < capacity else capacity
        self.window = window
        self.chunk = chunk
        self.keys = torch.zeros(batch, heads, self.size + 1, width, device=device, dtype=dtype)
        self.values = torch.zeros(batch, heads, self.size + 1, width, device=device, dtype=dtype)

    def extend(self, k: Tensor, v: Tensor, step: Step) -> tuple[Tensor, Tensor, Visible]:
        """Write this call's keys and values [b k t e]; return all that its queries look at, and what they may see of it."""
        start, tokens = step.start, k.shape[2]
        wrapped = self.is_ring and step.extent > self.size
        if start is not None and not wrapped:
            self.keys[:, :, start : start + tokens] = k
            self.values[:, :, start : start + tokens] = v
            if start == 0:  # nothing before this call: no need to read it back
                return k, v, Visible(step, window=self.window)
        else:
            slots = step.once(("slots", self.size, self.is_ring), lambda: self._slots(step))
            rows = torch.arange(len(k), device=k.device)[:, None]
            self.keys[rows, :, slots] = k.transpose(1, 2)
            self.values[rows, :, slots] = v.transpose(1, 2)
        if wrapped:
            return self.keys[:, :, : self.size], self.values[:, :, : self.size], Visible(step, "ring", self.size, self.window)
        extent = step.extent
        return self.keys[:, :, :extent], self.values[:, :, :extent], Visible(step, "slots", extent, self.window)

    def _slots(self, step: Step) -> Tensor:  # [b t]
        slots = step.order % self.size if self.is_ring else step.order
        return slots if step.valid is None else slots.masked_fill(~step.valid, self.size)

    @property
    def longest_write(self) -> int | None:
        return self.chunk if self.is_ring else None

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def select(self, rows: Tensor) -> None:
        self.keys, self.values = self.keys[rows], self.values[rows]

    def refuses_rewind(self, lengths: list[int], held: list[int], reached: list[int]) -> str | None:
        for length, now, far in zip(lengths, held, reached, strict=True):
            # A ring that has run on has overwritten what lay a window before the place to go back to.
            if self.is_ring and 0 < length < now and far > self.size and far - length > self.chunk:
                return f"a window of {self.window} tokens keeps what it needs to go back by {self.chunk}, not by {far - length}"
        return None

    def rewind(self, lengths: list[int], held: list[int]) -> None:
        """Nothing to do: what stands after the last token is not seen until it is overwritten."""

    def clear(self, rows: Tensor) -> None:
        self.keys[rows] = 0
        self.values[rows] = 0

    def put(self, rows: Tensor, other: Self) -> None:
        self.keys[rows], self.values[rows] = other.keys, other.values

    def clone(self) -> Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__, keys=self.keys.clone(), values=self.values.clone())
        return twin
