"""Blocks: how attention and feed-forward, with their norms, make one layer.

b batch, t tokens, d model width.
"""

import torch
from torch import Tensor

from llamazoo.contract.component import LayerSpec, Site
from llamazoo.contract.kinds import Attention, Block, FeedForward, Norm
from llamazoo.contract.options import ComponentOptions, Positive
from llamazoo.contract.state import State
from llamazoo.contract.step import Step
from llamazoo.contract.wiring import Residual, Wiring

__all__ = ["Parallel", "PostNorm", "PreNorm", "Reordered", "Sandwich"]


class PreNorm(Block):
    """x + attention(norm(x)), then x + feed_forward(norm(x)). Radford et al. 2019, section 2.3; Xiong et al. 2020."""

    name = "prenorm"

    class Options(ComponentOptions):
        residual_scale: Positive = 1.0
        """What attention and feed-forward are multiplied by before they are added to x. IBM 2024 (Granite 3.0)."""

    def __init__(self, options: Options, site: Site, layer: LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.residual_scale = options.residual_scale
        self.attention_norm: Norm = site.build(layer.norm)
        self.attention: Attention = site.build(layer.attention)
        self.feed_forward_norm: Norm = site.build(layer.norm)
        self.feed_forward: FeedForward = site.build(layer.feed_forward)

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:
        # One operator, whatever the scale is.
        x = torch.add(x, self.attention(self.attention_norm(x), step, state), alpha=self.residual_scale)
        return torch.add(x, self.feed_forward(self.feed_forward_norm(x), step), alpha=self.residual_scale)

    def wiring(self) -> Wiring:
        scale = self.residual_scale
        return Residual(("attention_norm", "attention"), scale=scale), Residual(("feed_forward_norm", "feed_forward"), scale=scale)


class PostNorm(Block):
    """norm(x + attention(x)), then norm(x + feed_forward(x)). Vaswani et al. 2017, section 3.1."""

    name = "postnorm"

    def __init__(self, options: ComponentOptions, site: Site, layer: LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.attention: Attention = site.build(layer.attention)
        self.attention_norm: Norm = site.build(layer.norm)
        self.feed_forward: FeedForward = site.build(layer.feed_forward)
        self.feed_forward_norm: Norm = site.build(layer.norm)

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:
        x = self.attention_norm(x + self.attention(x, step, state))
        return self.feed_forward_norm(x + self.feed_forward(x, step))

    def wiring(self) -> Wiring:
        return Residual(("attention",)), "attention_norm", Residual(("feed_forward",)), "feed_forward_norm"


class Sandwich(Block):
    """x + norm(attention(norm(x))), then x + norm(feed_forward(norm(x))). Ding et al. 2021 (CogView), section 2.4; Gemma 2."""

    name = "sandwich"

    def __init__(self, options: ComponentOptions, site: Site, layer: LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.attention_norm: Norm = site.build(layer.norm)
        self.attention: Attention = site.build(layer.attention)
        self.attention_post_norm: Norm = site.build(layer.norm)
        self.feed_forward_norm: Norm = site.build(layer.norm)
        self.feed_forward: FeedForward = site.build(layer.feed_forward)
        self.feed_forward_post_norm: Norm = site.build(layer.norm)

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:
        x = x + self.attention_post_norm(self.attention(self.attention_norm(x), step, state))
        return x + self.feed_forward_post_norm(self.feed_forward(self.feed_forward_norm(x), step))

    def wiring(self) -> Wiring:
        return (
            Residual(("attention_norm", "attention", "attention_post_norm")),
            Residual(("feed_forward_norm", "feed_forward", "feed_forward_post_norm")),
        )


class Reordered(Block):
    """x + norm(attention(x)), then x + norm(feed_forward(x)). Liu et al. 2022 (Swin V2, res-post-norm), section 3.2; OLMo 2, 2024."""

    name = "reordered"

    def __init__(self, options: ComponentOptions, site: Site, layer: LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.attention: Attention = site.build(layer.attention)
        self.attention_norm: Norm = site.build(layer.norm)
        self.feed_forward: FeedForward = site.build(layer.feed_forward)
        self.feed_forward_norm: Norm = site.build(layer.norm)

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:
        x = x + self.attention_norm(self.attention(x, step, state))
        return x + self.feed_forward_norm(self.feed_forward(x, step))

    def wiring(self) -> Wiring:
        return Residual(("attention", "attention_norm")), Residual(("feed_forward", "feed_forward_norm"))


class Parallel(Block):
    """x + attention(norm(x)) + feed_forward(norm(x)), each with its own norm or both with one. Wang & Komatsuzaki 2021 (GPT-J)."""

    name = "parallel"

    class Options(ComponentOptions):
        shared_norm: bool = False
        """Whether attention and feed-forward see what one norm gives, rather than each its own."""

    def __init__(self, options: Options, site: Site, layer: LayerSpec) -> None:
        super().__init__(options, site, layer)
        self.attention_norm: Norm = site.build(layer.norm)
        self.attention: Attention = site.build(layer.attention)
        self.feed_forward_norm: Norm | None = None if options.shared_norm else site.build(layer.norm)
        self.feed_forward: FeedForward = site.build(layer.feed_forward)

    def forward(self, x: Tensor, step: Step, state: State | None) -> Tensor:
        seen = self.attention_norm(x)
        other = seen if self.feed_forward_norm is None else self.feed_forward_norm(x)
        return x + self.attention(seen, step, state) + self.feed_forward(other, step)

    def wiring(self) -> Wiring:
        if self.feed_forward_norm is None:
            return (Residual(("attention",), ("feed_forward",), shared=("attention_norm",)),)
        return (Residual(("attention_norm", "attention"), ("feed_forward_norm", "feed_forward")),)
