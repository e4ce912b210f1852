"""Which keys a query may see, and the kernels that compute attention over them.

b batch, t queries, s keys, h heads, k key/value heads, e width of queries and keys, f width of values.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from llamazoo.contract.component import Component
from llamazoo.contract.step import FAR, Step

__all__ = ["Kernel", "Visible"]


class Visible(NamedTuple):
    """The keys that each query of a call may see: none after it, none before the window, none of another document.

    Where the keys lie: `own`, they are the call's own tokens; `slots`, key i of each row has order i; `ring`, key i has
    the latest order written so far that leaves the remainder i when divided by `size`.
    """

    step: Step
    keys: Literal["own", "slots", "ring"] = "own"
    size: int = 0  # how many slots; not used for `own`
    window: int | None = None  # a query sees itself and the window - 1 tokens before it; None: all of them

    @property
    def pattern(self) -> Literal["all", "causal", "mask"]:
        """`all`: every query sees every key. `causal`: query i sees the keys up to i. `mask`: only the mask can say."""
        step, tokens = self.step, self.step.order.shape[1]
        if step.start is None or step.begin is not None:
            return "mask"
        if self.keys == "own":
            if self.window is not None and self.window < tokens:
                return "mask"
            return "all" if tokens == 1 else "causal"
        fits = self.window is None or self.size <= self.window
        return "all" if tokens == 1 and self.keys == "slots" and fits else "mask"

    @property
    def q_order(self) -> Tensor:  # [b t]
        return self.step.order

    @property
    def k_order(self) -> Tensor:  # [b s]
        if self.keys == "own":
            return self.step.order
        return self.step.once(("k_order", self._ring), self._k_order)

    @property
    def _ring(self) -> int:
        """What tells one layer's keys from another's in a call; how many slots are in use is the same for all, and grows."""
        return self.size if self.keys == "ring" else 0

    def mask(self) -> Tensor:
        """True where a query may see a key; computed once for all layers that look alike. [b 1 t s]"""
        return self.step.once(("mask", self.keys, self._ring, self.window), self._mask)

    def additive(self, dtype: torch.dtype) -> Tensor:
        """0 where a query may see a key, else the lowest number; computed once for all layers that look alike. [b 1 t s]

        Not minus infinity: a row of padding, which sees nothing, must not become NaN, and with it all that multiplies it by nought.
        """
        return self.step.once(("additive", self.keys, self._ring, self.window, dtype), lambda: self._additive(dtype))

    def _additive(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros((), dtype=dtype, device=self.q_order.device).masked_fill(~self.mask(), torch.finfo(dtype).min)

    def _k_order(self) -> Tensor:
        slot = torch.arange(self.size, device=self.step.order.device)
        if self.keys == "slots":
            return slot.expand(self.step.order.shape[0], -1)
        last = self.step.lengths[:, None] - 1
        order = last - (last - slot) % self.size
        return order.masked_fill(order < 0, FAR)  # not yet written

    def _mask(self) -> Tensor:
        q_order, k_order = self.q_order[:, :, None], self.k_order[:, None, :]
        mask = k_order <= q_order
        if self.window is not None:
            mask = mask & (k_order > q_order - self.window)
        if self.step.begin is not None:
            mask = mask & (k_order >= self.step.begin[:, :, None])
        return mask[:, None]


class Kernel(Component):
    """A way to compute attention; all give the same numbers, up to rounding. The one called `eager` is the reference."""

    kind = "kernel"

    def refuses(self, *, bias: bool, sinks: bool, softcap: float | None, q: Tensor | None = None) -> str | None:
        """Why this kernel cannot compute such attention, or None; `q` is None while a spec is validated."""
        return None

    def forward(
        self,
        q: Tensor,  # [b h t e]
        k: Tensor,  # [b k s e]; each serves h/k query heads
        v: Tensor,  # [b k s f]; often, not always, f is e
        *,
        visible: Visible,
        bias: Tensor | None = None,  # added to the scaled scores; [b h t s]
        sinks: Tensor | None = None,  # [h] the score of a key without value, which only takes weight away
        softcap: float | None = None,  # scores become softcap * tanh(scores / softcap)
        scale: float,
    ) -> Tensor:  # [b h t f]
        raise NotImplementedError
