"""The feed-forward of a LLaMA: gated or not, and by which activation, each as wide as makes the sizes equal.

python examples/ablate_feed_forward.py [FOLDER [CHANGE ...]]      # such as train.tokens=4000000 seeds=10
"""

import json
import sys

from llamazoo import ablation

EXPERIMENT = {
    "name": "feed_forward",
    "base": {"extends": "llama-tiny", "dim": 64, "hidden_dim": 176, "n_layers": 2},
    "variants": {
        "gelu": {"feed_forward": {"type": "mlp", "activation": "gelu"}},
        "relu": {"feed_forward": {"type": "mlp", "activation": "relu"}},
        "geglu": {"feed_forward": "geglu"},
    },
    "data": {"source": "stdlib", "tokenizer": "bytes", "max_bytes": 2_000_000},
    "train": {"tokens": 1_000_000, "batch_tokens": 2048, "seq_len": 128, "lr": [3e-3, 1e-2], "evaluate_tokens": 16_384},
    "seeds": 5,
}


def main(folder: str = "ablations/feed_forward", *changes: str) -> None:
    overrides = {path: json.loads(value) for path, _, value in (change.partition("=") for change in changes)}
    experiment = ablation.read_experiment(EXPERIMENT, overrides=overrides)
    results = ablation.run(experiment, folder, launcher="processes")  # what is there from an earlier call is not repeated
    for variant in results.variants:
        for comparison in variant.comparisons:
            print(f"{variant.name}, {comparison.outcome}: {comparison.sentence}")
    print(f"report: {folder}/report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
