"""Embeddings: token ids to features."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from llamazoo.contract.component import Site, parameter
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Embedding, Norm
from llamazoo.contract.options import ComponentOptions, Positive
from llamazoo.contract.split import Column, Share, Split
from llamazoo.spec.part import NormPart

__all__ = ["Table"]


class Table(Embedding):
    """One row of features for each token id, optionally scaled (Vaswani et al. 2017, section 3.4), and then normed (BLOOM, 2022)."""

    name = "table"

    class Options(ComponentOptions):
        scale: Positive | Literal["sqrt_dim"] | None = None
        """What the features are multiplied by; `sqrt_dim` is the root of the model's width, rounded to its number type as Gemma's
        code does; null leaves them as they are."""
        norm: NormPart | None = None
        """A norm over the features, after they are scaled. Le Scao et al. 2022 (BLOOM), section 3.2."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.scale: Tensor | float | None
        if options.scale == "sqrt_dim":
            self.dim = site.dim
            self.register_buffer("scale", torch.empty(()), persistent=False)
        else:
            self.scale = options.scale
        self.norm: Norm | None = site.build(options.norm) if options.norm else None
        self.vocab_size = site.vocab_size
        self.weight = parameter(site.vocab_size, site.dim)

    def reset(self, draw: Draw) -> None:
        draw.normal(self.weight)

    def compute(self) -> None:
        if isinstance(self.scale, Tensor):  # of the model's number type, by which the root is rounded before it is used
            self.scale = torch.tensor(math.sqrt(self.dim), dtype=self.scale.dtype).to(self.scale.device)

    def forward(self, tokens: Tensor) -> Tensor:  # [b t] -> [b t d]
        x = F.embedding(tokens, self.weight) if self.share is None else self._share_of(tokens, self.share)
        x = x if self.scale is None else x * self.scale
        return x if self.norm is None else self.norm(x)

    def _share_of(self, tokens: Tensor, share: Share) -> Tensor:
        """Each process looks up the tokens that its rows are for, and has nought for all others."""
        begin, end = share.range(self.vocab_size)
        mine = (tokens >= begin) & (tokens < end)
        found = F.embedding((tokens - begin).masked_fill(~mine, 0), self.weight)
        return self.total(found.masked_fill(~mine[..., None], 0))

    def flops(self, context: int) -> int:
        return 0

    def splits(self) -> dict[str, Split]:
        return {"weight": Column()}
