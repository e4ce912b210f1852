"""Heads: features to logits, in at least float32."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.component import Site, as_wide_as_float32, parameter
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Embedding, Head
from llamazoo.contract.options import ComponentOptions, Positive
from llamazoo.contract.split import Column, Split

__all__ = ["LinearHead"]


class LinearHead(Head):
    """W x, scaled and capped if the options say so; `tied` takes the embedding's table as W. Press & Wolf 2017."""

    name = "linear"

    class Options(ComponentOptions):
        tied: bool = False
        """Whether the weights are those of the embedding. Press & Wolf 2017."""
        bias: bool = False
        """Whether each token id has a bias."""
        scale: Positive | None = None
        """What logits are multiplied by, before they are capped."""
        softcap: Positive | None = None
        """Logits become softcap * tanh(logits / softcap). Gemma 2, 2024, section 2."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.tied, self.scale, self.softcap = options.tied, options.scale, options.softcap
        self.vocab_size = site.vocab_size
        self.weight = parameter(site.vocab_size, site.dim)
        self.bias: nn.Parameter | None = parameter(site.vocab_size) if options.bias else None

    def tie(self, embedding: Embedding) -> None:
        if self.tied:
            self.weight = embedding.weight

    def reset(self, draw: Draw) -> None:
        if not self.tied:
            draw.normal(self.weight)
        draw.zeros(self.bias)

    def forward(self, x: Tensor) -> Tensor:  # [... d] -> [... v]
        logits = as_wide_as_float32(F.linear(self.whole(x), self.weight, self.bias))
        if self.scale is not None:
            logits = logits * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return self.gather(logits, -1, self.vocab_size)

    def facts(self) -> list[str]:
        return [*(["the embedding's table"] if self.tied else []), *self.unusual("tied")]

    def splits(self) -> dict[str, Split]:
        return {"weight": Column(), "bias": Column()} if self.bias is not None else {"weight": Column()}
