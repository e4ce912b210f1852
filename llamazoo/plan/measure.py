"""Bytes of weights, states and activations, measured on two layers of each sort, and told of the whole model.

The layers run as they are, on tensors that have shapes and no data, as if on a CPU, whose attention is fused as a GPU's is.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils.checkpoint import checkpoint

from llamazoo.contract.component import Component
from llamazoo.contract.kinds import Block
from llamazoo.contract.split import Share
from llamazoo.contract.step import Losses, Step
from llamazoo.decoder import Decoder
from llamazoo.errors import ResourceLimitError, UnsupportedError
from llamazoo.parallel.tensor import divide
from llamazoo.plan.live import Live, Saved
from llamazoo.spec.architecture import ArchitectureSpec

__all__ = ["Sample", "Training", "sample"]


class OneOf(Share):
    """The first of several processes, alone: what the others would send has a shape and no value."""

    rank = 0

    def __init__(self, size: int) -> None:
        self.size = size
        self.device = torch.device("meta")

    def sum(self, x: Tensor) -> Tensor:
        return x.clone()

    def join(self, x: Tensor, dim: int, widths: Sequence[int]) -> Tensor:
        shape = list(x.shape)
        shape[dim] = sum(widths)
        return x.new_zeros(shape)


@dataclass(frozen=True)
class Training:
    """Bytes of activations in a training step, the weights' gradients not counted."""

    kept: int  # by autograd, from the forward pass for the backward
    logits: int  # of these, by the final norm, the head and the loss
    peak: int  # the most at once


@dataclass(frozen=True)
class Sample:
    """A model with two layers of each sort, without data, and how many each stands for; divided, the first process's share.

    The first of a sort stands for itself: what layers share (a mask) it makes, and the second, which stands for all others, finds.
    """

    spec: ArchitectureSpec
    dtype: torch.dtype
    processes: int
    model: Decoder
    counts: tuple[int, ...]

    @property
    def parameters(self) -> int:
        """Those that are trained; what is built frozen is among the weights only."""
        return self._over_layers(lambda module: sum(p.numel() for p in module.parameters() if p.requires_grad))

    @property
    def weight_bytes(self) -> int:
        return self._over_layers(lambda module: sum(p.nbytes for p in module.parameters()))

    @property
    def read_bytes(self) -> int:
        """Weights that a decoding step reads, at least: not a table of which it looks up a few rows, nor experts that no row chooses."""
        tied = {id(p) for p in self.model.head.parameters()}
        looked_up = sum(p.nbytes for p in self.model.embedding.parameters() if id(p) not in tied)
        idle = self._over_layers(lambda module: sum(m.idle_parameters() for m in module.modules() if isinstance(m, Component)))
        return self.weight_bytes - looked_up - idle * self.dtype.itemsize

    def _over_layers(self, count: Any) -> int:
        blocks: list[int] = [count(block) for block in self.model.blocks]
        whole: int = count(self.model)
        return whole - sum(blocks) + self._all(blocks)

    def _all(self, each: Sequence[int]) -> int:
        return sum(number * size for number, size in zip(self.counts, each, strict=True))

    def flops(self, context: int) -> int:
        """Operations of the forward of one token that sees `context` others."""
        return self._over_layers(lambda module: sum(m.flops(context) for m in module.modules() if isinstance(m, Component)))

    def cache_bytes(self, batch: int, context: int, chunk: int) -> int:
        """Of the state of `batch` rows of `context` tokens."""
        with torch.device("meta"):
            states = self.model.new_state(batch, context, chunk=chunk).layers
        return self._all([0 if state is None else state.nbytes for state in states])

    def prefill_peak(self, batch: int, context: int, chunk: int) -> int:
        """The most bytes of activations while the last `chunk` tokens of `context` enter a state."""
        with self._without_data() as model:
            model.requires_grad_(False)  # rather than no_grad, under which a part may look at values to save time
            device = torch.device("cpu")
            tokens = torch.zeros(batch, chunk, dtype=torch.int64)
            with Live([*model.parameters(), *model.buffers()]) as live:
                states = [_block(b).new_state(batch, context, chunk=chunk, device=device, dtype=model.dtype) for b in model.blocks]
                before = live.now
                step = Step.even(batch, chunk, start=context - chunk, horizon=context, device=device)
                model.logits(model.core(tokens, step, states)[:, -1:])
            return live.peak - before

    def training(self, batch: int, context: int, checkpointing: bool = False) -> Training:
        """What a forward and backward pass over `batch` rows of `context` tokens holds; gradients are there before, as from the second on.

        With checkpointing a layer keeps what enters it, and runs again in the backward pass.
        """
        with self._without_data() as model:
            for p in model.parameters():
                p.grad = torch.zeros_like(p) if p.requires_grad else None
            known = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters() if p.grad is not None)]
            saved, entering = Saved(known), [0] * len(model.blocks)
            for number, block in enumerate(model.blocks):
                _watch(saved, entering, number, block)
                if checkpointing:
                    block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
            with Live(known) as live:
                with saved.watch():
                    loss = _loss(model, batch, context)
                loss.backward()
        layers = entering if checkpointing else [saved.bytes.get(number, 0) for number in range(len(self.counts))]
        outside = sum(size for owner, size in saved.bytes.items() if not isinstance(owner, int))
        return Training(outside + self._all(layers), saved.bytes.get("after", 0), live.peak + self._all(layers) - sum(layers))

    @contextmanager
    def _without_data(self) -> Iterator[Decoder]:
        """The model anew, its tensors without data saying that they are on the CPU. UnsupportedError if a part looks at values."""
        model = _shapes(self.spec, self.dtype, self.processes)
        try:
            with FakeTensorMode(), _as_if_traced():
                for module in model.modules():
                    for name, p in module._parameters.items():
                        if p is not None:
                            made = torch.empty(p.shape, dtype=p.dtype, device="cpu")
                            module._parameters[name] = nn.Parameter(made, p.requires_grad)
                    for name, buffer in module._buffers.items():
                        if buffer is not None:
                            module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype, device="cpu")
                model.link()
                yield model
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise UnsupportedError(f"a part of this model looks at values; its activations cannot be measured without: {error}") from error


@contextmanager
def _as_if_traced() -> Iterator[None]:
    """Let parts believe that they are being compiled: whatever has a way without looking at values then takes it."""
    before = torch.compiler._is_compiling_flag
    torch.compiler._is_compiling_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag = before


def sample(spec: ArchitectureSpec, dtype: torch.dtype, processes: int = 1) -> Sample:
    """Build it. ResourceLimitError for sizes beyond counting, UnsupportedError if it does not divide among so many processes."""
    counts = [1 for _ in spec.sorts()] + [count - 1 for _, count in spec.sorts() if count > 1]
    return Sample(spec, dtype, processes, _shapes(spec, dtype, processes), tuple(counts))


def _shapes(spec: ArchitectureSpec, dtype: torch.dtype, processes: int) -> Decoder:
    numbers = [first for first, _ in spec.sorts()] + [first for first, count in spec.sorts() if count > 1]
    try:
        with torch.device("meta"):
            model = Decoder(spec, only=numbers).to(dtype)
    except (RuntimeError, OverflowError) as error:
        raise ResourceLimitError(
            f"a tensor of this model has more bytes than can be counted (2**63): {str(error).splitlines()[0]}"
        ) from None
    model.link()
    if processes > 1:
        divide(model, OneOf(processes))
    return model


def _loss(model: Decoder, batch: int, context: int) -> Tensor:
    tokens = torch.zeros(batch, context, dtype=torch.int64)
    step = Step.even(batch, context, start=0, horizon=context, device=tokens.device)
    losses = Losses()
    x = model.core(tokens, replace(step, losses=losses), [None] * len(model.blocks))
    loss = F.cross_entropy(model.logits(x).flatten(0, 1), tokens.flatten())
    return torch.stack([loss, *losses.take().values()]).sum()


def _watch(saved: Saved, entering: list[int], number: int, block: nn.Module) -> None:
    """Let what is kept while this block runs be its own, and note how much enters it."""

    def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
        saved.owner, entering[number] = number, args[0].nbytes

    def leave(*_: Any) -> None:
        saved.owner = "after"

    block.register_forward_pre_hook(enter)
    block.register_forward_hook(leave)


def _block(module: nn.Module) -> Block:
    assert isinstance(module, Block)
    return module
