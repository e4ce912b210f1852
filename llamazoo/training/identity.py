"""What a run is, so that a checkpoint of another is not taken for its own."""

import hashlib
import json

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from llamazoo.data.example import DataSet
from llamazoo.decoder import Decoder
from llamazoo.training.code import code_of
from llamazoo.training.recipe import Recipe

__all__ = ["Identity", "identity_of"]


class Identity(BaseModel):
    """All that a run's figures follow from, in hashes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    settings: str
    """Of the spec, number type, device, data, recipe and seed."""
    values: str
    """Of the model's values as training begins."""
    code: dict[str, str]
    """Versions of llamazoo and PyTorch, and hashes of the sources of parts from elsewhere."""

    def unlike(self, other: "Identity") -> str | None:
        """In what another run differs from this one, or None if they are the same."""
        if self.settings != other.settings:
            return "another model, other data or another recipe"
        if self.values != other.values:
            return "other values to begin from; bring the model as it was when that run began"
        names = sorted(name for name in self.code.keys() | other.code.keys() if self.code.get(name) != other.code.get(name))
        return f"other code of {', '.join(names)}" if names else None


def identity_of(model: Decoder, data: DataSet, recipe: Recipe, seed: int) -> Identity:
    """What a run of this model, which is as it is when training begins, follows from."""
    told = {
        "spec": model.spec.canonical(),
        "dtype": str(model.dtype),
        "device": model.device.type,
        "data": data.fingerprint,
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
    }
    settings = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return Identity(settings=settings, values=_values(model), code=code_of(model))


def _values(model: nn.Module) -> str:
    """A hash of all parameters and persistent buffers: name, number type, shape, bytes."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name}\n{value.dtype}\n{list(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
