"""Attention kernels.

b batch, t queries, s keys, h heads, k key/value heads, e width of queries and keys, f width of values.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from llamazoo.contract.component import Site, as_wide_as_float32
from llamazoo.contract.kernel import Kernel, Visible
from llamazoo.contract.options import ComponentOptions
from llamazoo.errors import KernelError, SpecError
from llamazoo.spec.part import KernelPart

__all__ = ["SDPA", "Auto", "Eager"]


class Eager(Kernel):
    """softmax(q k^T scale + bias) v, written out, with softmax in at least float32. Vaswani et al. 2017, eq. 1."""

    name = "eager"

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        visible: Visible,
        bias: Tensor | None = None,
        sinks: Tensor | None = None,
        softcap: float | None = None,
        scale: float,
    ) -> Tensor:
        b, h, t, e = q.shape
        groups = k.shape[1]
        per_group = as_wide_as_float32(q).reshape(b, groups, -1, e)  # [b k h/k*t e]: a key head serves its queries without being copied
        scores = (per_group @ as_wide_as_float32(k).transpose(-1, -2)).view(b, h, t, -1) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if bias is not None:
            scores = scores + bias
        scores = scores.masked_fill(~visible.mask(), torch.finfo(scores.dtype).min)  # as in Visible.additive
        if sinks is not None:
            scores = torch.cat((scores, sinks.to(scores)[:, None, None].expand(b, h, t, 1)), -1)
        weights = scores.softmax(-1)
        if sinks is not None:
            weights = weights[..., :-1]
        y = weights.reshape(b, groups, -1, k.shape[2]) @ as_wide_as_float32(v)
        return y.view(b, h, t, -1).type_as(q)


class SDPA(Kernel):
    """The same through torch.nn.functional.scaled_dot_product_attention: the fused kernels of PyTorch. Dao 2023 (FlashAttention-2)."""

    name = "sdpa"

    def refuses(self, *, bias: bool, sinks: bool, softcap: float | None, q: Tensor | None = None) -> str | None:
        if softcap is not None:
            return "scaled_dot_product_attention cannot cap scores"
        if sinks:
            return "scaled_dot_product_attention has no attention sinks"
        if bias and q is not None and q.device.type != "cpu" and q.dtype in (torch.bfloat16, torch.float16):
            return f"on {q.device.type} it would round the bias to {q.dtype}, which cannot tell far distances apart"
        return None

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        visible: Visible,
        bias: Tensor | None = None,
        sinks: Tensor | None = None,
        softcap: float | None = None,
        scale: float,
    ) -> Tensor:
        plain = bias is None and sinks is None and softcap is None
        reason = None if plain else self.refuses(bias=bias is not None, sinks=sinks is not None, softcap=softcap, q=q)
        if reason is not None:
            raise KernelError(f"the kernel 'sdpa' refuses this call: {reason}; use `kernel: auto` or `kernel: eager`")
        pattern, mask = visible.pattern, None
        if bias is not None:
            mask = bias if pattern == "all" else bias.masked_fill(~visible.mask(), torch.finfo(bias.dtype).min)
        elif pattern == "mask":
            mask = visible.additive(q.dtype)
        causal = pattern == "causal" and mask is None
        wider = q.shape[-1] - v.shape[-1]
        if wider > 0:  # the fused kernels take values as wide as the keys: zeros cost less than the kernel that takes any
            v = F.pad(v, (0, wider))
        grouped = True if q.shape[1] != k.shape[1] else False  # noqa: SIM210 - a comparison alone is a symbol while compiling
        if grouped and q.shape[2] == 1:
            y = self._by_group(q, k, v, mask, scale)
        else:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)
        return y[..., :-wider] if wider > 0 else y

    def _by_group(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
        """One token's heads as so many queries of the head of keys that serves them, which then are read once for all of them."""
        (b, h, _, e), groups = q.shape, k.shape[1]
        if mask is not None and mask.shape[1] > 1:  # a bias of each head
            mask = mask.reshape(mask.shape[0], groups, h // groups, -1)
        y = F.scaled_dot_product_attention(q.reshape(b, groups, h // groups, e), k, v, attn_mask=mask, scale=scale)
        return y.reshape(b, h, 1, -1)


class Auto(Kernel):
    """The first of the candidates that does not refuse the call."""

    name = "auto"

    class Options(ComponentOptions):
        candidates: Annotated[list[KernelPart], Field(min_length=1)] = Field(["sdpa", "eager"], validate_default=True)
        """The kernels to ask, in this order."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        if any(part.component is cls for part in options.candidates):
            raise SpecError("auto cannot be its own candidate")

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.kernels = torch.nn.ModuleList(site.build(part) for part in options.candidates)
        self.candidates: tuple[Kernel, ...] = tuple(self.kernels)  # type: ignore[arg-type]

    def refuses(self, *, bias: bool, sinks: bool, softcap: float | None, q: Tensor | None = None) -> str | None:
        reasons = []
        for kernel in self.candidates:
            reason = kernel.refuses(bias=bias, sinks=sinks, softcap=softcap, q=q)
            if reason is None:
                return None
            reasons.append(f"{kernel.name}: {reason}")
        return "; ".join(reasons)

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        visible: Visible,
        bias: Tensor | None = None,
        sinks: Tensor | None = None,
        softcap: float | None = None,
        scale: float,
    ) -> Tensor:
        for kernel in self.candidates:
            if kernel.refuses(bias=bias is not None, sinks=sinks is not None, softcap=softcap, q=q) is None:
                return kernel.forward(q, k, v, visible=visible, bias=bias, sinks=sinks, softcap=softcap, scale=scale)
        reasons = self.refuses(bias=bias is not None, sinks=sinks is not None, softcap=softcap, q=q)
        raise KernelError(f"every candidate of the kernel 'auto' refuses this call: {reasons}")
