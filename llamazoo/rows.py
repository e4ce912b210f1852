"""The host's part of a call: which rows begin where, padding moved last, documents told apart, all limits kept.

b batch, t tokens of the caller, w tokens of the longest row, d model width, v vocabulary.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from llamazoo.contract.step import FAR, Step
from llamazoo.decoder_state import DecoderState
from llamazoo.errors import ContextLengthError, InputError

__all__ = ["Rows"]


@dataclass
class Rows:
    """The tokens of one call with padding moved last, and where each row begins and ends."""

    tokens: Tensor  # [b w]
    starts: list[int]  # how many tokens each row held before
    counts: list[int]  # how many of `tokens` are its own
    horizon: int  # how many tokens a row may come to hold
    segments: Tensor | None  # [b w] the documents' numbers as the caller gave them
    begin: Tensor | None  # [b w] where each token's document begins
    place: Tensor | None  # [b t] where each token of the caller stands now; None: where it stood

    @classmethod
    def read(cls, tokens: Tensor, state: DecoderState | None, valid: Tensor | None, segments: Tensor | None, max_seq_len: int) -> "Rows":
        batch, width = tokens.shape
        for name, given in (("valid", valid), ("segments", segments)):
            if given is not None and not isinstance(given, Tensor):
                raise InputError(f"{name} is a tensor [batch tokens], found {type(given).__name__}")
            if given is not None and given.shape != tokens.shape:
                raise InputError(f"{name} has the shape {list(given.shape)}, tokens {list(tokens.shape)}")
        if state is not None and state.batch != batch:
            raise InputError(f"the state holds {state.batch} rows, tokens have {batch}")
        starts = [0] * batch if state is None else list(state.lengths)
        counts, place = [width] * batch, None
        if valid is not None:
            if valid.dtype != torch.bool:
                raise InputError(f"valid is a bool tensor, True at real tokens; found {valid.dtype}")
            counts = valid.sum(1).tolist()
            if 0 in counts:
                raise InputError(f"row {counts.index(0)} is all padding; leave it out")
            if min(counts) < width:
                index = (~valid).to(torch.int8).argsort(dim=1, stable=True)[:, : max(counts)]
                place = (valid.cumsum(1) - 1).clamp(min=0)
                tokens = tokens.gather(1, index)
                segments = None if segments is None else segments.gather(1, index)
        capacity, what = (max_seq_len, "the model's context, max_seq_len") if state is None else (state.capacity, "the state's capacity")
        # Without a state no row can come to hold more than it does now.
        horizon = max(counts) if state is None else capacity
        rows = cls(tokens, starts, counts, horizon, segments, None, place)
        if max(rows.ends) > capacity:
            row = rows.ends.index(max(rows.ends))
            raise ContextLengthError(f"row {row} would hold {starts[row]} + {counts[row]} tokens, more than {what} ({capacity})")
        if segments is not None:
            if segments.dtype.is_floating_point or segments.dtype == torch.bool:
                raise InputError(f"segments are integers, found {segments.dtype}")
            rows.begin = rows._begin(state)
        if state is not None:
            state.check_segments(segments is not None)
        return rows

    @property
    def width(self) -> int:
        return self.tokens.shape[1]

    @property
    def ends(self) -> list[int]:
        return [start + count for start, count in zip(self.starts, self.counts, strict=True)]

    @property
    def padded(self) -> bool:
        return min(self.counts) < self.width

    def step(self, first: int, last: int) -> tuple[Tensor, Step]:
        """The tokens of columns `first` to `last`, and what a forward call knows about them."""
        tokens = self.tokens[:, first:last]
        extent = max(start + min(count, last) for start, count in zip(self.starts, self.counts, strict=True))
        if not self.padded and len(set(self.starts)) == 1:
            step = Step.even(len(tokens), last - first, start=self.starts[0] + first, horizon=self.horizon, device=tokens.device)
        else:
            column = torch.arange(first, last, device=tokens.device)
            starts, counts = (torch.tensor(n, device=tokens.device) for n in (self.starts, self.counts))
            order = starts[:, None] + column
            ends = starts + counts.clamp(max=last)
            valid = column < counts[:, None] if self.padded else None
            positions = order if valid is None else order.masked_fill(~valid, 0)
            order = order if valid is None else order.masked_fill(~valid, FAR)
            step = Step(positions=positions, order=order, extent=extent, horizon=self.horizon, ends=ends, valid=valid)
        if self.begin is not None:
            begin = self.begin[:, first:last]
            step = replace(step, begin=begin, positions=(step.positions - begin).clamp(min=0))
        return tokens, step

    def _begin(self, state: DecoderState | None) -> Tensor:
        """The order at which each token's document begins: a running count, since a raw number may return later. [b w]"""
        assert self.segments is not None
        ids, device = self.segments.long(), self.tokens.device
        starts = torch.tensor(self.starts, device=device)
        order = starts[:, None] + torch.arange(self.width, device=device)
        changed = torch.ones_like(ids, dtype=torch.bool)
        changed[:, 1:] = ids[:, 1:] != ids[:, :-1]
        if state is not None and state.segment is not None and state.begin is not None:
            changed[:, 0] = (starts == 0) | (ids[:, 0] != state.segment)
            before = state.begin.masked_fill(starts == 0, 0)
        else:
            before = torch.zeros_like(starts)
        return order.masked_fill(~changed, -1).cummax(1).values.maximum(before[:, None])

    def last_segment(self) -> Tensor | None:
        return None if self.segments is None else self._at_last(self.segments.long())

    def last_begin(self) -> Tensor | None:
        return None if self.begin is None else self._at_last(self.begin)

    def _at_last(self, x: Tensor) -> Tensor:  # [b w] -> [b]
        return x.gather(1, torch.tensor(self.counts, device=x.device)[:, None] - 1)[:, 0]

    def last(self, x: Tensor) -> Tensor:
        """The features of each row's last real token. [b w d] -> [b 1 d]"""
        if not self.padded:
            return x[:, -1:]
        index = torch.tensor(self.counts, device=x.device)[:, None, None] - 1
        return x.gather(1, index.expand(-1, 1, x.shape[-1]))

    def restored(self, x: Tensor) -> Tensor:
        """Features in the caller's order again; at padding, those of a real token. [b w d] -> [b t d]"""
        return x if self.place is None else x.gather(1, self.place[:, :, None].expand(-1, -1, x.shape[-1]))
