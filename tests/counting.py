"""A tiny model, and data that it learns in a second: counting upwards."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import llamazoo
from llamazoo.data.example import Example
from llamazoo.training.recipe import Recipe

SPEC = {
    "version": 1, "vocab_size": 11, "dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2, "max_seq_len": 16,
    "norm": "rmsnorm", "position": "rope", "attention": "multihead", "feed_forward": "swiglu",
}  # fmt: skip


class Counting:
    """Tokens that count upwards from where the example's number says, modulo a prime."""

    def __init__(self, length: int, key: int, count: int) -> None:
        self.length, self.key, self.count = length, key, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if index >= self.count:
            raise IndexError(index)
        whole = (torch.arange(self.length + 1) * (1 + index % 3) + index * 7 + self.key) % 11
        return Example(whole[:-1], whole[1:].clone(), torch.zeros(self.length, dtype=torch.int64))


class CountingData:
    vocab_size, fingerprint, accuracy = 11, "counting", True

    def training(self, seq_len: int, seed: int) -> Counting:
        return Counting(seq_len, seed, 1 << 40)

    def validation(self, seq_len: int) -> Counting:
        return Counting(seq_len, 5, 10)

    def facts(self) -> dict[str, str | int | float]:
        return {}


def recipe(**changes: Any) -> Recipe:
    given = {"tokens": 640, "batch_tokens": 32, "seq_len": 8, "evaluate_tokens": 64, "lr": 0.01, **changes}
    return Recipe(**given)


def model(**overrides: Any) -> llamazoo.Decoder:
    return llamazoo.build_model(SPEC, overrides=overrides, device="cpu")


def weights(of: llamazoo.Decoder) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in of.named_parameters()}


def assert_equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def journal(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]
