"""Build a model from a spec, look at it, generate with it, save it and load it again.

python examples/quickstart.py [FOLDER]      # a model's folder, such as build/smollm2-135m after `make demo`
"""

import sys
import tempfile
from pathlib import Path

import torch

import llamazoo


def from_a_spec() -> None:
    spec = llamazoo.load_spec("llama-tiny")
    cost = llamazoo.describe(spec)
    print(f"{spec.source}: {cost.parameters:,} parameters, {cost.cache_bytes_per_token:,} bytes of cache per token")

    model = llamazoo.build_model(spec)
    prompt = list(b"Once upon a time")  # llama-tiny reads bytes
    made = llamazoo.generate(model, prompt, max_new_tokens=16, temperature=0.8, top_p=0.95, seed=0)
    print("an untrained model says", bytes(made.tokens[0]))

    with tempfile.TemporaryDirectory() as folder:
        llamazoo.save_model(model, Path(folder) / "mine")
        again = llamazoo.load_model(Path(folder) / "mine")
    tokens = torch.tensor([prompt])
    print("saved and loaded, the logits are the same:", torch.equal(model(tokens), again(tokens)))


def from_a_folder(folder: str) -> None:
    model = llamazoo.load_model(folder)
    tokenizer = llamazoo.load_tokenizer(folder)
    for piece in llamazoo.stream(model, "The capital of France is", max_new_tokens=24, tokenizer=tokenizer):
        print(piece.text, end="", flush=True)
    print()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        from_a_folder(sys.argv[1])
    else:
        from_a_spec()
