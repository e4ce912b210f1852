"""Where a token stands: rotary, learned and ALiBi positions at equal size, and none; at the trained length and at four times that.

python examples/ablate_position.py [FOLDER [CHANGE ...]]      # such as train.tokens=4000000 seeds=10
"""

import json
import sys

from llamazoo import ablation

EXPERIMENT = {
    "name": "position",
    "base": {"extends": "llama-tiny", "dim": 64, "hidden_dim": 176, "n_layers": 2, "max_seq_len": 512},
    "variants": {
        "learned": {"position": "learned"},
        "alibi": {"position": "alibi"},
        "none": {"position": "none"},
    },
    "data": {"source": "stdlib", "tokenizer": "bytes", "max_bytes": 2_000_000},
    "train": {"tokens": 1_000_000, "batch_tokens": 2048, "seq_len": 128, "lr": [3e-3, 1e-2], "evaluate_tokens": 16_384},
    "seeds": 5,
    "outcomes": ["loss", "loss@4x"],
}


def main(folder: str = "ablations/position", *changes: str) -> None:
    overrides = {path: json.loads(value) for path, _, value in (change.partition("=") for change in changes)}
    experiment = ablation.read_experiment(EXPERIMENT, overrides=overrides)
    results = ablation.run(experiment, folder, launcher="processes")  # what is there from an earlier call is not repeated
    for variant in results.variants:
        for comparison in variant.comparisons:
            print(f"{variant.name}, {comparison.outcome}: {comparison.sentence}")
    print(f"report: {folder}/report.html")


if __name__ == "__main__":
    main(*sys.argv[1:])
