"""Causal attention over heads of keys and values, with a cache.

b batch, t tokens of this call, d model width, h heads, k key/value heads, e head width.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from llamazoo.contract.component import Site, parameter, refuse
from llamazoo.contract.draw import Draw
from llamazoo.contract.kernel import Kernel, Visible
from llamazoo.contract.kinds import Attention, Norm, RotaryRows
from llamazoo.contract.options import ComponentOptions, Positive, Size
from llamazoo.contract.split import Column, Row, Split
from llamazoo.contract.state import KeyValueState
from llamazoo.contract.step import Step
from llamazoo.spec.part import KernelPart, NormPart, part

__all__ = ["Multihead"]


class Multihead(Attention):
    """Multi-head attention; grouped-query with fewer key/value heads. Vaswani et al. 2017, section 3.2.2; Ainslie et al. 2023."""

    name = "multihead"
    honours = frozenset({"rotate", "bias"})

    class Options(ComponentOptions):
        n_kv_heads: Size | None = None
        """Heads of keys and values; the spec's own n_kv_heads unless given. A divisor of n_heads."""
        qkv_bias: bool = False
        """Whether the projections to queries, keys and values have a bias."""
        out_bias: bool = False
        """Whether the projection back to the model's width has a bias."""
        qk_norm: NormPart | None = None
        """A norm of queries and keys, before the position acts. Dehghani et al. 2023, section 2."""
        qk_norm_over: Literal["head", "all"] = "head"
        """What that norm is taken over: each head by itself, with gains that all share, or all heads together. OLMo 2, 2024."""
        clip: Positive | None = None
        """Queries, keys and values are cut off at this and its negative, before the norm. MosaicML 2023 (MPT), clip_qkv."""
        sinks: bool = False
        """Whether each head has a learned score that takes weight and has no value. Xiao et al. 2023, section 3.3; gpt-oss, 2025."""
        softcap: Positive | None = None
        """Scores become softcap * tanh(scores / softcap). Gemma 2, 2024, section 2."""
        window: Size | None = None
        """A token sees itself and the window - 1 before it; null: all before it. Beltagy et al. 2020, section 3.1."""
        scale: Positive | None = None
        """What scores are multiplied by; 1 / sqrt(head_dim) unless given."""
        kernel: KernelPart = part("auto")
        """What computes the attention."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, site)
        heads, kv = site.n_heads, options.n_kv_heads or site.n_kv_heads
        if heads % kv:
            divisors = [n for n in range(1, min(heads, 1024) + 1) if heads % n == 0]
            raise refuse("n_kv_heads", f"{kv} key/value heads (n_kv_heads) do not divide {heads} heads (n_heads); use one of {divisors}")
        if options.qk_norm is None and options.qk_norm_over != "head":
            raise refuse("qk_norm_over", "says what qk_norm is taken over, and there is none; give qk_norm too")
        kernel: Kernel = site.build(options.kernel)
        reason = kernel.refuses(bias=False, sinks=options.sinks, softcap=options.softcap)
        if reason is not None:
            raise refuse("kernel", f"{options.kernel.type} cannot compute this attention: {reason}; use auto or eager")

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads, kv = site.n_heads, options.n_kv_heads or site.n_kv_heads
        width = site.head_dim
        self.head_dim = width
        self.q = nn.Linear(site.dim, heads * width, bias=options.qkv_bias)
        self.k = nn.Linear(site.dim, kv * width, bias=options.qkv_bias)
        self.v = nn.Linear(site.dim, kv * width, bias=options.qkv_bias)
        self.o = nn.Linear(heads * width, site.dim, bias=options.out_bias)
        over_all = options.qk_norm_over == "all"
        self.q_norm: Norm | None = site.build(options.qk_norm, dim=heads * width if over_all else width) if options.qk_norm else None
        self.k_norm: Norm | None = site.build(options.qk_norm, dim=kv * width if over_all else width) if options.qk_norm else None
        self.norm_widths = (heads * width, kv * width) if over_all else None  # of the whole, where all heads are normed together
        self.sinks: nn.Parameter | None = parameter(heads) if options.sinks else None
        self.softcap, self.window, self.clip = options.softcap, options.window, options.clip
        self.scale = 1 / math.sqrt(width) if options.scale is None else options.scale
        self.kernel: Kernel = site.build(options.kernel)

    def reset(self, draw: Draw) -> None:
        for layer in (self.q, self.k, self.v):
            draw.normal(layer.weight)
            draw.zeros(layer.bias)
        draw.residual(self.o.weight)
        draw.zeros(self.o.bias)
        if self.sinks is not None:
            draw.normal(self.sinks)

    def forward(self, x: Tensor, step: Step, state: KeyValueState | None) -> Tensor:  # type: ignore[override]  # [b t d] -> [b t d]
        b, t, _ = x.shape
        # The number of heads is read from the tensor: a process that holds a share of them needs no other code.
        q, k, v = self.q(x), self.k(x), self.v(x)  # [b t h*e], [b t k*e]
        if self.clip is not None:
            q, k, v = (features.clamp(-self.clip, self.clip) for features in (q, k, v))
        if self.q_norm is not None and self.k_norm is not None and self.norm_widths is not None:
            q, k = self._normed(self.q_norm, q, self.norm_widths[0]), self._normed(self.k_norm, k, self.norm_widths[1])
        q = q.view(b, t, -1, self.head_dim).transpose(1, 2)  # [b h t e]
        k = k.view(b, t, -1, self.head_dim).transpose(1, 2)  # [b k t e]
        v = v.view(b, t, -1, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None and self.norm_widths is None:
            q, k = self.inside(self.q_norm, q), self.inside(self.k_norm, k)
        q, k = self.place.rotate(q, k, step)
        if state is None:
            visible = Visible(step, window=self.window)
        else:
            k, v, visible = state.extend(k, v, step)
        bias = self.place.bias(visible)
        y = self.kernel(q, k, v, visible=visible, bias=bias, sinks=self.sinks, softcap=self.softcap, scale=self.scale)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def _normed(self, norm: Norm, x: Tensor, width: int) -> Tensor:
        """A norm over all heads, `width` features, of which this process may hold a share. [b t h*e] -> [b t h*e]"""
        if x.shape[-1] == width:  # a single key/value head, whole in every process, but within their shares of the work
            return self.inside(norm, x)
        return self.own_heads(norm(self.gather(x, -1, width)), -1)

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> KeyValueState:
        heads = self.k.weight.shape[0] // self.head_dim
        return KeyValueState(batch, capacity, heads, self.head_dim, window=self.window, chunk=chunk, device=device, dtype=dtype)

    def flops(self, context: int) -> int:
        seen = context if self.window is None else min(context, self.window)
        return super().flops(context) + 4 * self.q.weight.shape[0] * seen  # q k^T, and the weights times v

    def facts(self) -> list[str]:
        heads, kv = (layer.weight.shape[0] // self.head_dim for layer in (self.q, self.k))
        grouped = [] if kv == heads else [f"{kv} key/value head{'s' if kv > 1 else ''}"]
        return [f"{heads} head{'s' if heads > 1 else ''} of width {self.head_dim}", *grouped, *self.unusual("n_kv_heads")]

    def splits(self) -> dict[str, Split]:
        e = self.head_dim
        kv = Column(e if self.k.weight.shape[0] > e else None)  # a single key/value head serves all: every process keeps it whole
        heads: dict[str, Split] = {"q": Column(e), "k": kv, "v": kv, "o": Row(e)}
        return heads if self.sinks is None else {**heads, "sinks": Column()}

    @classmethod
    def rotary_rows(cls, options: Options, site: Site) -> dict[str, RotaryRows]:
        return {f"{n}.{leaf}": RotaryRows(site.head_dim) for n in ("q", "k", "q_norm", "k_norm") for leaf in ("weight", "bias")}
