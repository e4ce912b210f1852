"""What sees that which it has to predict is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_experiment import BASE
from torch import Tensor
from torch.nn import Parameter

import llamazoo
from llamazoo.ablation import run
from llamazoo.ablation.experiment import read_experiment
from llamazoo.ablation.plan import Plan
from llamazoo.ablation.trial import tried
from llamazoo.errors import SpecError

EXPERIMENT: dict[str, Any] = {
    "name": "isolation",
    "base": BASE,
    "match": "none",
    "data": {"source": "induction", "vocab_size": 24, "length": 8, "span": 3, "spans": 2},
    "train": {"tokens": 256, "batch_tokens": 128, "seq_len": 16, "lr": 0.003, "evaluate_tokens": 256},
    "seeds": 2,
}


class Peeking(llamazoo.FeedForward):
    """Adds a share of the next token's features; none at first."""

    name = "peeking"

    def __init__(self, options: llamazoo.ComponentOptions, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.peek = Parameter(torch.empty(site.dim))

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.zeros(self.peek)

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        return x.roll(-1, 1) * self.peek


class Gossiping(llamazoo.FeedForward):
    """Takes the mean over the batch away."""

    name = "gossiping"

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        return x - x.mean(0, keepdim=True)


class Remembering(llamazoo.FeedForward):
    """Adds the token before, though it be of another document."""

    name = "remembering"

    def forward(self, x: Tensor, step: llamazoo.Step) -> Tensor:
        return torch.nn.functional.pad(x, (0, 0, 1, -1))


@pytest.mark.parametrize(
    ("part", "told"),
    [(Peeking, "tokens that come later"), (Gossiping, "another row of the batch"), (Remembering, "another document")],
)
def test_a_part_that_sees_too_much_is_refused_by_its_variant_before_anything_is_trained(
    part: type[llamazoo.FeedForward], told: str, tmp_path: Path
) -> None:
    registry = llamazoo.default_registry().extended(part)
    with pytest.raises(SpecError, match=rf"variants\.odd: cannot be compared: .*{told}"):
        run({**EXPERIMENT, "variants": {"odd": {"feed_forward": part.name}}}, tmp_path, registry=registry)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"position": "learned", "norm": "layernorm"},
        {"position": "alibi", "attention": {"window": 4}},
        {"feed_forward": {"type": "experts", "n_experts": 4, "top_k": 2}},
        {"attention": "mamba2", "position": "none"},
        {"attention": {"type": "multihead", "sinks": True}, "position": "t5"},
    ],
)
def test_built_in_parts_and_plugins_see_what_they_may(changes: dict[str, Any]) -> None:
    plan = Plan(read_experiment({**EXPERIMENT, "variants": {"other": changes}}), {None: ""}, "cpu")
    assert {job.variant: tried([job]) for job in plan.all_jobs()} == {"base": (None, {}), "other": (None, {})}
