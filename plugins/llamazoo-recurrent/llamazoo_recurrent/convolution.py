"""Short causal convolutions, channel by channel, that go on across calls and stop where a document begins.

b batch, t tokens of this call, m channels, w width: how many tokens a tap sees, the last of them its own.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from llamazoo import Step, as_wide_as_float32
from llamazoo_recurrent.memory import Memory

__all__ = ["convolve", "convolved", "inputs_of"]


def convolved(x: Tensor, weight: Tensor, step: Step, state: Memory | None, name: str) -> Tensor:
    """silu of the convolution, whose last inputs the state holds under this name. [b t m] -> [b t m]"""
    name = f"{name}_inputs"
    y, inputs = convolve(x, weight, None, step, None if state is None else state[name])
    if state is not None:
        state.write(name, inputs)
    return F.silu(y)


def inputs_of(weights: Mapping[str, Tensor], batch: int, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """What a state holds for convolutions by name before there was a token: zeros, [b w-1 m] each."""
    return {
        f"{name}_inputs": torch.zeros(batch, weight.shape[1] - 1, weight.shape[0], device=device, dtype=dtype)
        for name, weight in weights.items()
    }


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, step: Step, before: Tensor | None) -> tuple[Tensor, Tensor]:
    """y_i = sum_d weight[w - 1 - d] x_{i-d} over the tokens of i's document, and the inputs that the next call will look back at.

    x [b t m], weight [m w], before [b w-1 m] -> [b t m], [b w-1 m]. `before` is zero where there was nothing.
    """
    tokens, width = x.shape[1], weight.shape[1]
    seen = F.pad(x, (0, 0, width - 1, 0)) if before is None else torch.cat((before, x), 1)
    taps, inputs = as_wide_as_float32(weight), as_wide_as_float32(seen)
    y = inputs[:, width - 1 :] * taps[:, -1]
    for distance in range(1, width):
        earlier = inputs[:, width - 1 - distance : width - 1 - distance + tokens]
        if step.begin is not None:
            earlier = earlier.masked_fill(_too_far(step, distance), 0)
        y = torch.addcmul(y, earlier, taps[:, width - 1 - distance])
    if bias is not None:
        y = y + as_wide_as_float32(bias)
    return y.to(x.dtype), _last(seen, step, width)


def _too_far(step: Step, distance: int) -> Tensor:
    """True where the token so far back belongs to an earlier document. [b t 1]"""
    begin = step.begin
    assert begin is not None
    return step.once(("recurrent", "too_far", distance), lambda: (step.order - begin < distance)[..., None])


def _last(seen: Tensor, step: Step, width: int) -> Tensor:
    """The last inputs of each row, zero where they belong to a document that is over. [b w-1+t m] -> [b w-1 m]"""
    if step.valid is None:
        last = seen[:, seen.shape[1] - (width - 1) :]
    else:
        index = step.once(("recurrent", "last", width), lambda: _counts(step)[:, None] + torch.arange(width - 1, device=seen.device))
        last = seen.gather(1, index[..., None].expand(-1, -1, seen.shape[2]))
    if step.begin is None:
        return last
    return last.masked_fill(step.once(("recurrent", "over", width), lambda: _over(step, width)), 0)


def _counts(step: Step) -> Tensor:
    """How many tokens of this call are each row's own. [b]"""
    if step.valid is None:
        return torch.full_like(step.order[:, 0], step.order.shape[1])
    return step.valid.sum(1)


def _over(step: Step, width: int) -> Tensor:
    """True at those of a row's last inputs that come before its last document. [b w-1 1]"""
    assert step.begin is not None
    counts = _counts(step)
    begin = step.begin.gather(1, (counts - 1).clamp(min=0)[:, None])
    # A row without a token in this call keeps what it has: that was sorted out when it was written.
    begin = begin.masked_fill(counts[:, None] == 0, 0)
    order = step.lengths[:, None] - torch.arange(width - 1, 0, -1, device=begin.device)
    return (order < begin)[..., None]
