"""From logits to the next token.

b batch, v vocabulary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llamazoo.errors import SamplingError

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How to choose. Temperature 0 takes the best token; otherwise one is drawn from those that all filters leave.

    top_k: the k best. top_p: the fewest whose probabilities reach p (Holtzman et al. 2020). min_p: those with at least
    p times the best one's probability (Nguyen et al. 2024). repetition_penalty: logits of tokens seen before are divided
    by it if positive, multiplied if negative (Keskar et al. 2019, section 4.1).
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0

    def check(self, vocab_size: int) -> None:
        """Raise SamplingError for a setting that says nothing sensible."""
        numbers = {"temperature": self.temperature, "top_p": self.top_p, "min_p": self.min_p, "repetition_penalty": self.repetition_penalty}
        for name, value in numbers.items():
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)):
                raise SamplingError(f"{name} is a finite number, found {value!r}")
        if self.temperature < 0:
            raise SamplingError(f"temperature is 0 (the best token) or more, found {self.temperature}")
        if self.top_k is not None and (
            isinstance(self.top_k, bool) or not isinstance(self.top_k, int) or not 1 <= self.top_k <= vocab_size
        ):
            raise SamplingError(f"top_k is from 1 to the vocabulary's {vocab_size}, found {self.top_k!r}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SamplingError(f"top_p is above 0 and at most 1, found {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise SamplingError(f"min_p is from 0 to 1, found {self.min_p}")
        if self.repetition_penalty <= 0:
            raise SamplingError(f"repetition_penalty is above 0 (1: none), found {self.repetition_penalty}")


class Sampler:
    """Draws the next token of each row. Each row has a generator of its own, so that its tokens do not depend on its neighbours."""

    def __init__(self, sampling: Sampling, batch: int, vocab_size: int, seed: int | None, device: torch.device) -> None:
        sampling.check(vocab_size)
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**62):
            raise SamplingError(f"seed is an integer from 0, found {seed!r}")
        self.sampling = sampling
        self.generators = [torch.Generator(device) for _ in range(batch)] if sampling.temperature else []
        for row, generator in enumerate(self.generators):
            if seed is None:
                generator.seed()
            else:
                generator.manual_seed(seed + row)
        self.seen = torch.zeros(batch, vocab_size, dtype=torch.bool, device=device) if sampling.repetition_penalty != 1.0 else None

    def note(self, row: int, tokens: Tensor) -> None:
        """Remember tokens [t] of a row, which the repetition penalty is to weaken."""
        if self.seen is not None:
            self.seen[row, tokens] = True

    def draw(self, logits: Tensor) -> Tensor:
        """One token for each row of logits [b v]; [b]. Raises SamplingError where no token can be drawn."""
        best = logits.amax(-1)  # NaN wins every comparison, and minus infinity only if there is nothing else
        if not bool(best.isfinite().all()):
            row = int((~best.isfinite()).nonzero()[0])
            raise SamplingError(
                f"the logits of row {row} hold {best[row].item()} at best, from which no token can be drawn; look at the weights"
            )
        if self.seen is not None:
            penalty = self.sampling.repetition_penalty
            weakened = torch.where(logits > 0, logits / penalty, logits * penalty)
            logits = torch.where(self.seen, weakened, logits)
        token = self._best_of(logits)
        if self.seen is not None:
            self.seen.scatter_(1, token[:, None], True)
        return token

    def _best_of(self, logits: Tensor) -> Tensor:
        if not self.sampling.temperature:
            return logits.argmax(-1)
        # From the best one down, so that the smallest temperature cannot overflow.
        filtered = self.filtered((logits - logits.amax(-1, keepdim=True)) / self.sampling.temperature)
        # The largest of logits plus Gumbel noise is a draw from their softmax (Gumbel 1954), without a sum over the vocabulary.
        fine = torch.float32 if logits.device.type == "mps" else torch.float64  # float32 cuts the noise's tail at 17
        uniform = torch.stack([torch.rand(logits.shape[-1], generator=g, device=logits.device, dtype=fine) for g in self.generators])
        noise = -(-uniform.clamp(min=torch.finfo(fine).tiny).log()).log()
        return (filtered + noise).argmax(-1)

    def filtered(self, logits: Tensor) -> Tensor:
        """Logits [b v] with minus infinity at all tokens that a filter removes; the best one always stays."""
        s = self.sampling
        if s.top_k is not None and s.top_k < logits.shape[-1]:
            best = logits.topk(s.top_k, -1)
            logits = torch.full_like(logits, -math.inf).scatter(-1, best.indices, best.values)
        if s.top_p is not None and s.top_p < 1:
            ordered, index = logits.sort(-1, descending=True)
            share = ordered.softmax(-1)
            beyond = share.cumsum(-1) - share >= s.top_p  # those before it reach p already
            logits = logits.masked_fill(beyond.gather(-1, index.argsort(-1)), -math.inf)
        if s.min_p is not None and s.min_p > 0:
            logits = logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(s.min_p), -math.inf)
        return logits
