"""Gated delta net: a memory in which a token replaces what is held under its key.

b batch, t tokens of this call, d model width, h heads, e key width, w value width.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from llamazoo import (
    Activation,
    ActivationPart,
    Attention,
    Column,
    Draw,
    Norm,
    NormPart,
    Row,
    Site,
    Size,
    Step,
    as_wide_as_float32,
    at_least_float32,
    parameter,
    part,
)
from llamazoo_recurrent import delta
from llamazoo_recurrent.chunks import by_head
from llamazoo_recurrent.convolution import convolved, inputs_of
from llamazoo_recurrent.decay import document_decay, only_valid
from llamazoo_recurrent.memory import Memory
from llamazoo_recurrent.timescale import Timescale, log_decay, time_step

__all__ = ["GatedDelta"]

TINY = 1e-6  # added to the squared length of q and k before they are divided by it


class GatedDelta(Attention):
    """Gated delta net: a fading memory in which a token replaces what is held under its key. Yang, Kautz & Hatamizadeh 2024.

    M_t = alpha_t (I - beta_t k_t k_t^T) M_{t-1} + beta_t k_t v_t^T and o_t = M_t^T q_t (eq. 10), then normed by head and gated.
    q, k and v pass short convolutions and silu, q and k have length 1 (section 3.4); alpha_t is made as in Mamba-2, beta_t is a sigmoid.
    """

    name = "gated_delta"

    class Options(Timescale):
        n_heads: Size | None = None
        """Heads; the spec's own (n_heads) unless given."""
        key_dim: Size | None = None
        """Key channels of a head; the spec's head_dim unless given."""
        value_dim: Size | None = None
        """Value channels of a head; twice the spec's head_dim unless given."""
        conv: Size = 4
        """Tokens that the convolutions see, the last of them their own."""
        beta_max: Annotated[float, Field(gt=0, le=2)] = 1.0
        """The most that a token replaces of what it finds; 2 gives negative eigenvalues. Grazzi et al. 2024."""
        norm: NormPart = part("rmsnorm")
        """The norm over each head's output."""
        activation: ActivationPart = part("silu")
        """What makes the output gate."""
        chunk: Size = 64
        """Tokens computed at once by matrix products; changes speed and memory, and results by rounding only."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, site)
        options.check()

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads = options.n_heads or site.n_heads
        self.key_dim, self.value_dim = options.key_dim or site.head_dim, options.value_dim or 2 * site.head_dim
        self.beta_max, self.chunk = options.beta_max, options.chunk
        self.timescale: Timescale = options
        keys, values = heads * self.key_dim, heads * self.value_dim
        self.q = nn.Linear(site.dim, keys, bias=False)
        self.k = nn.Linear(site.dim, keys, bias=False)
        self.v = nn.Linear(site.dim, values, bias=False)
        self.q_conv = parameter(keys, options.conv)
        self.k_conv = parameter(keys, options.conv)
        self.v_conv = parameter(values, options.conv)
        self.alpha = nn.Linear(site.dim, heads, bias=False)
        self.beta = nn.Linear(site.dim, heads, bias=False)
        self.A_log = parameter(heads)
        self.dt_bias = parameter(heads)
        self.gate = nn.Linear(site.dim, values, bias=False)
        self.norm: Norm = site.build(options.norm, dim=self.value_dim)
        self.activation: Activation = site.build(options.activation)
        self.o = nn.Linear(values, site.dim, bias=False)

    def reset(self, draw: Draw) -> None:
        for layer in (self.q, self.k, self.v, self.alpha, self.beta, self.gate):
            draw.normal(layer.weight)
        bound = self.q_conv.shape[1] ** -0.5
        for conv in (self.q_conv, self.k_conv, self.v_conv):
            draw.uniform(conv, -bound, bound)
        self.timescale.draw_rates(draw, self.A_log)
        self.timescale.draw_time_steps(draw, self.dt_bias)
        draw.residual(self.o.weight)

    def forward(self, x: Tensor, step: Step, state: Memory | None) -> Tensor:  # type: ignore[override]  # [b t d] -> [b t d]
        q, k, v = (
            as_wide_as_float32(convolved(layer(x), conv, step, state, name))
            for name, layer, conv in (("q", self.q, self.q_conv), ("k", self.k, self.k_conv), ("v", self.v, self.v_conv))
        )
        q, k, v = by_head(q, self.key_dim), by_head(k, self.key_dim), by_head(v, self.value_dim)  # [b h t e], [b h t w]
        decays = log_decay(time_step(self.alpha(x), self.dt_bias), self.A_log)
        a = document_decay(decays, step).transpose(1, 2)  # [b h t]
        beta = only_valid(self.beta_max * as_wide_as_float32(self.beta(x)).sigmoid(), step).transpose(1, 2)
        before = v.new_zeros(*k.shape[:2], self.key_dim, self.value_dim) if state is None else state["memory"]
        y, memory = delta.mix(_unit(q) * self.key_dim**-0.5, _unit(k), v, a, beta, before, self.chunk)
        if state is not None:
            state.write("memory", memory)
        y = self.inside(self.norm, y.transpose(1, 2).to(x.dtype)).flatten(-2)  # [b t h*w]
        return self.o(y * self.inside(self.activation, self.gate(x)))

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> Memory:
        memory = (batch, self.A_log.shape[0], self.key_dim, self.value_dim)
        inputs = inputs_of({"q": self.q_conv, "k": self.k_conv, "v": self.v_conv}, batch, device, dtype)
        return Memory(memory=torch.zeros(memory, device=device, dtype=at_least_float32(dtype)), **inputs)

    def flops(self, context: int) -> int:
        return super().flops(context) + 6 * self.q_conv.shape[0] * self.value_dim  # what k finds, k u^T, and the memory times q

    def splits(self) -> dict[str, Column | Row]:
        e, w = self.key_dim, self.value_dim
        keys = dict.fromkeys(("q", "k", "q_conv", "k_conv"), Column(e))
        values = dict.fromkeys(("v", "gate", "v_conv"), Column(w))
        return {**keys, **values, **dict.fromkeys(("alpha", "beta", "A_log", "dt_bias"), Column()), "o": Row(w)}


def _unit(x: Tensor) -> Tensor:
    """x at length 1; a zero stays one."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + TINY)
