"""Relative positions as biases on the scores.

b batch, t queries, s keys, h heads.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from llamazoo.contract.component import Site, as_wide_as_float32, at_least_float32, parameter, refuse
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Position
from llamazoo.contract.options import ComponentOptions, Positive, Size

__all__ = ["T5", "ALiBi"]


class ALiBi(Position):
    """Scores fall off linearly with distance, by a slope for each head. Press et al. 2022, section 3.

    For n heads, n a power of two, the slopes are 2^(-8i/n); otherwise those of the power of two below, and every other
    one of the power above, as in the authors' code.
    """

    name = "alibi"

    class Options(ComponentOptions):
        bias_max: Positive = 8.0
        """The flattest slope is 2 to the power of minus this; MPT's alibi_bias_max."""
        scale: Positive = 1.0
        """What the slopes are multiplied by: 1 / sqrt(head_dim) where a model adds them before it scales the scores, as Falcon does."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.bias_max, self.scale = options.bias_max, options.scale
        self.slopes: Tensor
        self.register_buffer("slopes", torch.empty(site.n_heads), persistent=False)

    def compute(self) -> None:
        slopes = self.scale * torch.tensor(alibi_slopes(len(self.slopes), self.bias_max), dtype=torch.float64)
        self.slopes = slopes.to(at_least_float32(self.slopes.dtype)).to(self.slopes.device)

    def bias(self, q_order: Tensor, k_order: Tensor) -> Tensor:  # [b h t s]
        distance = q_order[:, None, :, None] - k_order[:, None, None, :]
        return -self.slopes[:, None, None] * distance


def alibi_slopes(n_heads: int, bias_max: float) -> list[float]:
    """One slope a head, steepest first within each power of two."""
    below = 2 ** (n_heads.bit_length() - 1)
    slopes = [2 ** (-bias_max * i / below) for i in range(1, below + 1)]
    if below < n_heads:
        slopes += [2 ** (-bias_max * i / (2 * below)) for i in range(1, 2 * below + 1)][::2][: n_heads - below]
    return slopes


class T5(Position):
    """A learned bias for each head and bucket of distance; buckets widen logarithmically. Raffel et al. 2020, section 2.1.

    Half of the buckets are for single distances, the other half reach up to `max_distance`; all beyond share the last.
    """

    name = "t5"

    class Options(ComponentOptions):
        buckets: Size = 32
        """How many distances are told apart; even."""
        max_distance: Size = 128
        """The distance, in tokens, from which on all share the last bucket; more than half the buckets."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        if options.buckets % 2 or options.max_distance <= options.buckets // 2:
            raise refuse(
                "buckets", f"{options.buckets} buckets need to be even, and half of them fewer than max_distance ({options.max_distance})"
            )

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.single = options.buckets // 2
        self.max_distance = options.max_distance
        self.weight = parameter(options.buckets, site.n_heads)

    def reset(self, draw: Draw) -> None:
        draw.normal(self.weight)

    def bias(self, q_order: Tensor, k_order: Tensor) -> Tensor:  # [b h t s]
        bucket = self._bucket((q_order[:, :, None] - k_order[:, None, :]).clamp(min=0))
        return as_wide_as_float32(F.embedding(bucket, self.weight)).permute(0, 3, 1, 2)

    def _bucket(self, distance: Tensor) -> Tensor:
        wide = at_least_float32(self.weight.dtype)
        ratio = distance.clamp(min=1).to(wide) / self.single
        far = self.single + (ratio.log() / math.log(self.max_distance / self.single) * self.single).long()
        return torch.where(distance < self.single, distance, far.clamp(max=2 * self.single - 1))

    def flops(self, context: int) -> int:
        return 0

    def beyond(self, length: int) -> int:
        """The biases of buckets that begin past the longest distance."""
        farthest = int(self._bucket(torch.tensor(max(0, length - 1))))
        return (2 * self.single - 1 - farthest) * self.weight.shape[1]
