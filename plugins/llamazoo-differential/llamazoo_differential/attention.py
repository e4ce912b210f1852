"""Differential attention: what two softmaxes have in common is noise, and is taken away.

b batch, t tokens of this call, d model width, h heads, k key/value heads, p pairs of heads, e head width.
"""

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

import llamazoo
from llamazoo import Column, KeyValueState, Row, SpecError, Step, Visible

__all__ = ["Differential", "llamazoo_components"]


class Differential(llamazoo.Attention):
    """(softmax(Q1 K1^T) - lambda softmax(Q2 K2^T)) V, and a norm over each head. Ye et al. 2024 (Differential Transformer), eq. 1 to 3.

    Two heads of the spec make one head of the paper, which has half as many, each with values twice as wide: heads 2i and
    2i + 1 of the queries are Q1 and Q2 of pair i, heads 2j and 2j + 1 of the keys are K1 and K2 of pair j, and the 2 head_dim
    features from 2j head_dim on are V. With fewer key/value heads, n_heads / n_kv_heads pairs of queries share a pair of
    keys, Q1 always with K1. So q, k, v and o are of the shapes that they have in `multihead`, and a position acts on
    n_heads heads of width head_dim.

    lambda = exp(q1 . k1) - exp(q2 . k2) + lambda_init is one number for all heads of a layer, learned as four vectors
    (eq. 2). lambda_init is 0.8 - 0.6 exp(-0.3 (l - 1)) in layer l, counted from 1, unless given.
    """

    name = "differential"
    honours = frozenset({"rotate", "bias"})

    class Options(llamazoo.ComponentOptions):
        window: int | None = Field(None, ge=1, le=2**40)
        """A token sees itself and the window - 1 before it; null: all before it."""
        lambda_init: float | None = Field(None, ge=0, lt=1)
        """What lambda starts near, and one minus which scales what comes out; by the layer's number unless given."""
        norm: llamazoo.NormPart = llamazoo.part("rmsnorm")
        """The norm over the 2 head_dim features of each pair of heads."""
        kernel: llamazoo.KernelPart = llamazoo.part("auto")
        """What computes each of the two softmaxes over the values."""

    @classmethod
    def check(cls, options: Options, site: llamazoo.Site) -> None:
        super().check(options, site)
        if site.n_heads % 2 or site.n_kv_heads % 2:
            found = f"{site.n_heads} heads (n_heads) and {site.n_kv_heads} key/value heads (n_kv_heads)"
            raise SpecError(f"{found} do not make pairs, of which each head of differential attention needs one; use even numbers of both")
        kernel: llamazoo.Kernel = site.build(options.kernel)
        reason = kernel.refuses(bias=False, sinks=False, softcap=None)
        if reason is not None:
            raise SpecError(f"{options.kernel.type} cannot compute this attention: {reason}; use auto or eager").under("kernel")

    def __init__(self, options: Options, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        e, layer = site.head_dim, site.layer or 0
        self.head_dim, self.window = e, options.window
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * layer) if options.lambda_init is None else options.lambda_init
        self.q = nn.Linear(site.dim, site.n_heads * e, bias=False)
        self.k = nn.Linear(site.dim, site.n_kv_heads * e, bias=False)
        self.v = nn.Linear(site.dim, site.n_kv_heads * e, bias=False)
        self.o = nn.Linear(site.n_heads * e, site.dim, bias=False)
        self.lambda_q1, self.lambda_k1 = nn.Parameter(torch.empty(e)), nn.Parameter(torch.empty(e))
        self.lambda_q2, self.lambda_k2 = nn.Parameter(torch.empty(e)), nn.Parameter(torch.empty(e))
        self.norm: llamazoo.Norm = site.build(options.norm, dim=2 * e)
        self.kernel: llamazoo.Kernel = site.build(options.kernel)

    def reset(self, draw: llamazoo.Draw) -> None:
        for layer in (self.q, self.k, self.v):
            draw.normal(layer.weight)
        draw.residual(self.o.weight)
        for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2):
            draw.normal(vector, 0.1)  # as in the authors' code

    def forward(self, x: Tensor, step: Step, state: KeyValueState | None) -> Tensor:  # type: ignore[override]  # [b t d] -> [b t d]
        (b, t, _), e = x.shape, self.head_dim
        # Numbers of heads are read from the tensors: a process that holds a share of them needs no other code.
        q = self.q(x).view(b, t, -1, e).transpose(1, 2)  # [b 2p t e]
        k = self.k(x).view(b, t, -1, e).transpose(1, 2)  # [b k t e]
        v = self.v(x).view(b, t, -1, 2 * e).transpose(1, 2)  # [b k/2 t 2e]
        q, k = self.place.rotate(q, k, step)
        k = torch.cat((k[:, 0::2], k[:, 1::2]), -1)  # [b k/2 t 2e]
        if state is None:
            visible = Visible(step, window=self.window)
        else:
            k, v, visible = state.extend(k, v, step)
        bias = self.place.bias(visible)
        # Half of a query is zeros, so that it meets K1 or K2 alone: a kernel takes queries, keys and values of one width,
        # and no key is copied out of the state.
        y1, y2 = (
            self.kernel(
                F.pad(q[:, i::2], padding), k, v, visible=visible, bias=None if bias is None else bias[:, i::2], scale=1 / math.sqrt(e)
            )
            for i, padding in enumerate(((0, e), (e, 0)))
        )
        # All heads share lambda, and a process may compute only some of them.
        y = (_wide(y1) - self.whole(self.mixed()) * _wide(y2)).type_as(x)  # [b p t 2e]
        y = self.inside(self.norm, y) * (1 - self.lambda_init)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def mixed(self) -> Tensor:
        """lambda: how much of the second softmax is taken from the first; a scalar, at least float32. Eq. 2."""
        q1, k1, q2, k2 = (_wide(vector) for vector in (self.lambda_q1, self.lambda_k1, self.lambda_q2, self.lambda_k2))
        return torch.exp(q1 @ k1) - torch.exp(q2 @ k2) + self.lambda_init

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> KeyValueState:
        width = 2 * self.head_dim
        pairs = self.v.weight.shape[0] // width
        return KeyValueState(batch, capacity, pairs, width, window=self.window, chunk=chunk, device=device, dtype=dtype)

    def flops(self, context: int) -> int:
        seen = context if self.window is None else min(context, self.window)
        # For each head of the spec: q k^T, and the weights times values that are twice as wide; the zeros are not counted.
        return super().flops(context) + 6 * self.q.weight.shape[0] * seen

    def splits(self) -> dict[str, Column | Row]:
        pair = 2 * self.head_dim
        kv = Column(pair if self.k.weight.shape[0] > pair else None)  # a single pair serves all: every process keeps it whole
        return {"q": Column(pair), "k": kv, "v": kv, "o": Row(pair)}

    @classmethod
    def rotary_rows(cls, options: Options, site: llamazoo.Site) -> dict[str, llamazoo.RotaryRows]:
        return {"q.weight": llamazoo.RotaryRows(site.head_dim), "k.weight": llamazoo.RotaryRows(site.head_dim)}


def _wide(x: Tensor) -> Tensor:
    """x in at least float32: the difference of two softmaxes is small, and half precision would lose it."""
    return x if x.dtype == torch.float64 else x.float()


llamazoo_hook_version = 1


@llamazoo.hookimpl
def llamazoo_components() -> Iterable[type[llamazoo.Component]]:
    return [Differential]
