"""Gated linear attention.

b batch, t tokens of this call, d model width, h heads, e key width, w value width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo import (
    Activation,
    ActivationPart,
    Attention,
    Column,
    ComponentOptions,
    Draw,
    Norm,
    NormPart,
    Positive,
    Row,
    Site,
    Size,
    Step,
    as_wide_as_float32,
    at_least_float32,
    parameter,
    part,
)
from llamazoo_recurrent import per_channel
from llamazoo_recurrent.chunks import by_head
from llamazoo_recurrent.convolution import convolved, inputs_of
from llamazoo_recurrent.decay import document_decay, only_valid
from llamazoo_recurrent.memory import Memory

__all__ = ["GatedLinearAttention"]


class GatedLinearAttention(Attention):
    """Gated linear attention: a memory of keys and values in which each key channel fades at a learned rate. Yang et al. 2023, section 4.

    M_t = diag(alpha_t) M_{t-1} + k_t v_t^T and o_t = M_t^T q_t, with alpha_t = sigmoid(W_2 W_1 x_t + b)^(1/temperature); then normed
    by head and gated by silu(W_r x + b_r) (section 4.4). With `conv`, q, k and v pass short convolutions and silu first, as in Mamba-2
    and the gated delta net (Yang, Kautz & Hatamizadeh 2024, section 3.4), so that a key may be bound to the token beside it.
    """

    name = "gla"

    class Options(ComponentOptions):
        n_heads: Size | None = None
        """Heads; the spec's own (n_heads) unless given."""
        key_dim: Size | None = None
        """Key channels of a head; half the spec's head_dim unless given, as in the paper."""
        value_dim: Size | None = None
        """Value channels of a head; the spec's head_dim unless given."""
        conv: Size | None = None
        """Tokens that the convolutions of queries, keys and values see, the last of them their own; no convolution unless given."""
        gate_rank: Size = 16
        """Features between the two matrices that make the decays."""
        temperature: Positive = 16.0
        """Decays are the 1/temperature-th power of a sigmoid, so that a fresh model forgets slowly."""
        norm: NormPart = part("rmsnorm")
        """The norm over each head's output."""
        activation: ActivationPart = part("silu")
        """What makes the output gate."""
        chunk: Size = 64
        """Tokens computed at once by matrix products; changes speed and memory, and results by rounding only."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads = options.n_heads or site.n_heads
        self.key_dim = options.key_dim or max(1, site.head_dim // 2)
        self.value_dim = options.value_dim or site.head_dim
        self.temperature, self.chunk = options.temperature, options.chunk
        self.q = nn.Linear(site.dim, heads * self.key_dim, bias=False)
        self.k = nn.Linear(site.dim, heads * self.key_dim, bias=False)
        self.v = nn.Linear(site.dim, heads * self.value_dim, bias=False)
        self.q_conv, self.k_conv, self.v_conv = (
            None if options.conv is None else parameter(layer.out_features, options.conv) for layer in (self.q, self.k, self.v)
        )
        self.decay_down = nn.Linear(site.dim, options.gate_rank, bias=False)
        self.decay_up = nn.Linear(options.gate_rank, heads * self.key_dim)
        self.gate = nn.Linear(site.dim, heads * self.value_dim)
        self.norm: Norm = site.build(options.norm, dim=self.value_dim)
        self.activation: Activation = site.build(options.activation)
        self.o = nn.Linear(heads * self.value_dim, site.dim, bias=False)

    def reset(self, draw: Draw) -> None:
        for layer in (self.q, self.k, self.v, self.decay_down, self.decay_up, self.gate):
            draw.normal(layer.weight)
            draw.zeros(layer.bias)
        for conv in (self.q_conv, self.k_conv, self.v_conv):
            if conv is not None:
                bound = conv.shape[1] ** -0.5
                draw.uniform(conv, -bound, bound)
        draw.residual(self.o.weight)

    def forward(self, x: Tensor, step: Step, state: Memory | None) -> Tensor:  # type: ignore[override]  # [b t d] -> [b t d]
        decays = F.logsigmoid(as_wide_as_float32(self.decay_up(self.decay_down(x)))) / self.temperature
        q, k, v = (
            as_wide_as_float32(layer(x) if conv is None else convolved(layer(x), conv, step, state, name))
            for name, layer, conv in (("q", self.q, self.q_conv), ("k", self.k, self.k_conv), ("v", self.v, self.v_conv))
        )
        q = by_head(q * self.key_dim**-0.5, self.key_dim)  # [b h t e]
        k, v = by_head(only_valid(k, step), self.key_dim), by_head(v, self.value_dim)
        a = by_head(document_decay(decays, step), self.key_dim)
        before = v.new_zeros(*k.shape[:2], self.key_dim, self.value_dim) if state is None else state["memory"]
        y, memory = per_channel.mix(q, k, v, a, before, self.chunk)
        if state is not None:
            state.write("memory", memory)
        y = self.inside(self.norm, y.transpose(1, 2).to(x.dtype)).flatten(-2)  # [b t h*w]
        return self.o(y * self.inside(self.activation, self.gate(x)))

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> Memory:
        heads = self.k.weight.shape[0] // self.key_dim
        memory = torch.zeros(batch, heads, self.key_dim, self.value_dim, device=device, dtype=at_least_float32(dtype))
        return Memory(memory=memory, **inputs_of(self._convolutions(), batch, device, dtype))

    def _convolutions(self) -> dict[str, Tensor]:
        """Those of q, k and v by name, or nothing."""
        found = {"q": self.q_conv, "k": self.k_conv, "v": self.v_conv}
        return {name: conv for name, conv in found.items() if conv is not None}

    def flops(self, context: int) -> int:
        return super().flops(context) + 4 * self.k.weight.shape[0] * self.value_dim  # k v^T, and the memory times q

    def splits(self) -> dict[str, Column | Row]:
        e, w = self.key_dim, self.value_dim
        splits = {"q": Column(e), "k": Column(e), "v": Column(w)}
        convs = {f"{name}_conv": splits[name] for name in self._convolutions()}
        return {**splits, **convs, "decay_up": Column(e), "gate": Column(w), "o": Row(w)}
