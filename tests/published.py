"""Models of published types, made small and random by transformers: what ours are compared with."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

import llamazoo

VOCAB, CONTEXT = 96, 256


@dataclass
class Published:
    """A model type, small: `config` over what all have; `length` is that of the text, past windows and original contexts."""

    name: str
    config: dict[str, Any]
    length: int = 48
    seed: int = 0
    kernel: str = "eager"  # of theirs; Falcon's eager one adds ALiBi twice, which its others do not

    def __str__(self) -> str:
        return self.name


def theirs(case: Published) -> Any:
    """The model of transformers, in float64, its parameters random enough that every one matters."""
    import transformers

    config = transformers.AutoConfig.for_model(**case.config)
    torch.manual_seed(case.seed)
    config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float64, attn_implementation=case.kernel).eval()
    with torch.no_grad():
        kept = model.state_dict()  # with buffers that a checkpoint holds
        held = dict(model.named_parameters()) | {name: buffer for name, buffer in model.named_buffers() if name in kept}
        for name, parameter in held.items():
            scale = 0.3 if parameter.ndim < 2 else 0.8 / parameter.shape[-1] ** 0.5
            noise = torch.randn(
                parameter.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(name) + parameter.numel())
            )
            parameter.add_(noise * scale) if parameter.ndim < 2 else parameter.copy_(noise * scale)
    return model


def text(case: Published, rows: int = 2) -> Tensor:
    return torch.randint(0, case.config["vocab_size"], (rows, case.length), generator=torch.Generator().manual_seed(case.seed + 1))


def logits_of(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, use_cache=False).logits.double()


def continued(model: Any, prompt: Tensor, count: int) -> list[int]:
    """Theirs, the whole text anew for each token: what any cache has to equal."""
    tokens = prompt
    for _ in range(count):
        tokens = torch.cat((tokens, logits_of(model, tokens)[:, -1:].argmax(-1)), 1)
    return tokens[0, prompt.shape[1] :].tolist()


def greedy(model: llamazoo.Decoder, prompt: Tensor, count: int) -> list[int]:
    """Ours, with the cache: a prefill, then one token at a time."""
    state = model.new_state(1, prompt.shape[1] + count)
    logits, found = model(prompt, state=state, last_only=True), []
    for _ in range(count):
        found.append(int(logits[0, -1].argmax()))
        logits = model(torch.tensor([found[-1:]]), state=state)
    return found


def tensors_in(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
