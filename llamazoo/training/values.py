"""Plain values, in whatever they are collected: how they are copied, and what they are, so that two can be compared."""

import copy
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["copied", "is_value", "same"]

DEPTH = 6  # of collections within each other; what lies deeper is not looked at
PLAIN = (bool, int, float, complex, str, bytes, type(None), np.generic)
STATES: dict[type, Callable[[Any], Any]] = {
    random.Random: random.Random.getstate,
    np.random.Generator: lambda each: each.bit_generator.state,
    np.random.RandomState: lambda each: each.get_state(legacy=False),
    torch.Generator: torch.Generator.get_state,
}
"""Where the state of what draws random numbers is."""
COLLECTIONS = (list, tuple, set, frozenset, deque)
NOT_OURS = ("torch", "llamazoo", "pydantic", "builtins", "functools")  # whose things are what they are, and no values


def is_value(value: Any, depth: int = DEPTH) -> bool:
    """Whether it is a number, a word, a tensor, a source of random numbers, a collection of such, or an object that holds such."""
    if isinstance(value, (*PLAIN, Tensor, np.ndarray, *STATES)):
        return True
    if depth == 0:
        return False
    if isinstance(value, (dict, *COLLECTIONS)):
        return all(is_value(each, depth - 1) for each in _parts(value))
    own = type(value).__module__.partition(".")[0] not in NOT_OURS and not isinstance(value, nn.Module | type) and not callable(value)
    return own and hasattr(value, "__dict__") and all(is_value(each, depth - 1) for each in vars(value).values())


def copied(value: Any) -> Any:
    """The same again, which stays as it is whatever becomes of this one."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, torch.Generator):
        return torch.Generator(value.device).set_state(value.get_state())
    if isinstance(value, (*PLAIN, np.ndarray, *STATES)):
        return copy.deepcopy(value)
    if isinstance(value, dict):
        made = copy.copy(value)  # of its own sort, as a Counter
        made.clear()
        for name, each in value.items():
            made[name] = copied(each)
        return made
    if isinstance(value, deque):
        return deque(map(copied, value), value.maxlen)
    if isinstance(value, COLLECTIONS):
        named = isinstance(value, tuple) and hasattr(value, "_fields")
        return type(value)(*map(copied, value)) if named else type(value)(map(copied, value))
    made = copy.copy(value)
    vars(made).update({name: copied(each) for name, each in vars(value).items()})
    return made


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, bit for bit."""
    return bool(_told(one) == _told(other))


def _told(value: Any) -> Any:
    """A value as something that can be compared with any other."""
    sort = type(value).__qualname__
    state = next((find for each, find in STATES.items() if isinstance(value, each)), None)
    if state is not None:
        return sort, _told(state(value))
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous().flatten()
        return sort, str(value.dtype), tuple(value.shape), b"" if value.is_meta else plain.view(torch.uint8).numpy().tobytes()
    if isinstance(value, np.ndarray):
        return sort, str(value.dtype), value.shape, repr(value.tolist()) if value.dtype.hasobject else value.tobytes()
    if isinstance(value, PLAIN):
        return sort, repr(value)
    if isinstance(value, dict):
        return sort, tuple((_told(name), _told(each)) for name, each in value.items())
    if isinstance(value, set | frozenset):
        return sort, frozenset(map(_told, value))
    return sort, tuple(map(_told, value)) if isinstance(value, COLLECTIONS) else _told(vars(value))


def _parts(value: Any) -> Iterable[Any]:
    return (each for pair in value.items() for each in pair) if isinstance(value, dict) else value
