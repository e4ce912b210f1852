"""Norms: rescale the features of each token, in at least float32."""

import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.component import Site, as_wide_as_float32, parameter
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Norm
from llamazoo.contract.options import ComponentOptions, Positive

__all__ = ["LayerNorm", "NoNorm", "RMSNorm"]


class RMSNorm(Norm):
    """x / sqrt(mean(x^2) + eps) * w. Zhang & Sennrich 2019, eq. 4.

    With `unit_offset` the gain is 1 + w, and is applied before features are rounded to the model's number type, as in Gemma's code.
    """

    name = "rmsnorm"

    class Options(ComponentOptions):
        eps: Positive = 1e-5
        """Added to the mean square before the root is taken."""
        unit_offset: bool = False
        """Whether w holds what the gain has beyond 1, so that a w of nought leaves features as they are. Gemma, 2024."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.eps, self.shape, self.unit_offset = options.eps, (site.dim,), options.unit_offset
        self.weight = parameter(site.dim)

    def reset(self, draw: Draw) -> None:
        draw.constant(self.weight, 0.0 if self.unit_offset else 1.0)

    def forward(self, x: Tensor) -> Tensor:  # [... d] -> [... d]
        wide = as_wide_as_float32(x)
        if self.unit_offset:  # 1 + w is not rounded either: bfloat16 tells no gain from 1 that is nearer than 1/128
            return F.rms_norm(wide, self.shape, 1 + as_wide_as_float32(self.weight), self.eps).type_as(x)
        if wide is x:  # nothing is cast, so the order below cannot matter, and one call does it all
            return F.rms_norm(x, self.shape, self.weight, self.eps)
        # Cast first, then scale, as Meta's code does: the other order changes a quarter of the results in bfloat16.
        return F.rms_norm(wide, self.shape, None, self.eps).type_as(x) * self.weight


class LayerNorm(Norm):
    """(x - mean(x)) / sqrt(var(x) + eps) * w + b. Ba et al. 2016, eq. 4."""

    name = "layernorm"

    class Options(ComponentOptions):
        eps: Positive = 1e-5
        """Added to the variance before the root is taken."""
        bias: bool = True
        """Whether there is a b; without, the norm only scales."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.eps = options.eps
        self.weight = parameter(site.dim)
        self.bias: nn.Parameter | None = parameter(site.dim) if options.bias else None

    def reset(self, draw: Draw) -> None:
        draw.ones(self.weight)
        draw.zeros(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # [... d] -> [... d]
        # PyTorch's kernel computes in float32 inside and rounds once.
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class NoNorm(Norm):
    """Leaves features as they are."""

    name = "none"

    def forward(self, x: Tensor) -> Tensor:
        return x
