"""Absolute positions: a vector for each place, added to the embedding.

b batch, t tokens, d model width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llamazoo.contract.component import Site, as_wide_as_float32, at_least_float32, parameter
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Position
from llamazoo.contract.options import ComponentOptions, Positive

__all__ = ["Learned", "NoPosition", "Sinusoidal"]


class Learned(Position):
    """A learned vector for each of max_seq_len places. Gehring et al. 2017, section 3.1; Radford et al. 2018."""

    name = "learned"

    def __init__(self, options: ComponentOptions, site: Site) -> None:
        super().__init__(options, site)
        self.weight = parameter(site.max_seq_len, site.dim)

    def reset(self, draw: Draw) -> None:
        draw.normal(self.weight)

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Tensor:
        return F.embedding(positions, self.weight)

    def embed(self, x: Tensor, at: Tensor) -> Tensor:  # [b t d] -> [b t d]
        return x + at

    def flops(self, context: int) -> int:
        return 0

    def beyond(self, length: int) -> int:
        rows, dim = self.weight.shape
        return max(0, rows - length) * dim


class Sinusoidal(Position):
    """Sines in the even features, cosines in the odd, of position * base^(-2i/d). Vaswani et al. 2017, section 3.5."""

    name = "sinusoidal"

    class Options(ComponentOptions):
        base: Positive = 10000.0
        """Wavelengths run from 2 pi to nearly 2 pi times this, in tokens."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.base, self.dim = options.base, site.dim

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Tensor:
        wide = at_least_float32(dtype)
        feature = torch.arange(self.dim, device=positions.device)
        frequency = self.base ** -((feature - feature % 2).to(wide) / self.dim)
        angles = positions[..., None] * frequency
        return torch.where(feature % 2 == 0, angles.sin(), angles.cos())

    def embed(self, x: Tensor, at: Tensor) -> Tensor:  # [b t d] -> [b t d]
        return (as_wide_as_float32(x) + at).type_as(x)


class NoPosition(Position):
    """Nothing: the causal mask alone tells order. Haviv et al. 2022; Kazemnejad et al. 2023 (NoPE)."""

    name = "none"
