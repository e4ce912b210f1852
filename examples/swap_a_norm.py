"""One LLaMA, four norms: the same data and the same first values, so that only the norm differs."""

import torch

import llamazoo

VARIANTS = {
    "rmsnorm": {},
    "layernorm": {"norm": "layernorm"},
    "layernorm without bias": {"norm": {"type": "layernorm", "bias": False}},
    "none": {"norm": "none"},
}
STEPS, BATCH, LENGTH = 20, 8, 64


def batches(text: bytes) -> list[torch.Tensor]:
    """The same batches for every variant."""
    generator = torch.Generator().manual_seed(0)
    data = torch.tensor(list(text))
    starts = torch.randint(0, len(data) - LENGTH, (STEPS, BATCH), generator=generator)
    return [torch.stack([data[s : s + LENGTH] for s in row]) for row in starts]


def train(model: llamazoo.Decoder, data: list[torch.Tensor]) -> float:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for tokens in data:
        loss = model.loss(tokens)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


if __name__ == "__main__":
    with open(__file__, "rb") as file:
        data = batches(file.read())
    for name, change in VARIANTS.items():
        model = llamazoo.build_model("llama-tiny", overrides={"n_layers": 2, **change})
        size = llamazoo.describe(model.spec).parameters
        print(f"{name:24} {size:9,} parameters   loss after {STEPS} steps {train(model, data):.3f}")
    print("One seed and a handful of steps decide nothing; they show how to ask.")
