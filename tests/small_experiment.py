"""An experiment of milliseconds on a norm called `mine`, and texts a little longer than what its models are trained on."""

import json
from pathlib import Path
from typing import Any

BASE = {"extends": "llama-tiny", "vocab_size": 32, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32, "max_seq_len": 32}
EXPERIMENT: dict[str, Any] = {
    "name": "small",
    "base": BASE,
    "variants": {"mine": {"norm": "mine"}},
    "match": "none",
    "data": {"source": "induction", "vocab_size": 24, "length": 8, "span": 3, "spans": 2},
    "train": {"tokens": 512, "batch_tokens": 128, "seq_len": 16, "lr": 0.003, "evaluate_tokens": 256},
    "seeds": 1,
    "noise": False,
}


def small_texts(folder: Path) -> dict[str, Any]:
    """The data of an experiment: texts in a file of this folder, of 256 different tokens."""
    lines = [json.dumps({"text": f"{number} times {number} is {number * number}; " * 5}) for number in range(60)]
    (folder / "texts.jsonl").write_text("\n".join(lines))
    return {"source": "files", "paths": [str(folder / "texts.jsonl")], "tokenizer": "bytes", "validation": 0.2}


def of_text(folder: Path, **changes: Any) -> dict[str, Any]:
    """The experiment on texts, of which there are longer ones than are trained on."""
    return {**EXPERIMENT, "base": {**BASE, "vocab_size": 256}, "data": small_texts(folder), **changes}
