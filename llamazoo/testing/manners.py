"""Checks that a component does the same each time, and nothing besides."""

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from llamazoo.testing.check import Finding, check, compare
from llamazoo.testing.surroundings import Surroundings, held_by_all
from llamazoo.testing.tiny import Subject, at_once
from llamazoo.testing.watch import Call, tensors, watched

__all__ = ["determinism", "global_state", "input_unchanged"]

CAPACITY = 30  # of a state with more room than the text needs


@check("a random number in forward(), a time, the order of a set, or memory that nobody has written (torch.empty)")
def determinism(of: Subject) -> Iterator[Finding]:
    """The same again is the same, bit for bit: a second call, a second model of the seed, its gradients."""
    tokens, model = of.tokens(), of.model()
    expected, on_a_state = model(tokens), at_once(model, tokens, CAPACITY)
    torch.manual_seed(1234)
    random.seed(1234)
    yield from compare("called the model again", model(tokens), expected, "the very same logits", tolerance=0.0)
    yield from compare("built and called a second model of the seed", of.model()(tokens), expected, "the very same logits", tolerance=0.0)
    torch.use_deterministic_algorithms(True)  # which also fills memory that nobody has written with NaN
    done = "built and called it under use_deterministic_algorithms(True)"
    yield from compare(done, of.model()(tokens), expected, "the very same logits", tolerance=0.0)
    state = model.new_state(2, CAPACITY, chunk=4)
    pieces = [model(piece, state=state) for piece in tokens.split([5, 1, 4, 14], 1)]
    yield from compare("called it on a state of unwritten memory", torch.cat(pieces, 1), on_a_state, "finite logits, as in one call")
    with torch.enable_grad():
        first, again = _slopes(of, tokens), _slopes(of, tokens)
    for name, slope in first.items():
        if name in again and not torch.equal(slope, again[name]):
            yield from compare(f"took the gradient of {name} twice", again[name], slope, "the very same", tolerance=0.0)


def _slopes(of: Subject, tokens: Tensor) -> dict[str, Tensor]:
    model = of.model()
    model.loss(tokens).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@check("an operation in place (add_, mul_, masked_fill_, x[...] = ..., +=) on what was passed in")
def input_unchanged(of: Subject) -> Iterator[Finding]:
    """What is passed to a component is not written to."""
    model, tokens = of.model(), of.tokens()
    found: list[Finding] = []

    def see(call: Call) -> Any:
        given = [(name, x, x.clone()) for name, x in tensors(call.arguments, "")]
        result = call.go()
        for name, x, before in given:
            found.extend(compare(f"called {call}", x, before, f"its argument {name} as it was", tolerance=0.0))
        return result

    with watched(of, model, see):
        model(tokens)
        state = model.new_state(2, CAPACITY, chunk=4)
        for piece in tokens.split([5, 1, 18], 1):
            model(piece, state=state)
        model(tokens, segments=(torch.arange(tokens.shape[1]) // 7).expand_as(tokens))
    yield from list(dict.fromkeys(found))[:3]


@check("something set for the whole process, or kept on the class or in the module, where instances share it")
def global_state(of: Subject) -> Iterator[Finding]:
    """Building and calling leave the process as it was, and one model knows nothing of another."""
    before = Surroundings.now()
    model, tokens = of.model(), of.tokens()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(tokens)
    model(tokens, state=model.new_state(2, CAPACITY, chunk=4))
    for name, found in before.changed().items():
        yield Finding("built a model and called it", f"{name} as it was", found)
    for name, content in held_by_all(of.component).items():
        if of.held.get(name) != content:  # since the subject was made: other checks may have called it before
            cause = "what one instance writes there, all others read"
            yield Finding("built models and called them", f"{name} as it was", "it holds something else", cause)
    for name, value in own.items():
        done, cause = f"called a model, and looked at {name}", "a running value that is updated outside training"
        yield from compare(done, model.state_dict()[name], value, "as it was", tolerance=0.0, cause=cause)
    other = of.with_spec(**{"init.seed": 1}).model()
    for parameter in filter(Tensor.is_floating_point, other.parameters()):
        parameter.mul_(1.5)
    other(of.tokens(3, 40, seed=5), state=other.new_state(3, 64, chunk=4))
    done = "built a second model, changed its parameters, called it, and called the first again"
    yield from compare(done, model(tokens), expected, "what the first gave before", tolerance=0.0)
