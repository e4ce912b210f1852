"""The optimizer of a run, and one update of it: gradients added up over a batch, clipped, and refused if they are not finite."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from llamazoo.contract.kinds import Norm
from llamazoo.data.example import Example
from llamazoo.decoder import Decoder
from llamazoo.load_balance import correct_load, corrected, expert_load
from llamazoo.training.recipe import Recipe

__all__ = ["Update", "Updater", "adamw", "decayed"]


def adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW over what can be trained, of which matrices decay. Loshchilov & Hutter 2019, algorithm 2."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    decaying = decayed(model)
    groups = [
        {"params": [p for name, p in trained.items() if name in decaying], "weight_decay": recipe.weight_decay},
        {"params": [p for name, p in trained.items() if name not in decaying], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda", "mps") for p in trained.values())
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=fused
    )


def decayed(model: nn.Module) -> set[str]:
    """The parameters that decay: of more than one dimension, not called a bias (those of experts are stacked), and not a norm's."""
    gains = {p for module in model.modules() if isinstance(module, Norm) for p in module.parameters()}
    return {name for name, p in model.named_parameters() if p.ndim > 1 and not name.endswith("bias") and p not in gains}


@dataclass(frozen=True)
class Update:
    """What one step of the optimizer saw and did."""

    loss: float | None
    """Mean over the batch's targets, nats, with the layers' auxiliary losses; None if it has no target."""
    norm: float
    """Of all gradients together, before they were clipped."""
    lr: float
    targets: int
    taken: bool
    """False if loss or norm is not finite, or there is no target: then the model is as it was."""


class Updater:
    """Updates a model by batches; all that it remembers is the optimizer's state."""

    def __init__(self, model: Decoder, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        self.optimizer = adamw(model, recipe)
        self.rows = (recipe.micro_batch_tokens or recipe.batch_tokens) // recipe.seq_len
        self.corrected = corrected(model)

    def step(self, batch: Example, step: int) -> Update:
        """Learn from a batch [b t], the step numbered from 0 says how much."""
        if not self.corrected:
            return self._step(batch, step)
        with expert_load(self.model) as load:
            update = self._step(batch, step)
        if update.taken:
            correct_load(self.model, load, self.recipe.correction_rate)
        return update

    def _step(self, batch: Example, step: int) -> Update:
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        learned, lr = batch.learned, self.recipe.learning_rate(step)
        if learned == 0:
            return Update(None, 0.0, lr, learned, taken=False)
        loss = self._gradients(batch, learned)
        norm = self._clip()
        taken = math.isfinite(loss) and math.isfinite(norm)
        if taken:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return Update(loss, norm, lr, learned, taken)

    def _gradients(self, batch: Example, learned: int) -> float:
        """The loss of the whole batch, a mean over its targets however it is cut into micro-batches."""
        total = 0.0
        for first in range(0, len(batch.tokens), self.rows):
            part = Example(*(each[first : first + self.rows] for each in batch))
            share = part.learned / learned
            if share == 0:
                continue  # nothing in it is to be predicted
            device = self.model.device.type
            with torch.autocast(device, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                loss = self.model.loss(part.tokens, part.targets, part.segments) * share
            loss.backward()
            total += float(loss.detach())
        return total

    def _clip(self) -> float:
        most = math.inf if self.recipe.clip is None else self.recipe.clip
        if self.model.division is not None:
            return float(self.model.division.clip_grad_norm(self.model, most))
        return float(torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], most))
