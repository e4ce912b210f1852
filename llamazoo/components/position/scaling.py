"""Rotary frequencies for contexts longer than those that a model was first trained on.

r rotated width of a head, f its r/2 frequencies in radians a token, g of them for one choice of frequencies.
"""

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from llamazoo.contract.component import refuse
from llamazoo.contract.options import Positive, Size
from llamazoo.errors import SpecError

__all__ = ["Dynamic", "Linear", "Llama3", "LongRoPE", "Scaling", "Stretch", "YaRN"]

Factor = Annotated[float, Field(ge=1)]


class Stretch(BaseModel):
    """What is done to the frequencies, and by what cosine and sine are multiplied."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    choices: ClassVar[int] = 1  # how many sets of frequencies there are to choose from

    def refusal(self, width: int, theta: float) -> SpecError | None:
        """Why this cannot be done to the frequencies of `width` rotated features, or None."""
        return None

    def table(self, f: Tensor, theta: float) -> Tensor:
        """The sets to choose from, made of the unscaled frequencies theta^(-2i/r). [r/2] -> [choices r/2]"""
        raise NotImplementedError

    def choose(self, table: Tensor, horizon: int) -> Tensor:
        """The frequencies of a call, from `horizon` alone, so that they are the same in every call on one state.

        They may have a sign, which stays. [choices r] -> [r]
        """
        return table[0]

    def gain(self, max_seq_len: int) -> float:
        """What cosine and sine are multiplied by."""
        return 1.0


class Linear(Stretch):
    """All frequencies divided by one factor. Chen et al. 2023 (position interpolation), eq. 4."""

    type: Literal["linear"]
    factor: Factor
    """How many times as long the context becomes."""

    def table(self, f: Tensor, theta: float) -> Tensor:
        return f[None] / self.factor


class Dynamic(Stretch):
    """Beyond `original` the base grows with the horizon, to theta (factor horizon / original - factor + 1)^(r/(r-2)).

    Dynamic NTK-aware scaling, by bloc97 and emozilla; Peng et al. 2023, section 3.3.
    """

    type: Literal["dynamic"]
    factor: Factor
    """How fast the base grows with the horizon."""
    original: Size
    """The context that the model was trained on, in tokens; up to it nothing changes."""

    def refusal(self, width: int, theta: float) -> SpecError | None:
        if width < 4:
            return refuse("type", f"dynamic needs two pairs of features or more to tell frequencies apart, {width} features are rotated")
        return _flat(self.type, theta)

    def table(self, f: Tensor, theta: float) -> Tensor:
        # The base g theta has the frequencies (g theta)^(-2i/r), and g is a number to the power r/(r-2): what that number is
        # raised to lies beside the frequencies, and only the number depends on the call.
        pairs = len(f)
        exponent = torch.arange(pairs, dtype=f.dtype) / max(1, pairs - 1)
        return torch.stack((f, exponent))

    choices: ClassVar[int] = 2

    def choose(self, table: Tensor, horizon: int) -> Tensor:
        # As a tensor, so that a compiled call need not know the horizon.
        growth = torch.full((), horizon, dtype=table.dtype, device=table.device) * (self.factor / self.original) - (self.factor - 1)
        return table[0] * growth.clamp(min=1) ** -table[1].abs()


class Llama3(Stretch):
    """Slow frequencies divided, fast ones kept, those between blended. Dubey et al. 2024 (Llama 3), as in Meta's code of Llama 3.1."""

    type: Literal["llama3"]
    factor: Factor
    """What the slow frequencies are divided by."""
    low_freq_factor: Positive
    """Features that turn fewer times than this in the original context are slow."""
    high_freq_factor: Positive
    """Features that turn more often than this in the original context are fast."""
    original: Size
    """The context that the model was trained on, in tokens."""

    def refusal(self, width: int, theta: float) -> SpecError | None:
        if self.high_freq_factor > self.low_freq_factor:
            return None
        return refuse("high_freq_factor", f"{self.high_freq_factor:g} has to be more than low_freq_factor ({self.low_freq_factor:g})")

    def table(self, f: Tensor, theta: float) -> Tensor:
        turns = self.original * f / (2 * math.pi)
        kept = ((turns - self.low_freq_factor) / (self.high_freq_factor - self.low_freq_factor)).clamp(0, 1)
        return (f * ((1 - kept) / self.factor + kept))[None]


class YaRN(Stretch):
    """Slow frequencies divided, fast ones kept, a ramp over the pairs between, and softer scores. Peng et al. 2023, section 3.2 and 3.4."""

    type: Literal["yarn"]
    factor: Factor
    """How many times as long the context becomes: what slow frequencies are divided by."""
    original: Size
    """The context that the model was trained on, in tokens."""
    beta_fast: Positive = 32.0
    """Pairs that turn more often than this in the original context keep their frequency."""
    beta_slow: Positive = 1.0
    """Pairs that turn fewer times than this in the original context have theirs divided."""
    truncate: bool = True
    """Whether the ramp begins and ends at whole pairs, rather than between two."""
    mscale: Positive | None = None
    """With mscale_all_dim: cosine and sine are multiplied by (1 + 0.1 mscale ln factor) / (1 + 0.1 mscale_all_dim ln factor)."""
    mscale_all_dim: Positive | None = None
    """See mscale; DeepSeek-V2, 2024, scales the scores themselves by what this takes away."""
    attention_factor: Positive | None = None
    """What cosine and sine are multiplied by; 1 + 0.1 ln factor, or what mscale says, unless given."""

    def refusal(self, width: int, theta: float) -> SpecError | None:
        if self.beta_fast <= self.beta_slow:
            return refuse("beta_fast", f"{self.beta_fast:g} has to be more than beta_slow ({self.beta_slow:g})")
        if (self.mscale is None) != (self.mscale_all_dim is None):
            return refuse("mscale", "mscale and mscale_all_dim go together; give both or neither")
        if self.mscale is not None and self.attention_factor is not None:
            return refuse("attention_factor", "is what mscale and mscale_all_dim would say; give either")
        return _flat(self.type, theta)

    def table(self, f: Tensor, theta: float) -> Tensor:
        pairs = len(f)

        def where(turns: float) -> float:
            """The pair, counted as a real number, that turns so often in the original context."""
            return pairs * math.log(self.original / (turns * 2 * math.pi)) / math.log(theta)

        low, high = where(self.beta_fast), where(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        # The upper bound is that of the features, not of the pairs: the authors' code has it so, and published models with it.
        low, high = max(low, 0), min(high, 2 * pairs - 1)
        if low == high:
            high += 0.001  # a step; the authors' number
        divided = ((torch.arange(pairs, dtype=f.dtype) - low) / (high - low)).clamp(0, 1)
        return (f * (divided / self.factor + 1 - divided))[None]

    def gain(self, max_seq_len: int) -> float:
        if self.attention_factor is not None:
            return self.attention_factor

        def softened(by: float) -> float:
            return 1 + 0.1 * by * math.log(self.factor)

        if self.mscale is not None and self.mscale_all_dim is not None:
            return softened(self.mscale) / softened(self.mscale_all_dim)
        return softened(1.0)


class LongRoPE(Stretch):
    """Each frequency divided by a factor of its own, of one list up to `original`, of another beyond. Ding et al. 2024, section 3."""

    type: Literal["longrope"]
    short_factor: list[Positive]
    """One factor for each rotated pair, fastest first, while the horizon is at most `original`."""
    long_factor: list[Positive]
    """The same while the horizon is longer."""
    original: Annotated[int, Field(ge=2, le=2**40)]
    """The context that the model was trained on, in tokens."""
    factor: Positive | None = None
    """How many times as long the context has become, for `attention_factor`; max_seq_len / original unless given."""
    attention_factor: Positive | None = None
    """What cosine and sine are multiplied by, at any horizon; sqrt(1 + ln factor / ln original) unless given."""

    choices: ClassVar[int] = 2

    def refusal(self, width: int, theta: float) -> SpecError | None:
        for name, factors in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
            if len(factors) != width // 2:
                return refuse(name, f"has {len(factors)} factors for the {width // 2} pairs of {width} rotated features of a head")
        return None

    def table(self, f: Tensor, theta: float) -> Tensor:
        return f / torch.tensor([self.short_factor, self.long_factor], dtype=f.dtype)

    def choose(self, table: Tensor, horizon: int) -> Tensor:
        return table[1] if horizon > self.original else table[0]

    def gain(self, max_seq_len: int) -> float:
        if self.attention_factor is not None:
            return self.attention_factor
        factor = max_seq_len / self.original if self.factor is None else self.factor
        return math.sqrt(1 + math.log(factor) / math.log(self.original)) if factor > 1 else 1.0


Scaling = Linear | Dynamic | Llama3 | YaRN | LongRoPE  # told apart by `type`


def _flat(name: str, theta: float) -> SpecError | None:
    if theta > 1:
        return None
    return refuse("type", f"{name} needs frequencies that fall from pair to pair, so a theta of more than 1; found {theta:g}")
