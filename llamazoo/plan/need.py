"""What running or training a model needs, on one GPU or divided among several; what fits; and the times that no GPU can beat."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch

from llamazoo.errors import ContextLengthError, InputError, UnsupportedError
from llamazoo.plan.gpus import RESERVE, Gpu
from llamazoo.plan.measure import Sample, Training, sample
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["Fit", "Need", "Optimizer", "Plan", "Use"]

MOST_GPUS = 8  # in one machine, beyond which dividing single layers does not pay
POINTS = 64  # of a row, at which operations are counted for their mean
UPDATES = 3  # a training step is one forward, and a backward of twice its operations


class Optimizer(StrEnum):
    """What updates the weights; its states are in float32."""

    ADAMW = "adamw"
    SGD = "sgd"

    @property
    def states(self) -> int:
        """How many numbers it remembers for each parameter."""
        return 2 if self is Optimizer.ADAMW else 1


@dataclass(frozen=True)
class Use:
    """What is asked for: rows of so many tokens, entering in chunks; or training on them."""

    context: int
    batch: int = 1
    dtype: torch.dtype = torch.bfloat16
    chunk: int = 512
    train: bool = False
    optimizer: Optimizer = Optimizer.ADAMW
    checkpointing: bool = False

    def check(self, spec: ArchitectureSpec) -> None:
        """Raise InputError, or ContextLengthError, for what cannot be."""
        for name, value in (("context", self.context), ("batch", self.batch), ("chunk", self.chunk)):
            if value < 1:
                raise InputError(f"{name} is a whole number from 1, found {value}")
        if self.context > spec.max_seq_len:
            raise ContextLengthError(
                f"rows of {self.context} tokens are longer than the model's context, max_seq_len {spec.max_seq_len}; "
                "a spec may set another max_seq_len"
            )


@dataclass(frozen=True)
class Need:
    """Bytes on each of so many GPUs. `activations` are the most at once; None where they cannot be measured."""

    gpus: int
    weights: int
    cache: int
    gradients: int
    optimizer: int
    master: int  # float32 copies of weights in half precision, which updates are added to
    activations: int | None
    read: int  # of weights and cache, by a decoding step

    @property
    def total(self) -> int:
        return self.weights + self.cache + self.gradients + self.optimizer + self.master + (self.activations or 0)


@dataclass(frozen=True)
class Fit:
    """A GPU, how many of them it takes (None: more than are considered), and the bounds that follow from its data sheet."""

    gpu: Gpu
    need: Need | None
    tokens_per_second: float | None  # decoding, all rows together, no more than
    step_seconds: float | None  # of a training step, no less than


class Plan:
    """All that is to be told of one use of a spec. Nothing is allocated; sizes are measured when they are asked for."""

    def __init__(self, spec: ArchitectureSpec, use: Use) -> None:
        use.check(spec)
        self.spec, self.use = spec, use
        self.whole = sample(spec, use.dtype)
        self.need = cache(self._need)
        self.unmeasured: str | None = None

    def training(self, checkpointing: bool) -> Training:
        """Activations of a training step on one GPU. UnsupportedError if they cannot be measured."""
        return self.whole.training(self.use.batch, self.use.context, checkpointing)

    def sizes(self) -> list[int]:
        """Among how many GPUs the heads divide."""
        return [n for n in range(1, MOST_GPUS + 1) if self.spec.n_heads % n == 0]

    def _need(self, gpus: int) -> Need:
        use = self.use
        part = self.whole if gpus == 1 else sample(self.spec, use.dtype, gpus)
        weights, parameters = part.weight_bytes, part.parameters
        held = 0 if use.train else part.cache_bytes(use.batch, use.context, use.chunk)
        half = use.dtype.itemsize < 4
        return Need(
            gpus=gpus,
            weights=weights,
            cache=held,
            gradients=weights if use.train else 0,
            optimizer=4 * use.optimizer.states * parameters if use.train else 0,
            master=4 * parameters if use.train and half else 0,
            activations=self._activations(part),
            read=part.read_bytes + held,
        )

    def _activations(self, part: Sample) -> int | None:
        use = self.use
        try:
            if use.train:
                return part.training(use.batch, use.context, use.checkpointing).peak
            return part.prefill_peak(use.batch, use.context, min(use.chunk, use.context))
        except UnsupportedError as error:
            self.unmeasured = str(error)
            return None

    @property
    def flops_per_token(self) -> float:
        """Forward operations of a token, in the mean over a row of `context`."""
        context = self.use.context
        seen = [context * (2 * i + 1) // (2 * POINTS) for i in range(POINTS)]
        return sum(self.whole.flops(others) for others in seen) / POINTS

    @property
    def flops_per_step(self) -> float:
        """Of a training step over all rows; of a decoding step of all rows at the end of their context otherwise."""
        if not self.use.train:
            return float(self.use.batch * self.whole.flops(self.use.context))
        passes = UPDATES + (1 if self.use.checkpointing else 0)
        return passes * self.use.batch * self.use.context * self.flops_per_token

    def fit(self, gpu: Gpu) -> Fit:
        """The fewest of these GPUs among which the model divides and fits."""
        for gpus in self.sizes():
            try:
                need = self.need(gpus)
            except UnsupportedError:  # more processes than some part can be divided among
                continue
            if need.total <= gpu.memory - RESERVE:
                return Fit(gpu, need, *self._bounds(gpu, need))
        return Fit(gpu, None, None, None)

    def _bounds(self, gpu: Gpu, need: Need) -> tuple[float | None, float | None]:
        """Tokens a second, or seconds a step: as if memory, and matrix units, were always busy, and GPUs never waited for each other."""
        rate = gpu.rate(self.use.dtype)
        if rate is None:
            return None, None
        computing = self.flops_per_step / (rate * need.gpus)
        if self.use.train:
            return None, computing
        return self.use.batch / max(need.read / gpu.bandwidth, computing), None
