"""What a run's figures follow from beside its data: threads, random numbers, kernels, a compiled core; afterwards all is as it was."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from llamazoo.decoder import Decoder
from llamazoo.training.recipe import Recipe

__all__ = ["compiled", "deterministic", "pinned"]


@contextmanager
def pinned(recipe: Recipe, device: torch.device, seed: int) -> Iterator[None]:
    """Threads, random numbers and kernels as the recipe has them."""
    threads, on_gpu = torch.get_num_threads(), device.type == "cuda"
    # What is done on a processor is the same each time; and to ask for it imports the compiler.
    with torch.random.fork_rng([device] if on_gpu else []), deterministic() if on_gpu else nullcontext():
        torch.manual_seed(seed)
        torch.set_num_threads(recipe.threads)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


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
