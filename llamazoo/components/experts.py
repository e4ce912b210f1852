"""A mixture of experts: many feed-forwards, of which each token is sent to a few.

b batch, t tokens, d model width, f hidden width of one expert, n experts, c of them chosen by a token, m = b t c rows.
"""

from dataclasses import replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llamazoo.contract.component import Site, parameter, refuse
from llamazoo.contract.draw import Draw
from llamazoo.contract.grouped import grouped_ends, grouped_linear
from llamazoo.contract.kinds import Activation, FeedForward, Router, Routing
from llamazoo.contract.options import ComponentOptions, NonNegative, Positive, Size
from llamazoo.contract.spare import Spare
from llamazoo.contract.split import Column, Row, Split
from llamazoo.contract.step import Losses, Step
from llamazoo.spec.part import ActivationPart, FeedForwardPart, RouterPart, part

__all__ = ["Experts"]


class Experts(FeedForward):
    """Sums what the experts that a router chose make of a token, each W2(act(W1 x) * W3 x). Shazeer et al. 2017, eq. 1; Mixtral."""

    name = "experts"

    class Options(ComponentOptions):
        n_experts: Size = 8
        """How many experts there are."""
        top_k: Size = 2
        """How many of them each token is sent to."""
        hidden_dim: Size | None = None
        """Hidden width of one expert, in features; the spec's own hidden_dim unless given."""
        router: RouterPart = part("topk")
        """What sends tokens to experts."""
        shared: FeedForwardPart | None = None
        """A feed-forward that sees every token, whose output is added: shared experts. DeepSeekMoE, Dai et al. 2024, eq. 9."""
        activation: ActivationPart = part("silu")
        """What acts on the gate."""
        limit: Positive | None = None
        """The gate is kept below this before the activation, and W3 x within it on both sides (gpt-oss: 7)."""
        up_offset: float = 0.0
        """Added to W3 x before it is multiplied by the gate (gpt-oss: 1)."""
        bias: bool = False
        """Whether all three projections of each expert have a bias."""
        balance: NonNegative = 0.0
        """Weight of the load-balancing loss, over all tokens of a call; 1 for an even load. Fedus et al. 2021, eq. 4 to 6."""
        sequence_balance: NonNegative = 0.0
        """Weight of the same loss taken of each row by itself, in the mean. DeepSeek-AI 2024 (V3), eq. 17 to 20."""
        z_loss: NonNegative = 0.0
        """Weight of the mean square of the logits' log-sum-exp, which keeps them small. Zoph et al. 2022 (ST-MoE), eq. 5."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, _inside(options, site))
        hidden_width(options, site)
        if options.top_k > options.n_experts:
            raise refuse("top_k", f"a token cannot be sent to {options.top_k} of {options.n_experts} experts (n_experts)")
        router = options.router.component
        for name in ("balance", "sequence_balance", "z_loss"):
            if getattr(options, name) and issubclass(router, Router) and not router.learned:
                raise refuse(name, f"the router {options.router.type} gives no logits that this loss could move; use 0")

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        width, count = hidden_width(options, site), options.n_experts
        self.options: Experts.Options = options
        self.layer = site.layer
        self.router: Router = _inside(options, site).build(options.router)
        self.gate = parameter(count, width, site.dim)  # W1 [n f d], each as a linear layer's weight
        self.up = parameter(count, width, site.dim)  # W3 [n f d]
        self.down = parameter(count, site.dim, width)  # W2 [n d f]
        self.gate_bias: nn.Parameter | None = parameter(count, width) if options.bias else None
        self.up_bias: nn.Parameter | None = parameter(count, width) if options.bias else None
        self.down_bias: nn.Parameter | None = parameter(count, site.dim) if options.bias else None
        self.spares = {name: Spare() for name in ("gate", "up", "down")}  # for gradients, which are as large as all experts are
        self.activation: Activation = site.build(options.activation)
        self.shared: FeedForward | None = site.build(options.shared) if options.shared else None

    def reset(self, draw: Draw) -> None:
        draw.normal(self.gate)
        draw.normal(self.up)
        draw.residual(self.down)
        for bias in (self.gate_bias, self.up_bias, self.down_bias):
            draw.zeros(bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:  # [b t d] -> [b t d]
        routing = self.router(x, step)
        if step.losses is not None:
            self._add_losses(routing, step, step.losses)
        y = self.total(self._mixed(self.whole(x), routing.experts, self.whole(routing.weights)))
        if self.down_bias is not None:  # whole in every process, so added where the sums of all are whole again
            y = y + _weighted(F.embedding(routing.experts, self.down_bias), routing.weights)
        return y if self.shared is None else y + self.shared(x, step)

    def _mixed(self, x: Tensor, experts: Tensor, weights: Tensor) -> Tensor:
        """Each token by its experts and no other: rows sorted by expert, multiplied, and put back. [b t d] -> [b t d]"""
        chosen, order = experts.flatten().sort(stable=True)  # [m]
        ends = grouped_ends(chosen, self.options.n_experts)
        rows = F.embedding(order // experts.shape[-1], x.flatten(0, 1))  # whose gradient is summed in order, and not by atomics
        gate = grouped_linear(rows, self.gate, ends, self.spares["gate"])
        up = grouped_linear(rows, self.up, ends, self.spares["up"])
        if self.gate_bias is not None and self.up_bias is not None:
            gate, up = gate + F.embedding(chosen, self.gate_bias), up + F.embedding(chosen, self.up_bias)
        y = grouped_linear(self._gated(gate, up), self.down, ends, self.spares["down"])
        back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
        return _weighted(F.embedding(back, y).view(*experts.shape, -1), weights)

    def train(self, mode: bool = True) -> Self:
        for spare in self.spares.values():
            spare.keep(mode)
        return super().train(mode)

    def _gated(self, gate: Tensor, up: Tensor) -> Tensor:  # [m f] -> [m f]
        limit, offset = self.options.limit, self.options.up_offset
        if limit is not None:
            gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
        return self.inside(self.activation, gate) * (up + offset if offset else up)

    def _add_losses(self, routing: Routing, step: Step, losses: Losses) -> None:
        options = self.options
        if options.balance:
            losses.add(f"balance of layer {self.layer}", options.balance * balance_loss(routing, step.valid, by_row=False), self)
        if options.sequence_balance:
            lost = options.sequence_balance * balance_loss(routing, step.valid, by_row=True)
            losses.add(f"sequence balance of layer {self.layer}", lost, self)
        if options.z_loss:
            losses.add(f"z-loss of layer {self.layer}", options.z_loss * z_loss(routing, step.valid), self)

    def splits(self) -> dict[str, Split]:
        split: dict[str, Split] = {"gate": Column(dim=1), "up": Column(dim=1), "down": Row(dim=2)}  # each expert's width
        if self.gate_bias is not None:
            split |= {"gate_bias": Column(dim=1), "up_bias": Column(dim=1)}
        return split

    def flops(self, context: int) -> int:
        return 2 * self.router.top_k * (self.gate.numel() + self.up.numel() + self.down.numel()) // self.options.n_experts

    def facts(self) -> list[str]:
        count, width, dim = self.gate.shape
        each = f"{dim} → {width} → {dim} each"
        told = self.unusual("n_experts", "top_k", "hidden_dim", "router", "shared")
        return [f"{count} experts, {self.router.top_k} for each token", each, *told]

    def idle_parameters(self) -> int:
        count = self.options.n_experts
        return sum(p.numel() for p in self.parameters(recurse=False)) // count * (count - self.router.top_k)


def hidden_width(options: Any, site: Site) -> int:
    """The width of one expert: the option's own, else the spec's."""
    width: int | None = options.hidden_dim or site.hidden_dim
    if width is None:
        raise refuse("hidden_dim", "an expert needs a width; give hidden_dim here or at the top of the spec")
    return width


def _inside(options: Experts.Options, site: Site) -> Site:
    """Where the router stands."""
    return replace(site, n_experts=options.n_experts, top_k=options.top_k)


def _weighted(y: Tensor, weights: Tensor) -> Tensor:  # [b t c d], [b t c] -> [b t d]
    return (y * weights[..., None]).sum(-2).type_as(y)


def balance_loss(routing: Routing, valid: Tensor | None, *, by_row: bool) -> Tensor:
    """n sum_i f_i p_i: f_i is expert i's share of all choices, p_i its mean score; over all tokens, or in the mean over rows.

    Padding does not count. It is 1 where the load is even, whatever top_k is; some count f_i as c times that.
    """
    assert routing.logits is not None
    scores = routing.logits.softmax(-1) if routing.scores is None else routing.scores / routing.scores.sum(-1, keepdim=True)
    chosen = torch.zeros_like(scores).scatter_add(-1, routing.experts, torch.ones_like(routing.weights))
    counted = scores.new_ones(scores.shape[:2]) if valid is None else valid.type_as(scores)  # [b t]
    if not by_row:
        scores, chosen, counted = scores.flatten(0, 1)[None], chosen.flatten(0, 1)[None], counted.flatten()[None]
    tokens = counted.sum(1)  # [b], or one
    shares, means = ((each * counted[..., None]).sum(1) / tokens.clamp(min=1)[:, None] for each in (chosen, scores))
    lost = scores.shape[-1] / routing.experts.shape[-1] * (shares * means).sum(-1)
    return lost.sum() / (tokens > 0).sum().clamp(min=1)  # a row of padding loses nothing


def z_loss(routing: Routing, valid: Tensor | None) -> Tensor:
    """The mean over tokens, padding not among them, of the square of the logits' log-sum-exp."""
    assert routing.logits is not None
    squares = routing.logits.logsumexp(-1).square()
    return squares.mean() if valid is None else (squares * valid).sum() / valid.sum().clamp(min=1)
