"""Rotary positions: queries and keys turn with their position, so that scores depend on distance.

b batch, t tokens, h heads, e head width, r rotated width.
"""

from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from llamazoo.components.position.scaling import Scaling
from llamazoo.contract.component import Site, at_least_float32, refuse
from llamazoo.contract.facts import number
from llamazoo.contract.kinds import Position
from llamazoo.contract.options import ComponentOptions, Fraction, Positive

__all__ = ["RoPE"]


class Turn(NamedTuple):
    """The rotation of each token: cosine and signed sine of its angles, [b 1 t r]."""

    cos: Tensor
    sin: Tensor


class RoPE(Position):
    """Each pair of features turns by position * theta^(-2i/r). Su et al. 2021, eq. 15 and 34.

    `layout` says which features pair up: i and i + r/2 (`half`, as Hugging Face stores them) or 2i and 2i + 1
    (`interleaved`, as Meta does). `fraction` of each head is rotated, from its start; the rest passes unchanged. `scaling`
    says what becomes of the frequencies where the context is longer than the one that the model was first trained on.
    """

    name = "rope"

    class Options(ComponentOptions):
        theta: Positive = 10000.0
        """The base of the frequencies: pair i of r/2 turns by theta^(-2i/r) radians a token."""
        layout: Literal["half", "interleaved"] = "half"
        """Which features pair up: i and i + r/2 (`half`), or 2i and 2i + 1 (`interleaved`)."""
        fraction: Fraction = 1.0
        """Which share of each head is rotated, from its start; it must come to an even number of features."""
        scaling: Scaling | None = Field(None, discriminator="type", examples=[{"type": "linear", "factor": 4.0}])
        """How the frequencies are changed for a longer context: linear, dynamic, llama3, yarn or longrope; null: not at all."""

    @classmethod
    def check(cls, options: Options, site: Site) -> None:
        width = site.head_dim * options.fraction
        if width != int(width) or int(width) % 2:
            raise refuse("fraction", f"rotates {width:g} of the {site.head_dim} features of a head (head_dim); they must be an even number")
        refusal = None if options.scaling is None else options.scaling.refusal(int(width), options.theta)
        if refusal is not None:
            raise refusal.under("scaling")

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.theta, self.by_halves = options.theta, options.layout == "half"
        self.width = int(site.head_dim * options.fraction)
        self.turns_all = self.width == site.head_dim
        self.scaling = options.scaling
        self.gain = 1.0 if self.scaling is None else self.scaling.gain(site.max_seq_len)
        choices = 1 if self.scaling is None else self.scaling.choices
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.empty(choices, self.width), persistent=False)

    def compute(self) -> None:
        """One signed frequency per feature: the cosine does not see the sign, and the sine needs it."""
        exponent = torch.arange(0, self.width, 2, dtype=torch.float64) / self.width
        f = self.theta**-exponent
        f = f[None] if self.scaling is None else self.scaling.table(f, self.theta)
        signed = torch.cat((-f, f), -1) if self.by_halves else torch.stack((-f, f), -1).flatten(-2)
        self.frequencies = signed.to(at_least_float32(self.frequencies.dtype)).to(self.frequencies.device)

    def prepare(self, positions: Tensor, *, horizon: int, dtype: torch.dtype) -> Turn:
        frequencies = self.frequencies[0] if self.scaling is None else self.scaling.choose(self.frequencies, horizon)
        angles = positions[:, None, :, None] * frequencies  # bfloat16 cannot tell position 256 from 257
        cos, sin = angles.cos(), angles.sin()
        if self.gain != 1.0:
            cos, sin = cos * self.gain, sin * self.gain
        return Turn(cos.to(dtype), sin.to(dtype))

    def rotate(self, q: Tensor, k: Tensor, at: Turn) -> tuple[Tensor, Tensor]:
        return self.turn(q, at), self.turn(k, at)

    def facts(self) -> list[str]:
        return [f"theta {number(self.theta)}", *self.unusual("theta", "layout")]

    def turn(self, x: Tensor, at: Turn) -> Tensor:  # [b h t e] -> [b h t e]
        if not self.turns_all:
            turned, rest = x[..., : self.width], x[..., self.width :]
            return torch.cat((self._turn(turned, at), rest), -1)
        return self._turn(x, at)

    def _turn(self, x: Tensor, at: Turn) -> Tensor:
        partner = x.roll(self.width // 2, -1) if self.by_halves else x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        return torch.addcmul(x * at.cos, partner, at.sin)
