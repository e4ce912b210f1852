"""Checks of the shapes that a component returns."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from llamazoo.contract.kinds import Router, Routing
from llamazoo.decoder import Decoder
from llamazoo.testing.check import Finding, check
from llamazoo.testing.tiny import Subject
from llamazoo.testing.watch import Call, tensors, watched

__all__ = ["shapes"]


@check("a view, reshape or broadcast that fits one shape of input only")
def shapes(of: Subject) -> Iterator[Finding]:
    """What comes out has the shape that the kind of component promises, for any number of rows and tokens."""
    model = of.model()
    yield from _present(of, model)
    found: list[Finding] = []
    try:
        with watched(of, model, lambda call: _shaped(of, call, found)):
            for batch, length in ((1, 1), (3, 1), (1, 7), (2, 24)):
                found += _logits(of, model, batch, length)
    except Exception:
        if not found:  # else it follows from what was found
            raise
    yield from dict.fromkeys(found)


def _logits(of: Subject, model: Decoder, batch: int, length: int) -> Iterator[Finding]:
    for last in (False, True):
        expected, shape = [batch, 1 if last else length, of.spec.vocab_size], list(model(of.tokens(batch, length), last_only=last).shape)
        if shape != expected:
            what = f"{batch} rows of {length} tokens{' with last_only' if last else ''}"
            yield Finding(f"called the model with {what}", f"logits of the shape {expected}", f"{shape}")


def _present(of: Subject, model: Decoder) -> Iterator[Finding]:
    if not of.instances(model):
        yield Finding(f"looked for {of.name} in the model", "it stands there", "it is nowhere", "`around` puts another part in its place")


def _shaped(of: Subject, call: Call, found: list[Finding]) -> Any:
    given = [(name, list(x.shape)) for name, x in tensors(call.arguments, "") if x.ndim]
    result = call.go()
    name, shape = given[0]
    for what, returned, expected in _promised(of, call, result):
        if not isinstance(returned, Tensor):
            found.append(Finding(f"called {call}", f"a tensor for {what}", f"{type(returned).__name__}"))
        elif not _fits(list(returned.shape), expected, broadcast=call.method == "bias"):
            found.append(
                Finding(f"called {call} with {name} of the shape {shape}", f"{what} of the shape {expected}", f"{list(returned.shape)}")
            )
    return result


def _promised(of: Subject, call: Call, result: Any) -> Iterator[tuple[str, Any, list[int]]]:
    """What a call should return: what to call it, what it is, its shape."""
    inputs = [x for _, x in tensors(call.arguments, "")]
    shape = list(inputs[0].shape)
    if call.method == "rotate":
        both = result if isinstance(result, tuple) and len(result) == 2 else (None, None)
        yield "q", both[0], shape
        yield "k", both[1], list(inputs[1].shape)
    elif call.method == "bias":
        if result is not None:
            yield "the bias", result, [shape[0], of.spec.n_heads, shape[1], inputs[1].shape[1]]
    elif of.component.kind == "embedding":
        yield "features", result, [*shape, of.spec.dim]
    elif of.component.kind == "head":
        yield "logits", result, [*shape[:-1], of.spec.vocab_size]
    elif of.component.kind == "router":
        routing = result if isinstance(result, Routing) else Routing(None, None)  # type: ignore[arg-type]
        router = next(iter(of.instances(of.model()).values()))
        assert isinstance(router, Router)
        for name in ("experts", "weights"):
            yield f"the {name} of the routing", getattr(routing, name), [*shape[:-1], router.top_k]
        for name in ("logits", "scores"):
            if getattr(routing, name) is not None or (name == "logits" and router.learned):
                yield f"the {name} of the routing", getattr(routing, name), [*shape[:-1], router.n_experts]
    else:
        yield "what it returns", result, shape


def _fits(shape: list[int], expected: list[int], *, broadcast: bool) -> bool:
    if broadcast:
        return len(shape) == len(expected) and all(a in (1, b) for a, b in zip(shape, expected, strict=True))
    return shape == expected
