"""How evenly a model's experts are used, and what evens that out without a loss.

b batch, t tokens, n experts, c of them chosen by a token.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from llamazoo.contract.kinds import Router, Routing
from llamazoo.contract.step import Step
from llamazoo.errors import InputError

__all__ = ["ExpertLoad", "correct_load", "corrected", "expert_load"]


class ExpertLoad:
    """How many tokens each expert was given, by the path of its router; padding does not count."""

    def __init__(self, counts: Mapping[str, Tensor]) -> None:
        self.counts = dict(counts)  # [n] int64 each

    def shares(self) -> dict[str, Tensor]:
        """Each expert's share of all that was given out; NaN where nothing was. [n]"""
        return {path: count.double() / count.sum() for path, count in self.counts.items()}

    def max_share(self) -> dict[str, float]:
        """The share of the busiest expert; 1 / n is an even load."""
        return {path: float(share.max()) for path, share in self.shares().items()}

    def entropy(self) -> dict[str, float]:
        """The entropy of the shares, in nats; log n is an even load."""
        return {path: float(torch.special.entr(share).sum()) for path, share in self.shares().items()}


@contextmanager
def expert_load(model: nn.Module) -> Iterator[ExpertLoad]:
    """Count where the routers of a model send tokens, while the block runs; `with expert_load(model) as load: model(tokens)`.

    It listens at the routers, so nothing is spent where nobody asks, a stranger's router is counted too, and a layer that is
    recomputed for its gradient is counted each time. Counts stay on the device, and of a model that is called by several
    processes on different texts each counts its own. What was compiled before does not see the listeners: InputError.
    """
    routers = {path: module for path, module in model.named_modules() if isinstance(module, Router)}
    if any(_is_compiled(module) for module in model.modules()):
        raise InputError("a compiled model does not tell where it sends tokens; count with the model as it was before it was compiled")
    load = ExpertLoad({})
    for path, router in routers.items():
        load.counts[path] = torch.zeros(router.n_experts, dtype=torch.int64, device=next(model.parameters()).device)
    hooks = [router.register_forward_hook(_counter(load.counts[path]), with_kwargs=True) for path, router in routers.items()]
    try:
        yield load
    finally:
        for hook in hooks:
            hook.remove()


def corrected(model: nn.Module) -> bool:
    """Whether any router of the model has a correction."""
    return any(isinstance(module.correction, Tensor) for module in model.modules() if isinstance(module, Router))


def correct_load(model: nn.Module, load: ExpertLoad, rate: float = 1e-3) -> None:
    """After a training step, raise the correction of experts that were given less than the mean by `rate`, and lower the others'.

    Of each router that has a correction: b_i += rate * sign(mean - load_i). Wang et al. 2024, algorithm 1; DeepSeek-V3, section
    2.1.2. Where processes train on different texts, add their `load.counts` up first, or their routers drift apart.
    """
    for path, counts in load.counts.items():
        correction = model.get_submodule(path).correction
        if isinstance(correction, Tensor):
            with torch.no_grad():
                less = torch.sign(counts.double().mean() - counts)
                correction.add_(rate * less.to(correction))


def _is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile wrapped the module, compiled it in place, or made anew what a decoder's call is made of."""
    made = getattr(module, "core", None)
    return "_orig_mod" in module._modules or module._compiled_call_impl is not None or hasattr(made, "_torchdynamo_orig_callable")


def _counter(counts: Tensor) -> Any:
    @torch.no_grad()
    def count(router: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], routing: Routing) -> None:
        step: Step = kwargs.get("step", args[-1])
        ones = torch.ones_like(routing.experts) if step.valid is None else step.valid[..., None].expand_as(routing.experts).long()
        counts.scatter_add_(0, routing.experts.flatten(), ones.flatten())

    return count
