"""Attention over latents: a small vector of each token, that all heads share, from which their keys and values are made.

b batch, t tokens of this call, s tokens to look at, d model width, h heads, c width of the latent, r width of the rotary part,
n width of a head's other part, f width of a head's values.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.component import Site, refuse
from llamazoo.contract.draw import Draw
from llamazoo.contract.kernel import Kernel, Visible
from llamazoo.contract.kinds import Attention, Norm, RotaryRows
from llamazoo.contract.options import ComponentOptions, Positive, Size
from llamazoo.contract.split import Column, Row, Split
from llamazoo.contract.state import TokenState
from llamazoo.contract.step import Step
from llamazoo.spec.part import KernelPart, NormPart, part

__all__ = ["Latent"]


class Latent(Attention):
    """Multi-head latent attention. DeepSeek-V2 (arXiv 2405.04434), section 2.1.

    A token is remembered as its latent (eq. 9) and one rotary key for all heads (eq. 15): kv_rank + head_dim numbers, whatever
    the number of heads. The spec's head_dim is the width of the rotary part, which the position turns; its n_kv_heads is
    not used. Keys and values are made from the latents (`expanded`, eq. 10 and 11), or not at all (`absorbed`, end of section
    2.1.2), where that takes fewer operations.
    """

    name = "latent"
    aliases: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mla": {}}
    honours = frozenset({"rotate", "bias"})

    class Options(ComponentOptions):
        q_rank: Size | None = None
        """The width of the latent that queries are made from (eq. 12); null: they are made from the features themselves."""
        kv_rank: Size = 512
        """The width of the latent that keys and values are made from, and that is remembered."""
        nope_dim: Size = 128
        """The width of the part of each head's queries and keys that no position turns."""
        v_dim: Size = 128
        """The width of each head's values."""
        norm: NormPart = part("rmsnorm", eps=1e-6)
        """The norm over each latent."""
        bias: bool = False
        """Whether the projections to latents, and the one back to the model's width, have a bias."""
        scale: Positive | None = None
        """What scores are multiplied by; 1 / sqrt(nope_dim + head_dim) unless given."""
        window: Size | None = None
        """A token sees itself and the window - 1 before it; null: all before it."""
        kernel: KernelPart = part("auto")
        """What computes the attention."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, site)
        kernel: Kernel = site.build(options.kernel)
        reason = kernel.refuses(bias=False, sinks=False, softcap=None)
        if reason is not None:
            raise refuse("kernel", f"{options.kernel.type} cannot compute this attention: {reason}; use auto or eager")

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads, bias = site.n_heads, options.bias
        self.kv_rank, self.rope_dim, self.nope_dim, self.v_dim = options.kv_rank, site.head_dim, options.nope_dim, options.v_dim
        width = self.nope_dim + self.rope_dim
        self.q: nn.Linear | None = None
        self.q_down: nn.Linear | None = None
        self.q_norm: Norm | None = None
        self.q_up: nn.Linear | None = None
        if options.q_rank is None:
            self.q = nn.Linear(site.dim, heads * width, bias=False)
        else:
            self.q_down = nn.Linear(site.dim, options.q_rank, bias=bias)
            self.q_norm = site.build(options.norm, dim=options.q_rank)
            self.q_up = nn.Linear(options.q_rank, heads * width, bias=False)
        self.kv_down = nn.Linear(site.dim, self.kv_rank + self.rope_dim, bias=bias)  # the latent, and the rotary key of all heads
        self.kv_norm: Norm = site.build(options.norm, dim=self.kv_rank)
        self.kv_up = nn.Linear(self.kv_rank, heads * (self.nope_dim + self.v_dim), bias=False)
        self.o = nn.Linear(heads * self.v_dim, site.dim, bias=bias)
        self.window = options.window
        self.scale = 1 / math.sqrt(width) if options.scale is None else options.scale
        self.kernel: Kernel = site.build(options.kernel)

    def reset(self, draw: Draw) -> None:
        for layer in (self.q, self.q_down, self.q_up, self.kv_down, self.kv_up):
            if layer is not None:
                draw.normal(layer.weight)
                draw.zeros(layer.bias)
        draw.residual(self.o.weight)
        draw.zeros(self.o.bias)

    def forward(self, x: Tensor, step: Step, state: TokenState | None) -> Tensor:  # type: ignore[override]  # [b t d] -> [b t d]
        b, t, _ = x.shape
        q, q_rotary = self.queries(x)
        latent, k_rotary = self.kv_down(x).split((self.kv_rank, self.rope_dim), -1)
        # Both are whole, and each process's heads look at them.
        latent, k_rotary = self.whole(self.kv_norm(latent))[:, None], self.whole(k_rotary)[:, None]
        q_rotary, k_rotary = self.place.rotate(q_rotary, k_rotary, step)
        tokens = torch.cat((latent, k_rotary), -1)  # [b 1 s c+r]
        visible = Visible(step, window=self.window)
        if state is not None:
            (tokens,), visible = state.write((tokens,), step)
        expanded, absorbed = self.products(t, tokens.shape[2])
        attend = self.expanded if expanded <= absorbed else self.absorbed
        y = attend(q, q_rotary, tokens, visible)
        return self.o(y.transpose(1, 2).reshape(b, t, -1))

    def queries(self, x: Tensor) -> tuple[Tensor, Tensor]:  # [b t d] -> [b h t n], [b h t r]
        """Each head's query in two parts, of which the position turns the second. Eq. 12 to 14."""
        if self.q is not None:
            q = self.q(x)
        else:
            assert self.q_down is not None
            assert self.q_norm is not None
            assert self.q_up is not None
            q = self.q_up(self.q_norm(self.q_down(x)))
        widths = (self.nope_dim, self.rope_dim)
        q, q_rotary = q.unflatten(-1, (-1, sum(widths))).transpose(1, 2).split(widths, -1)
        return q, q_rotary

    def products(self, queries: int, keys: int) -> tuple[int, int]:
        """Multiplications of one head, in each of the two forms, where so many tokens look at so many. What both do is left out."""
        made = self.kv_rank * (self.nope_dim + self.v_dim)
        expanded = keys * made + queries * keys * (self.nope_dim + self.rope_dim + self.v_dim)
        absorbed = queries * made + queries * keys * 2 * (self.kv_rank + self.rope_dim)
        return expanded, absorbed

    def expanded(self, q: Tensor, q_rotary: Tensor, tokens: Tensor, visible: Visible) -> Tensor:  # -> [b h t f]
        """Attention over keys and values that are made from the latents: less to do where most tokens are new. Eq. 10, 11, 16 to 18."""
        latent, k_rotary = tokens.split((self.kv_rank, self.rope_dim), -1)
        kv = F.linear(latent.squeeze(1), self.kv_up.weight).unflatten(-1, (-1, self.nope_dim + self.v_dim)).transpose(1, 2)
        k, v = kv.split((self.nope_dim, self.v_dim), -1)
        k = torch.cat((k, k_rotary.expand(-1, k.shape[1], -1, -1)), -1)
        return self._attention(torch.cat((q, q_rotary), -1), k, v, visible)

    def absorbed(self, q: Tensor, q_rotary: Tensor, tokens: Tensor, visible: Visible) -> Tensor:  # -> [b h t f]
        """The same over the latents themselves, as one key and value for all heads: q (W k) is (q W) k. Section 2.1.2."""
        widths = (self.nope_dim, self.v_dim)
        to_k, to_v = self.kv_up.weight.unflatten(0, (-1, sum(widths))).split(widths, 1)  # [h n c], [h f c]
        q = torch.cat((torch.einsum("bhtn,hnc->bhtc", q, to_k), q_rotary), -1)
        # The rotary key among the values is dropped again: to cut it off before would copy what is remembered, or keep fused kernels away.
        y = self._attention(q, tokens, tokens, visible)[..., : self.kv_rank]
        return torch.einsum("bhtc,hfc->bhtf", y, to_v)

    def _attention(self, q: Tensor, k: Tensor, v: Tensor, visible: Visible) -> Tensor:
        return self.kernel(q, k, v, visible=visible, bias=self.place.bias(visible), scale=self.scale)

    def new_state(self, batch: int, capacity: int, *, chunk: int, device: torch.device, dtype: torch.dtype) -> TokenState:
        """The latent and the rotary key of each token, in one tensor."""
        shapes = [(1, self.kv_rank + self.rope_dim)]
        return TokenState(batch, capacity, shapes, window=self.window, chunk=chunk, device=device, dtype=dtype)

    def flops(self, context: int) -> int:
        """Those of a token that is decoded, in the form that takes fewer."""
        seen = context if self.window is None else min(context, self.window)
        heads = self.o.weight.shape[1] // self.v_dim
        return super().flops(context) - 2 * self.kv_up.weight.numel() + 2 * heads * min(self.products(1, max(seen, 1)))

    def facts(self) -> list[str]:
        heads = self.o.in_features // self.v_dim
        widths = [f"{heads} heads of width {self.nope_dim} + {self.rope_dim} rotated", f"values of width {self.v_dim}"]
        ranks = [f"rank {self.kv_rank} for keys and values", *([f"rank {self.q_down.out_features} for queries"] if self.q_down else [])]
        return [*widths, *ranks, *self.unusual("kv_rank", "q_rank", "nope_dim", "v_dim", "norm")]

    def splits(self) -> dict[str, Split]:
        queries = "q" if self.q is not None else "q_up"
        return {queries: Column(self.nope_dim + self.rope_dim), "kv_up": Column(self.nope_dim + self.v_dim), "o": Row(self.v_dim)}

    @classmethod
    def rotary_rows(cls, options: Options, site: Site) -> dict[str, RotaryRows]:
        n, c, r = options.nope_dim, options.kv_rank, site.head_dim
        queries, latent = RotaryRows(n + r, n), RotaryRows(c + r, c)
        return {"q.weight": queries, "q_up.weight": queries, "kv_down.weight": latent, "kv_down.bias": latent}
