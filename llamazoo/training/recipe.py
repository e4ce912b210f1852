"""How a model is trained, as data: all that a run follows from, besides the model and the examples."""

import math
from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from llamazoo.contract.options import NonNegative, Positive, Size

__all__ = ["LearningRate", "Recipe", "Training"]

Share = Annotated[float, Field(ge=0, le=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
# AdamW moves a weight by about the learning rate in a step, so that with more than 1 nothing is learned, and weights may overflow.
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Training(BaseModel):
    """All of a recipe but the learning rate, which an ablation chooses for each variant."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

    tokens: Size
    """Tokens to train on, rounded up to whole examples; the last batch may be smaller."""
    batch_tokens: Size = 8192
    """Tokens of one step of the optimizer."""
    micro_batch_tokens: Size | None = None
    """Tokens that are computed at once, if a batch is too large for that; gradients are added up, each token counting alike."""
    seq_len: Size = 256
    """Tokens of an example."""
    schedule: Literal["constant", "cosine", "wsd"] = "cosine"
    """How the learning rate falls after its warm-up: not, along a cosine, or linearly at the end (warm-up, stable, decay)."""
    warmup: Share = 0.05
    """The share of all steps in which it rises from nought."""
    decay: Share = 0.2
    """The share of all steps in which `wsd` falls."""
    final_lr: Share = 0.1
    """What it falls to, as a share of its height."""
    weight_decay: NonNegative = 0.1
    """Of matrices; biases and the gains of norms do not decay."""
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    eps: Annotated[float, Field(ge=1e-16)] = 1e-8
    clip: Positive | None = 1.0
    """The largest norm that all gradients together may have."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 multiplies matrices in it (autocast); the parameters and the optimizer are in float32."""
    compile: bool = False
    """Compile the model's core."""
    evaluate_every: Size | None = None
    """Tokens between two evaluations; unless given, a tenth of all. There is always one at the end."""
    evaluate_tokens: Size = 65536
    """How much of the validation split an evaluation reads, spread evenly and always the same; all of it if there is less."""
    checkpoint_every: Size | None = None
    """Tokens between two checkpoints; unless given, as many as between two evaluations."""
    non_finite: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is not finite leads to: the end of the run, or a step without an update."""
    max_skipped: Size = 10
    """So many steps in a row without an update end the run."""
    correction_rate: NonNegative = 1e-3
    """How far the correction of a router moves at each step. Wang et al. 2024."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of the processor; a run repeats bit for bit only with the same number."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.batch_tokens % self.seq_len:
            raise ValueError(f"batch_tokens {self.batch_tokens} is no multiple of seq_len {self.seq_len}")
        if self.micro_batch_tokens is not None and self.batch_tokens % self.micro_batch_tokens:
            raise ValueError(f"batch_tokens {self.batch_tokens} is no multiple of micro_batch_tokens {self.micro_batch_tokens}")
        if self.micro_batch_tokens is not None and self.micro_batch_tokens % self.seq_len:
            raise ValueError(f"micro_batch_tokens {self.micro_batch_tokens} is no multiple of seq_len {self.seq_len}")
        if any(rate * self.weight_decay > 1 for rate in self.rates):
            told = f"lr {max(self.rates):g} times weight_decay {self.weight_decay:g} is more than 1"
            raise ValueError(f"{told}: weights would not decay but swing")
        return self

    @property
    def rates(self) -> list[float]:
        """The learning rates that it names, the lowest first."""
        return []

    @property
    def batch(self) -> int:
        """Examples of a full batch."""
        return self.batch_tokens // self.seq_len

    @property
    def examples(self) -> int:
        """Examples of the whole run."""
        return -(-self.tokens // self.seq_len)

    @property
    def steps(self) -> int:
        """Steps of the optimizer, the last of them perhaps of fewer examples."""
        return -(-self.examples // self.batch)

    def share(self, of_steps: float) -> int:
        """A share of all steps, rounded up; of the share as it is written, since in binary 0.07 of 100 is more than 7."""
        return math.ceil(Fraction(str(of_steps)) * self.steps)


class Recipe(Training):
    """How one model is trained."""

    lr: LearningRate = 1e-3
    """The height of the learning rate."""

    @property
    def rates(self) -> list[float]:
        return [self.lr]

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, numbered from 0. Loshchilov & Hutter 2017, eq. 5; Hu et al. 2024 (WSD), section 4."""
        warm = self.share(self.warmup)
        if step < warm:
            return self.lr * (step + 1) / warm
        if self.schedule == "constant":
            return self.lr
        first = warm if self.schedule == "cosine" else max(warm, self.steps - self.share(self.decay))
        progress = min(1.0, max(0, step - first + 1) / max(1, self.steps - first))
        fallen = (1 - math.cos(math.pi * progress)) / 2 if self.schedule == "cosine" else progress
        return self.lr * (1 - (1 - self.final_lr) * fallen)
