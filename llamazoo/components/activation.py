"""Activations: functions of single numbers."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from llamazoo.contract.component import Site
from llamazoo.contract.kinds import Activation
from llamazoo.contract.options import ComponentOptions, Positive

__all__ = ["GELU", "Identity", "ReLU", "SiLU", "Sigmoid", "SquaredReLU", "Swish"]


class SiLU(Activation):
    """x * sigmoid(x), also called swish. Elfwing et al. 2017, eq. 4; Ramachandran et al. 2017."""

    name = "silu"

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)


class Swish(Activation):
    """x * sigmoid(beta x). Ramachandran et al. 2017, section 4; with 1.702, GELU as Hendrycks & Gimpel 2016 approximate it."""

    name = "swish"

    class Options(ComponentOptions):
        beta: Positive = 1.0
        """How steep the gate is: silu with 1, relu without bound."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.beta = options.beta

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.beta * x)


class GELU(Activation):
    """x * Phi(x), Phi the normal distribution function, or its tanh approximation. Hendrycks & Gimpel 2016, section 2."""

    name = "gelu"

    class Options(ComponentOptions):
        approximate: Literal["none", "tanh"] = "none"
        """`none` is exact; `tanh` is the approximation 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.approximate = options.approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate=self.approximate)


class ReLU(Activation):
    """max(x, 0)."""

    name = "relu"

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class SquaredReLU(Activation):
    """max(x, 0)^2. So et al. 2021 (Primer), section 4.2."""

    name = "relu2"

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    name = "sigmoid"

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Identity(Activation):
    """x; a gate with this is bilinear."""

    name = "identity"

    def forward(self, x: Tensor) -> Tensor:
        return x
