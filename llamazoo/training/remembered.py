"""What parts remember from step to step outside their parameters. No checkpoint holds it, so that it must not change what is computed."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from llamazoo.data.example import Example
from llamazoo.decoder import Decoder
from llamazoo.errors import TrainingError
from llamazoo.training.pinned import pinned
from llamazoo.training.recipe import Recipe
from llamazoo.training.values import copied, is_value, same

__all__ = ["Remembered"]

Where = tuple[str, str]  # a module's path, and the name of an attribute or a buffer
MODULES_OWN = frozenset(vars(nn.Module()))  # what every module has
ABSENT = object()


class Remembered:
    """What the parts of a model hold as a process begins to train it: one that goes on with the run begins with that again."""

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.at_first = {where: copied(value) for where, value in held(model)}

    def check(self, batch: Example, recipe: Recipe) -> None:
        """Raise TrainingError if what parts hold by now makes another loss, or other gradients, of a batch than what they held at first.

        What changes and makes no difference is let be: a table that was computed for later, a figure that is kept to be looked at.
        """
        before = self.at_first
        now = {where: value for where, value in held(self.model) if where not in before or not same(before[where], value)}
        if not now:
            return
        mode, first = self.model.training, {where: before.get(where, ABSENT) for where in now}
        try:
            differs = self._computed(batch, recipe, now) != self._computed(batch, recipe, first)
        finally:
            self._put(now)
            self.model.train(mode)
        if differs:
            more = f" and {len(now) - 3} more" if len(now) > 3 else ""
            raise TrainingError(
                f"{', '.join(self._told(*where) for where in list(now)[:3])}{more}: changes as it is trained, and the loss with it, while "
                "no checkpoint holds it: a run that is interrupted would end elsewhere. Keep it in a parameter with requires_grad=False, "
                "or do without it"
            )

    def _computed(self, batch: Example, recipe: Recipe, values: Mapping[Where, Any]) -> list[bytes]:
        """What comes of a batch, in training and outside, where parts hold these values."""
        self._put({where: value if value is ABSENT else copied(value) for where, value in values.items()})
        found = []
        with pinned(recipe, self.model.device, 0):
            for training in (True, False):
                self.model.train(training)
                try:
                    loss = self.model.loss(batch.tokens, batch.targets, batch.segments)
                    trained = [p for p in self.model.parameters() if p.requires_grad]
                    found += [loss, *torch.autograd.grad(loss, trained, materialize_grads=True)]
                except Exception as error:  # as it may come of half a memory; both have it then, or they differ
                    return [repr(error).encode()]
        return [each.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes() for each in found]

    def _put(self, values: Mapping[Where, Any]) -> None:
        modules = dict(self.model.named_modules())
        for (path, name), value in values.items():
            if value is not ABSENT:
                setattr(modules[path], name, value)
            elif hasattr(modules[path], name):
                delattr(modules[path], name)

    def _told(self, path: str, name: str) -> str:
        part = self.model.get_submodule(path)
        return f"{f'{path}.{name}' if path else name} of {type(part).__name__}"


def held(model: nn.Module) -> Iterator[tuple[Where, Any]]:
    """The buffers of all modules, and those of their other attributes that are values."""
    for path, module in model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in MODULES_OWN}
        for name, value in (own | module._buffers).items():
            if is_value(value):
                yield (path, name), value
