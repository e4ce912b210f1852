"""What a run's figures follow from beside its data: threads, random numbers, kernels, a compiled core; afterwards all is as it was."""

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch

from llamazoo.decoder import Decoder
from llamazoo.training.recipe import Recipe

__all__ = ["as_it_was", "compiled", "deterministic", "pinned"]

WORD = 1 << 32


@contextmanager
def pinned(recipe: Recipe, device: torch.device, seed: int) -> Iterator[None]:
    """Threads, random numbers (of PyTorch, Python and numpy) and kernels as the recipe has them, and gradients as they are at first."""
    on_gpu = device.type == "cuda"
    # What is done on a processor is the same each time; and to ask for it imports the compiler.
    with as_it_was(device), torch.enable_grad(), deterministic() if on_gpu else nullcontext():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed([seed % WORD, seed // WORD])
        torch.set_num_threads(recipe.threads)
        yield


@contextmanager
def as_it_was(device: torch.device | None = None) -> Iterator[None]:
    """What a part may set for the whole process is put back: the random states, threads, gradients, deterministic kernels."""
    threads, gradients, states = torch.get_num_threads(), torch.is_grad_enabled(), (random.getstate(), np.random.get_state())
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
        if (strict, warned) != (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()):
            torch.use_deterministic_algorithms(strict, warn_only=warned)  # only then, since it imports the compiler


@contextmanager
def deterministic() -> Iterator[None]:
    """Only kernels that give the same each time; an operation that has none is an error."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


@contextmanager
def compiled(model: Decoder) -> Iterator[None]:
    """The model's core compiled."""
    before = vars(model).get("core")
    model.core = torch.compile(model.core, dynamic=False)  # type: ignore[method-assign]
    try:
        yield
    finally:
        vars(model).pop("core")
        if before is not None:
            model.core = before  # type: ignore[method-assign]
