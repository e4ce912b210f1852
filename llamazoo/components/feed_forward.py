"""Feed-forwards: mix the features of each token.

b batch, t tokens, d model width, f hidden width.
"""

from typing import Any

from torch import Tensor, nn

from llamazoo.contract.component import Site, refuse
from llamazoo.contract.draw import Draw
from llamazoo.contract.kinds import Activation, FeedForward
from llamazoo.contract.options import ComponentOptions, Size
from llamazoo.contract.split import Column, Row, Split
from llamazoo.contract.step import Step
from llamazoo.spec.part import ActivationPart, part

__all__ = ["MLP", "GatedFeedForward"]


def hidden_width(options: Any, site: Site) -> int:
    """The option's own width, else the spec's: a final number, without a two-thirds rule."""
    width: int | None = options.hidden_dim or site.hidden_dim
    if width is None:
        raise refuse("hidden_dim", "a feed-forward needs a width; give hidden_dim here or at the top of the spec")
    return width


class GatedFeedForward(FeedForward):
    """W2(act(W1 x) * W3 x). Shazeer 2020, eq. 5 and 6."""

    name = "gated"
    aliases = {
        "swiglu": {"activation": "silu"},
        "geglu": {"activation": "gelu"},
        "reglu": {"activation": "relu"},
        "glu": {"activation": "sigmoid"},
        "bilinear": {"activation": "identity"},
    }

    class Options(ComponentOptions):
        hidden_dim: Size | None = None
        """Hidden width, in features; the spec's own hidden_dim unless given. A final number: no rule of two thirds is applied."""
        activation: ActivationPart = part("silu")
        """What acts on the gate."""
        bias: bool = False
        """Whether all three projections have a bias."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, site)
        hidden_width(options, site)

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        width = hidden_width(options, site)
        self.gate = nn.Linear(site.dim, width, bias=options.bias)  # W1
        self.up = nn.Linear(site.dim, width, bias=options.bias)  # W3
        self.down = nn.Linear(width, site.dim, bias=options.bias)  # W2
        self.activation: Activation = site.build(options.activation)

    def reset(self, draw: Draw) -> None:
        draw.normal(self.gate.weight)
        draw.normal(self.up.weight)
        draw.residual(self.down.weight)
        for layer in (self.gate, self.up, self.down):
            draw.zeros(layer.bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:  # [b t d] -> [b t d]
        return self.down(self.inside(self.activation, self.gate(x)) * self.up(x))

    def facts(self) -> list[str]:
        return [f"{self.up.in_features} → {self.up.out_features} → {self.down.out_features}", *self.unusual("hidden_dim")]

    def splits(self) -> dict[str, Split]:
        return {"gate": Column(), "up": Column(), "down": Row()}


class MLP(FeedForward):
    """W2 act(W1 x + b1) + b2. Vaswani et al. 2017, eq. 2, with any activation."""

    name = "mlp"

    class Options(ComponentOptions):
        hidden_dim: Size | None = None
        """Hidden width, in features; the spec's own hidden_dim unless given."""
        activation: ActivationPart = part("gelu")
        """What acts on the hidden features."""
        bias: bool = False
        """Whether both projections have a bias."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        super().check(options, site)
        hidden_width(options, site)

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        width = hidden_width(options, site)
        self.up = nn.Linear(site.dim, width, bias=options.bias)
        self.down = nn.Linear(width, site.dim, bias=options.bias)
        self.activation: Activation = site.build(options.activation)

    def reset(self, draw: Draw) -> None:
        draw.normal(self.up.weight)
        draw.residual(self.down.weight)
        draw.zeros(self.up.bias)
        draw.zeros(self.down.bias)

    def forward(self, x: Tensor, step: Step) -> Tensor:  # [b t d] -> [b t d]
        return self.down(self.inside(self.activation, self.up(x)))

    def facts(self) -> list[str]:
        return [f"{self.up.in_features} → {self.up.out_features} → {self.down.out_features}", *self.unusual("hidden_dim")]

    def splits(self) -> dict[str, Split]:
        return {"up": Column(), "down": Row()}
