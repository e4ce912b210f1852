"""Routers: which experts a token is sent to.

b batch, t tokens, d model width, n experts, c of them chosen by a token, g groups of experts.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.component import Site, as_wide_as_float32, parameter, refuse
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Router, Routing
from llamazoo.contract.options import ComponentOptions, Positive, Size
from llamazoo.contract.step import Step

__all__ = ["Grouped", "TopK"]

TINY = 1e-20  # keeps a sum of chosen scores from being 0 where all of them underflow


class TopK(Router):
    """The experts with the highest logits, weighted by their softmax. Shazeer et al. 2017, eq. 3 to 5; Mixtral, Qwen3-MoE, gpt-oss."""

    name = "topk"

    class Options(ComponentOptions):
        normalize: bool = True
        """Whether the weights of the chosen experts sum to 1 (a softmax over them alone), or are what a softmax over all gives them."""
        bias: bool = False
        """Whether the logits have a bias (gpt-oss)."""
        scale: Positive = 1.0
        """What the weights are multiplied by in the end."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.weight = parameter(self.n_experts, site.dim)
        self.bias: nn.Parameter | None = parameter(self.n_experts) if options.bias else None
        self.normalize, self.scale = options.normalize, options.scale

    def reset(self, draw: Draw) -> None:
        draw.normal(self.weight)
        draw.zeros(self.bias)

    def forward(self, x: Tensor, step: Step) -> Routing:
        logits = router_logits(x, self.weight, self.bias)
        if self.normalize:
            highest, experts = logits.topk(self.top_k, dim=-1)
            weights = highest.softmax(-1)
        else:
            weights, experts = logits.softmax(-1).topk(self.top_k, dim=-1)
        return Routing(experts, weights * self.scale, logits)


class Grouped(Router):
    """Experts stand in groups; the best experts of the best groups. DeepSeek-AI 2024 (V2, section 2.1.3; V3, eq. 12 to 16)."""

    name = "grouped"
    wide = frozenset({"correction"})  # rounded to bfloat16 it would send tokens elsewhere, and could not be raised by a thousandth

    class Options(ComponentOptions):
        scoring: Literal["sigmoid", "softmax"] = "sigmoid"
        """What makes scores of logits: each by itself (V3), or against all others (V2)."""
        n_groups: Size = 1
        """Groups, of equally many experts that are neighbours; experts of one group might share a device."""
        top_groups: Size = 1
        """How many groups a token may choose from."""
        group_score: Literal["top2", "max"] = "top2"
        """What a group is chosen by: the sum of its two highest scores (V3), or the highest (V2)."""
        correction: bool = True
        """Whether each expert's score has something added for the choice alone, which `llamazoo.correct_load` learns. Wang et al. 2024."""
        normalize: bool = True
        """Whether the chosen scores are divided by their sum."""
        scale: Positive = 1.0
        """What the weights are multiplied by in the end (V3: 2.5)."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, site)
        experts, chosen = site.n_experts or 1, site.top_k or 1
        if experts % options.n_groups:
            raise refuse("n_groups", f"{experts} experts (n_experts) do not stand in {options.n_groups} groups of equally many")
        size = experts // options.n_groups
        if options.top_groups > options.n_groups:
            raise refuse("top_groups", f"{options.top_groups} groups cannot be chosen of {options.n_groups} (n_groups)")
        if options.top_groups * size < chosen:
            told = f"{options.top_groups} groups of {size} experts hold fewer than the {chosen} that a token is sent to (top_k)"
            raise refuse("top_groups", f"{told}; use more of them, or fewer groups")
        if options.n_groups > 1 and options.group_score == "top2" and size < 2:
            raise refuse("group_score", "groups of one expert have no two highest scores; use max, or fewer groups")

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.weight = parameter(self.n_experts, site.dim)
        self.correction = nn.Parameter(torch.empty(self.n_experts), requires_grad=False) if options.correction else None
        self.options: Grouped.Options = options

    def reset(self, draw: Draw) -> None:
        draw.normal(self.weight)
        draw.zeros(self.correction)

    def forward(self, x: Tensor, step: Step) -> Routing:
        options = self.options
        logits = router_logits(x, self.weight, None)
        scores = logits.sigmoid() if options.scoring == "sigmoid" else logits.softmax(-1)
        rank = scores.detach() if self.correction is None else scores.detach() + self.correction
        if options.top_groups < options.n_groups:
            rank = self._in_best_groups(rank)
        experts = rank.topk(self.top_k, dim=-1).indices
        weights = scores.gather(-1, experts)
        if options.normalize:
            weights = weights / (weights.sum(-1, keepdim=True) + TINY)
        return Routing(experts, weights * options.scale, logits, scores)

    def _in_best_groups(self, rank: Tensor) -> Tensor:  # [b t n] -> [b t n], lowest outside the best groups
        groups = rank.unflatten(-1, (self.options.n_groups, -1))  # [b t g n/g]
        best = groups.amax(-1) if self.options.group_score == "max" else groups.topk(2, dim=-1).values.sum(-1)
        chosen = best.topk(self.options.top_groups, dim=-1).indices
        inside = torch.zeros_like(best, dtype=torch.bool).scatter(-1, chosen, True)
        return groups.masked_fill(~inside[..., None], -torch.inf).flatten(-2)


def router_logits(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A linear layer in at least float32: a logit that is rounded sends tokens elsewhere. [b t d] -> [b t n]"""
    return F.linear(as_wide_as_float32(x), as_wide_as_float32(weight), None if bias is None else as_wide_as_float32(bias))
