"""What a decoder remembers between calls.

b batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llamazoo.contract.state import State
from llamazoo.errors import CannotRewind, StateError
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["DecoderState"]


class DecoderState:
    """What a decoder remembers of each row of a batch, and the one true count of tokens. Made by `model.new_state`."""

    def __init__(
        self,
        layers: list[State | None],
        batch: int,
        capacity: int,
        chunk: int,
        device: torch.device,
        spec: ArchitectureSpec,
        dtype: torch.dtype,
    ) -> None:
        self.layers = layers
        self.spec, self.dtype = spec, dtype  # of the model that it is for
        self.capacity = capacity
        self.chunk = chunk
        self.device = device
        self.lengths = [0] * batch
        self.reached = [0] * batch  # the most each row has held since it was new
        self.segment: Tensor | None = None  # [b] the number of each row's last document
        self.begin: Tensor | None = None  # [b] and where it begins

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes that all layers hold."""
        return sum(layer.nbytes for layer in self.layers if layer is not None)

    def advanced(self, lengths: list[int], segment: Tensor | None, begin: Tensor | None) -> None:
        """Called by the decoder when a call is done."""
        self.lengths = lengths
        self.reached = [max(pair) for pair in zip(self.reached, lengths, strict=True)]
        self.segment, self.begin = segment, begin

    def check_model(self, spec: ArchitectureSpec, dtype: torch.dtype, device: torch.device) -> None:
        """Raise StateError unless the state was made for such a model."""
        if (dtype, device) != (self.dtype, self.device):
            raise StateError(f"the state is for {self.dtype} on {self.device}, the model is {dtype} on {device}")
        if spec is not self.spec and spec != self.spec:
            raise StateError("the state was made by a model of another spec; use that model's new_state")

    def check_segments(self, given: bool) -> None:
        if any(self.lengths) and given != (self.segment is not None):
            had = "with" if self.segment is not None else "without"
            raise StateError(f"this state was filled {had} `segments`; continue it so, or clear it")

    @torch.inference_mode(False)
    def select(self, rows: Sequence[int] | Tensor) -> None:
        """Make row i what row `rows[i]` was; rows may repeat, and the batch may grow or shrink."""
        chosen, index = self._rows(rows)
        for layer in self._held():
            layer.select(index)
        self.lengths, self.reached = ([counts[row] for row in chosen] for counts in (self.lengths, self.reached))
        self.segment = None if self.segment is None else self.segment[index]
        self.begin = None if self.begin is None else self.begin[index]

    def rewind(self, lengths: int | Sequence[int]) -> None:
        """Forget all but the first tokens of each row. Raises CannotRewind, with nothing changed, where a layer has forgotten them."""
        if not isinstance(lengths, int | Sequence):
            raise StateError(f"lengths are a whole number, or one for each row; found {lengths!r}")
        wanted = [lengths] * self.batch if isinstance(lengths, int) else list(lengths)
        if any(isinstance(length, bool) or not isinstance(length, int) for length in wanted):
            raise StateError(f"lengths are whole numbers, found {wanted}")
        if len(wanted) != self.batch:
            raise StateError(f"{len(wanted)} lengths for {self.batch} rows")
        for row, (length, held) in enumerate(zip(wanted, self.lengths, strict=True)):
            if not 0 <= length <= held:
                raise StateError(f"row {row} holds {held} tokens and cannot be rewound to {length}")
        if self.begin is not None:
            for row, (length, begin) in enumerate(zip(wanted, self.begin.tolist(), strict=True)):
                if 0 < length <= begin:
                    raise CannotRewind(f"row {row}: its last document begins at {begin}; the number of the one before is forgotten")
        for number, layer in enumerate(self.layers):  # ask all before the first is changed
            reason = layer.refuses_rewind(wanted, self.lengths, self.reached) if layer is not None else None
            if reason is not None:
                raise CannotRewind(f"layer {number}: {reason}")
        for layer in self._held():
            layer.rewind(wanted, self.lengths)
        self.lengths = wanted
        self.reached = [far if length else 0 for length, far in zip(wanted, self.reached, strict=True)]

    def clear(self, rows: Sequence[int] | Tensor | None = None) -> None:
        """Make these rows, or all, as new."""
        chosen, index = self._rows(range(self.batch) if rows is None else rows)
        for layer in self._held():
            layer.clear(index)
        for row in chosen:
            self.lengths[row] = self.reached[row] = 0
        if not any(self.lengths):
            self.segment = self.begin = None
        elif self.begin is not None:
            self.begin = self.begin.index_fill(0, index, 0)

    @torch.inference_mode(False)
    def put(self, rows: Sequence[int] | Tensor, other: "DecoderState") -> None:
        """Make these rows what the rows of another state of the same model, capacity and chunk are."""
        chosen, index = self._rows(rows)
        other.check_model(self.spec, self.dtype, self.device)
        if (other.capacity, other.chunk) != (self.capacity, self.chunk):
            raise StateError(
                f"a state of capacity {other.capacity} and chunk {other.chunk} does not fit one of {self.capacity} and {self.chunk}"
            )
        if len(chosen) != other.batch or len(set(chosen)) != len(chosen):
            raise StateError(f"{other.batch} rows cannot be put into the rows {chosen}")
        kept = [length for row, length in enumerate(self.lengths) if row not in chosen]
        if not any(kept):
            self.segment = self.begin = None
        if any(kept) and any(other.lengths) and (self.segment is None) != (other.segment is None):
            raise StateError("one state was filled with `segments`, the other without")
        for layer, source in zip(self.layers, other.layers, strict=True):
            if layer is not None and source is not None:
                layer.put(index, source)
        for row, length, far in zip(chosen, other.lengths, other.reached, strict=True):
            self.lengths[row], self.reached[row] = length, far
        if other.segment is not None and other.begin is not None:
            blank = torch.zeros(self.batch, dtype=torch.int64, device=self.device)
            self.segment = (blank if self.segment is None else self.segment).index_copy(0, index, other.segment)
            self.begin = (blank if self.begin is None else self.begin).index_copy(0, index, other.begin)

    @torch.inference_mode(False)
    def clone(self) -> "DecoderState":
        """An independent copy."""
        layers = [None if s is None else s.clone() for s in self.layers]
        twin = DecoderState(layers, self.batch, self.capacity, self.chunk, self.device, self.spec, self.dtype)
        twin.lengths, twin.reached = list(self.lengths), list(self.reached)
        twin.segment, twin.begin = self.segment, self.begin  # replaced, never written
        return twin

    def _held(self) -> list[State]:
        return [layer for layer in self.layers if layer is not None]

    def _rows(self, rows: Sequence[int] | Tensor) -> tuple[list[int], Tensor]:
        given = rows.tolist() if isinstance(rows, Tensor) else list(rows)
        chosen = [row for row in given if isinstance(row, int) and not isinstance(row, bool)] if isinstance(given, list) else []
        if len(chosen) != len(given):
            raise StateError(f"rows are given by their numbers, found {given}")
        if not chosen or min(chosen) < 0 or max(chosen) >= self.batch:
            raise StateError(f"rows {chosen} of a state with the rows 0 to {self.batch - 1}")
        return chosen, torch.tensor(chosen, device=self.device)
