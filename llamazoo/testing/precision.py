"""Checks of the number types that a component returns, and of what it makes of their precision."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llamazoo.contract.component import at_least_float32
from llamazoo.contract.kinds import Router
from llamazoo.contract.state import State
from llamazoo.decoder import Decoder
from llamazoo.testing.check import Finding, check
from llamazoo.testing.tiny import Subject
from llamazoo.testing.watch import Call, tensors, watched

__all__ = ["dtypes", "short"]

LONG = 320  # tokens: more than bfloat16 can count
# How many roundings of its number type a tiny model may be off, in the mean over all logits; built-in parts: 10 and 3 at most.
ROUNDINGS = {torch.float32: 64, torch.bfloat16: 16}
LIKE = 0.75  # of all tokens are sent to the same experts, at least; built-in routers: 0.98
SMALL = 1e-9  # a change of the parameters that float64 follows and float32 does not see
CROOKED = 0.02  # how far from twice the answer to it the answer to twice of it may be


@check("a number type that is written down (torch.float32, .float(), .half()) rather than taken from the input")
def dtypes(of: Subject) -> Iterator[Finding]:
    """In float64, float32 and bfloat16 all that comes out has the right number type, and is right up to its rounding."""
    tokens = of.tokens(1, min(LONG, of.spec.max_seq_len))
    of = of.one_layer() if _routers(of.model()) else of  # where a token that is sent elsewhere does not reach the others
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        model = of.model(dtype)
        seen = _Types(of, dtype)
        try:
            with watched(of, model, seen):
                logits = model(tokens)
                state = model.new_state(1, 12, chunk=4)
                model(tokens[:, :9], state=state)
        except Exception:
            if not seen.found:  # else it follows from what was found
                raise
            yield from dict.fromkeys(seen.found)
            continue
        if logits.dtype != at_least_float32(dtype):
            yield Finding(f"called a model in {short(dtype)}", f"logits in {short(at_least_float32(dtype))}", short(logits.dtype))
        for number, layer in enumerate(state.layers):
            yield from _state_types(number, layer, dtype)
        yield from dict.fromkeys(seen.found)
        if dtype != torch.float64:
            yield from _rounded(of, model, tokens, logits)
    yield from _float64_stays(of, of.tokens())


class _Types:
    """Looks at the number types of every call of the component in a model of a dtype."""

    def __init__(self, of: Subject, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.kind = of.component.kind
        self.found: list[Finding] = []

    def __call__(self, call: Call) -> Any:
        floating = [x.dtype for _, x in tensors(call.arguments, "") if x.is_floating_point()]
        given = floating[0] if floating else self.dtype
        result = call.go()
        wide = self.kind in ("head", "router") or call.method == "bias"
        for name, x in tensors(result, "what it returns"):
            expected = at_least_float32(given) if wide else given
            if self.kind == "router" and not x.is_floating_point():
                expected = torch.int64  # the experts, by number
            if x.dtype != expected:
                done = f"called {call} with numbers in {short(given)}, in a model in {short(self.dtype)}"
                self.found.append(Finding(done, f"{name} in {short(expected)}", short(x.dtype)))
        return result


def _state_types(number: int, layer: State | None, dtype: torch.dtype) -> Iterator[Finding]:
    for name, x in tensors(vars(layer) if hasattr(layer, "__dict__") else {}, ""):
        if x.is_floating_point() and x.dtype not in (dtype, at_least_float32(dtype)):
            cause = "new_state() makes a buffer without `dtype=dtype`"
            yield Finding(
                f"made a state of a model in {short(dtype)}", f"{name} of layer {number} in {short(dtype)}", short(x.dtype), cause
            )


def _rounded(of: Subject, model: Decoder, tokens: Tensor, logits: Tensor) -> Iterator[Finding]:
    """The logits are those that the same weights give in float64, up to rounding."""
    exact = of.model()
    exact.load_state_dict(model.state_dict())
    ours, theirs = _choices(model, tokens), _choices(exact, tokens)
    expected = exact(tokens)
    if ours:  # two experts that a token likes alike change places by rounding: that is no fault, if few do
        same = torch.stack([a == b for a, b in zip(ours, theirs, strict=True)]).all(-1).all(0)  # [b t]
        if same.double().mean() < LIKE:
            yield Finding(
                f"called a model in {short(model.dtype)}, and looked where its tokens were sent",
                "nearly all where the same weights send them in float64",
                f"{int((~same).sum())} of {same.numel()} elsewhere",
                "a router that computes its logits in too coarse a number type",
            )
            return
        logits, expected = logits[same], expected[same]
    off = _mean_square(logits.double() - expected) / _mean_square(expected)
    bound = ROUNDINGS[model.dtype] * torch.finfo(model.dtype).eps
    if not off <= bound:
        yield Finding(
            f"called a model in {short(model.dtype)} on {tokens.shape[1]} tokens",
            "what the same weights give in float64",
            f"{off:.2g} of it off, in the mean over all logits; at most {bound:.2g} is rounding",
            "positions, angles, a norm, a softmax or a long sum in too coarse a number type",
        )


def _routers(model: Decoder) -> list[Router]:
    return [module for module in model.modules() if isinstance(module, Router)]


def _choices(model: Decoder, tokens: Tensor) -> list[Tensor]:
    """To which experts each router sends each token, in order. [b t c] each"""
    found: list[Tensor] = []
    hooks = [
        router.register_forward_hook(lambda _, args, routing: found.append(routing.experts.sort().values)) for router in _routers(model)
    ]
    if hooks:
        model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def _float64_stays(of: Subject, tokens: Tensor) -> Iterator[Finding]:
    """Twice as small a change of all parameters gives half the change of the logits, unless float32 stands in between."""
    model = of.model()
    generator = torch.Generator().manual_seed(1)
    moved = [p for p in model.parameters() if p.is_floating_point()]
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in moved]
    results = [model(tokens)]
    for _ in range(2):
        for parameter, direction in zip(moved, directions, strict=True):
            parameter.add_(SMALL * direction)
        results.append(model(tokens))
    once, twice = results[1] - results[0], results[2] - results[0]
    size = _mean_square(twice)
    off = _mean_square(twice - 2 * once) / size if size else math.inf
    if not off <= CROOKED:
        yield Finding(
            f"changed all parameters of a float64 model by about {SMALL:g}, and by twice as much",
            "twice the change of the logits",
            f"{off:.2g} of it off" if size else "no change at all",
            "something inside is computed in float32, such as x.float(); as_wide_as_float32() keeps float64",
        )


def _mean_square(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
