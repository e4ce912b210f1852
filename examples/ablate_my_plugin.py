"""A norm of your own, defined in this file, against the built-in RMSNorm and LayerNorm.

python examples/ablate_my_plugin.py [FOLDER [CHANGE ...]]      # such as train.tokens=4000000 seeds=10
"""

import json
import sys

import torch

import llamazoo
from llamazoo import ablation


class DynamicTanh(llamazoo.Norm):
    """w * tanh(a x). Zhu et al. 2025."""

    name = "my_dyt"

    class Options(llamazoo.ComponentOptions):
        alpha: float = 0.5

    def __init__(self, options: Options, site: llamazoo.Site) -> None:
        super().__init__(options, site)
        self.weight = llamazoo.parameter(site.dim)

    def reset(self, draw: llamazoo.Draw) -> None:
        draw.ones(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * torch.tanh(self.options.alpha * x)


EXPERIMENT = {
    "name": "my_plugin",
    "base": {"extends": "llama-tiny", "dim": 64, "hidden_dim": 176, "n_layers": 2},
    "variants": {
        "mine": {"norm": {"type": "my_dyt", "alpha": 0.8}},
        "layernorm": {"norm": "layernorm"},
    },
    "data": {"source": "stdlib", "tokenizer": "bytes", "max_bytes": 2_000_000},
    "train": {"tokens": 1_000_000, "batch_tokens": 2048, "seq_len": 128, "lr": [3e-3, 1e-2], "evaluate_tokens": 16_384},
    "seeds": 5,
}


def main(folder: str = "ablations/my_plugin", *changes: str) -> None:
    overrides = {path: json.loads(value) for path, _, value in (change.partition("=") for change in changes)}
    registry = llamazoo.default_registry().extended(DynamicTanh)
    experiment = ablation.read_experiment(EXPERIMENT, registry, overrides=overrides)
    results = ablation.run(experiment, folder, launcher="processes", registry=registry, parts=[__file__])  # which all processes read
    for variant in results.variants:
        for comparison in variant.comparisons:
            print(f"{variant.name}, {comparison.outcome}: {comparison.sentence}")
    print(f"report: {folder}/report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
